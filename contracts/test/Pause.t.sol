// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IGuarded} from "../src/interfaces/IGuarded.sol";
import {Market} from "./Market.sol";

/// @notice Invariant 6: a pause keeps new money out, and holds nothing back.
contract PauseTest is Market {
    function test_a_pause_stops_deposits_and_opens() public {
        vm.prank(payer);
        escrow.deposit(10 * DOLLAR);
        _pause();
        bytes memory paused = abi.encodeWithSelector(IGuarded.PausedNow.selector, block.timestamp + 7 days);
        IEscrow.ChannelParams memory params = _params(0);
        vm.startPrank(payer);
        vm.expectRevert(paused);
        escrow.deposit(DOLLAR);
        vm.expectRevert(paused);
        escrow.depositWithPermit(payer, DOLLAR, block.timestamp, 27, "r", "s");
        vm.expectRevert(paused);
        escrow.depositWithAuthorization(payer, DOLLAR, 0, block.timestamp, "salt", 27, "r", "s");
        vm.expectRevert(paused);
        escrow.open(signer, provider, modelId, 0, DOLLAR);
        vm.expectRevert(paused);
        escrow.openWithSig(params, DOLLAR, "", block.timestamp);
        vm.expectRevert(paused);
        escrow.depositAndOpen(signer, provider, modelId, 0, DOLLAR);
        vm.expectRevert(paused);
        escrow.depositAndOpenWithAuthorization(params, DOLLAR, 0, block.timestamp, 27, "r", "s");
        vm.stopPrank();
    }

    function test_a_pause_never_stops_redeem_close_or_withdraw() public {
        for (uint96 salt; salt < 2; ++salt) {
            _open(salt, 10 * DOLLAR);
        }
        vm.prank(payer);
        escrow.deposit(10 * DOLLAR);
        _pause();
        vm.prank(payer);
        _topUp(0, DOLLAR);
        eq(_redeem(_claim(0, 4 * DOLLAR)), 4 * DOLLAR, "redeem");
        vm.prank(provider);
        escrow.closeByProvider(_params(0));
        vm.startPrank(payer);
        _requestClose(1);
        _cancelClose(1);
        _requestClose(1);
        vm.warp(block.timestamp + CHALLENGE);
        escrow.finalizeClose(_params(1));
        escrow.withdraw(uint96(escrow.balanceOf(payer)));
        vm.stopPrank();
        eq(token.balanceOf(payer), 996 * DOLLAR, "everything but what was paid");
        eq(escrow.claimCredit(publisher), 200_000, "royalty");
        address[] memory holders = new address[](1);
        holders[0] = publisher;
        eq(escrow.claimFees(holders), 40_000, "fee");
        eq(token.balanceOf(address(escrow)), 0, "nothing is held back");
    }

    function test_a_pause_ends_by_itself_after_seven_days() public {
        _pause();
        uint256 began = block.timestamp;
        (uint40 until, uint40 next) = escrow.pauses();
        eq(until, began + 7 days, "until");
        eq(next, began + 30 days, "next");
        vm.warp(began + 7 days - 1);
        vm.prank(payer);
        vm.expectRevert();
        escrow.deposit(DOLLAR);
        vm.warp(began + 7 days);
        vm.prank(payer);
        escrow.deposit(DOLLAR);
    }

    function test_no_pause_follows_another_within_thirty_days_even_if_it_ended_early() public {
        _pause();
        uint256 began = block.timestamp;
        vm.prank(guardian);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IGuarded.Unpaused();
        escrow.endPause();
        _open(0, DOLLAR);
        vm.warp(began + 30 days - 1);
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(IGuarded.PausedLately.selector, began + 30 days));
        escrow.pause();
        vm.warp(began + 30 days);
        _pause();
    }

    function test_only_the_guardian_pauses_and_where_there_is_none_nobody() public {
        vm.expectRevert(IGuarded.NotGuardian.selector);
        escrow.pause();
        _pause();
        vm.prank(payer);
        vm.expectRevert(IGuarded.NotGuardian.selector);
        escrow.endPause();
        Escrow unguarded = new Escrow(token, models, address(0), treasury, FEE_BPS, CHALLENGE);
        vm.prank(guardian);
        vm.expectRevert(IGuarded.NotGuardian.selector);
        unguarded.pause();
    }

    function test_terms_are_what_was_decided() public view {
        IEscrow.Terms memory terms = escrow.terms();
        eq(terms.token, address(token), "token");
        eq(terms.models, address(models), "models");
        eq(terms.guardian, guardian, "guardian");
        eq(terms.feeRecipient, treasury, "fee recipient");
        eq(terms.feeBps, FEE_BPS, "fee");
        eq(terms.challengePeriod, CHALLENGE, "challenge period");
    }

    function _pause() private {
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IGuarded.Paused(uint40(block.timestamp + 7 days));
        vm.prank(guardian);
        escrow.pause();
    }
}
