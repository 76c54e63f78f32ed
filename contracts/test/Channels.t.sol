// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IModels} from "../src/interfaces/IModels.sol";
import {Market} from "./Market.sol";

/// @notice A payer's money in and out: balances, channels, and both ways of closing.
contract ChannelsTest is Market {
    function test_deposit_and_withdraw() public {
        vm.prank(payer);
        escrow.deposit(10 * DOLLAR);
        eq(escrow.balanceOf(payer), 10 * DOLLAR, "free balance");
        eq(token.balanceOf(address(escrow)), 10 * DOLLAR, "held");

        vm.prank(payer);
        escrow.withdraw(4 * DOLLAR);
        eq(escrow.balanceOf(payer), 6 * DOLLAR, "free balance");
        eq(token.balanceOf(payer), 994 * DOLLAR, "in hand");
    }

    function test_nobody_withdraws_more_than_its_balance() public {
        vm.prank(payer);
        escrow.deposit(10 * DOLLAR);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.InsufficientBalance.selector, 10 * DOLLAR, 10 * DOLLAR + 1));
        escrow.withdraw(10 * DOLLAR + 1);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.InsufficientBalance.selector, 0, 1));
        escrow.withdraw(1);
    }

    function test_zero_amounts_are_refused() public {
        vm.startPrank(payer);
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.deposit(0);
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.withdraw(0);
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.depositAndOpen(signer, provider, modelId, 0, 0);
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.claimCredit(payer);
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.claimFees(new address[](0));
        vm.stopPrank();
    }

    /// @dev Nothing is gained by refusing it, and each open would pay for the question.
    function test_a_channel_may_be_opened_empty_and_topped_up() public {
        vm.startPrank(payer);
        bytes32 id = escrow.open(signer, provider, modelId, 0, 0);
        eq(escrow.channel(id).flags, 1, "open");
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChannelExists.selector, id));
        escrow.open(signer, provider, modelId, 0, 0);
        escrow.deposit(DOLLAR);
        _topUp(0, DOLLAR);
        vm.stopPrank();
        eq(_redeem(_claim(0, DOLLAR)), DOLLAR, "paid");
    }

    function test_open_from_the_free_balance() public {
        vm.prank(payer);
        escrow.deposit(10 * DOLLAR);
        bytes32 expected = _id(_params(7));
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Opened(payer, provider, modelId, bytes32(abi.encodePacked(signer, uint96(7))), 3 * DOLLAR);
        vm.prank(payer);
        bytes32 id = escrow.open(signer, provider, modelId, 7, 3 * DOLLAR);

        eq(id, expected, "id");
        eq(escrow.balanceOf(payer), 7 * DOLLAR, "free balance");
        IEscrow.Channel memory channel = escrow.channel(id);
        eq(channel.funded, 3 * DOLLAR, "funded");
        eq(channel.redeemed, 0, "redeemed");
        eq(channel.closeAt, 0, "close time");
        eq(channel.flags, 1, "flags");
    }

    function test_open_needs_the_balance() public {
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.InsufficientBalance.selector, 0, 1));
        escrow.open(signer, provider, modelId, 0, 1);
    }

    function test_deposit_and_open_pulls_only_the_amount() public {
        vm.prank(payer);
        escrow.deposit(10 * DOLLAR);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.DepositedAndOpened(
            payer, provider, modelId, bytes32(abi.encodePacked(signer, uint96(1))), 3 * DOLLAR
        );
        _open(1, 3 * DOLLAR);
        eq(escrow.balanceOf(payer), 10 * DOLLAR, "the free balance is not touched");
        eq(token.balanceOf(payer), 987 * DOLLAR, "in hand");
    }

    function test_an_open_channel_is_not_opened_again() public {
        bytes32 id = _open(0, DOLLAR);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChannelExists.selector, id));
        escrow.depositAndOpen(signer, provider, modelId, 0, DOLLAR);
    }

    function test_the_channel_id_is_the_documented_hash() public view {
        IEscrow.ChannelParams memory p = _params(42);
        eq(
            escrow.channelIdOf(p.payer, p.signer, p.provider, p.modelId, p.salt),
            keccak256(abi.encode(p.payer, p.signer, p.provider, p.modelId, address(token), p.salt)),
            "channel id"
        );
    }

    function test_top_up() public {
        bytes32 id = _open(0, DOLLAR);
        vm.startPrank(payer);
        escrow.deposit(10 * DOLLAR);
        _topUp(0, 4 * DOLLAR);
        vm.stopPrank();
        eq(escrow.channel(id).funded, 5 * DOLLAR, "funded");
        eq(escrow.balanceOf(payer), 6 * DOLLAR, "free balance");
    }

    function test_top_up_is_the_payers_and_not_while_closing() public {
        _open(0, DOLLAR);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.InsufficientBalance.selector, 0, 1));
        _topUp(0, 1);
        vm.startPrank(payer);
        escrow.deposit(DOLLAR);
        _requestClose(0);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.CloseAlreadyRequested.selector, uint40(block.timestamp) + CHALLENGE)
        );
        _topUp(0, 1);
        vm.stopPrank();
    }

    function test_top_up_never_overflows_the_slot() public {
        _fund(payer, type(uint96).max);
        vm.startPrank(payer);
        escrow.depositAndOpen(signer, provider, modelId, 0, type(uint96).max);
        escrow.deposit(1);
        vm.expectRevert();
        _topUp(0, 1);
        vm.stopPrank();
    }

    function test_the_provider_closes_at_once() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        _redeem(_claim(0, 4 * DOLLAR));
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Closed(id, payer, provider, 6 * DOLLAR);
        vm.prank(provider);
        escrow.closeByProvider(_params(0));
        eq(escrow.balanceOf(payer), 6 * DOLLAR, "the remainder is the payer's");
        IEscrow.Channel memory channel = escrow.channel(id);
        eq(channel.funded, 4 * DOLLAR, "funded");
        eq(channel.redeemed, 4 * DOLLAR, "redeemed");
        eq(channel.flags, 3, "flags");
    }

    function test_only_the_provider_closes_at_once() public {
        _open(0, DOLLAR);
        vm.prank(payer);
        vm.expectRevert(IEscrow.NotProvider.selector);
        escrow.closeByProvider(_params(0));
    }

    function test_the_payer_closes_after_the_challenge_period() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        uint40 closeAt = uint40(block.timestamp) + CHALLENGE;
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.CloseRequested(id, provider, closeAt);
        vm.prank(payer);
        _requestClose(0);

        vm.warp(closeAt - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.TooEarly.selector, closeAt));
        escrow.finalizeClose(_params(0));
        eq(_redeem(_claim(0, 4 * DOLLAR)), 4 * DOLLAR, "the provider is paid until the last moment");

        vm.warp(closeAt);
        vm.prank(stranger);
        escrow.finalizeClose(_params(0));
        eq(escrow.balanceOf(payer), 6 * DOLLAR, "the remainder is the payer's");
        eq(_redeem(_claim(0, 9 * DOLLAR)), 0, "nothing comes out of a closed channel");
    }

    function test_a_late_provider_is_paid_until_somebody_finalises() public {
        _open(0, 10 * DOLLAR);
        vm.prank(payer);
        _requestClose(0);
        vm.warp(block.timestamp + 30 days);
        eq(_redeem(_claim(0, 4 * DOLLAR)), 4 * DOLLAR, "paid");
    }

    function test_a_request_to_close_is_taken_back() public {
        _open(0, DOLLAR);
        vm.startPrank(payer);
        vm.expectRevert(IEscrow.CloseNotRequested.selector);
        _cancelClose(0);
        vm.expectRevert(IEscrow.CloseNotRequested.selector);
        escrow.finalizeClose(_params(0));
        _requestClose(0);
        _cancelClose(0);
        vm.stopPrank();
        vm.warp(block.timestamp + 30 days);
        vm.expectRevert(IEscrow.CloseNotRequested.selector);
        escrow.finalizeClose(_params(0));
    }

    function test_a_second_request_does_not_move_the_date() public {
        _open(0, DOLLAR);
        vm.startPrank(payer);
        _requestClose(0);
        uint40 closeAt = uint40(block.timestamp) + CHALLENGE;
        vm.warp(block.timestamp + 1 hours);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.CloseAlreadyRequested.selector, closeAt));
        _requestClose(0);
        vm.stopPrank();
    }

    function test_only_the_payer_requests_and_cancels() public {
        _open(0, DOLLAR);
        IEscrow.ChannelParams memory params = _params(0);
        params.payer = provider;
        // Who calls is part of the id: to anybody else the channel does not exist.
        bytes memory notOpen = abi.encodeWithSelector(IEscrow.ChannelNotOpen.selector, _id(params));
        vm.startPrank(provider);
        vm.expectRevert(notOpen);
        _requestClose(0);
        vm.expectRevert(notOpen);
        _cancelClose(0);
        vm.expectRevert(notOpen);
        _topUp(0, 0);
        vm.stopPrank();
    }

    function test_a_closed_channel_stays_closed() public {
        bytes32 id = _open(0, DOLLAR);
        vm.prank(provider);
        escrow.closeByProvider(_params(0));
        bytes memory notOpen = abi.encodeWithSelector(IEscrow.ChannelNotOpen.selector, id);
        vm.startPrank(payer);
        vm.expectRevert(notOpen);
        _topUp(0, 1);
        vm.expectRevert(notOpen);
        _requestClose(0);
        vm.expectRevert(notOpen);
        _cancelClose(0);
        vm.expectRevert(notOpen);
        escrow.finalizeClose(_params(0));
        vm.stopPrank();
        vm.prank(provider);
        vm.expectRevert(notOpen);
        escrow.closeByProvider(_params(0));
        eq(escrow.balanceOf(payer), DOLLAR, "the remainder was returned once");
    }

    function test_the_constructor_keeps_its_bounds() public {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.FeeTooHigh.selector, 1_001));
        new Escrow(token, models, guardian, treasury, 1_001, CHALLENGE);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChallengePeriodOutOfBounds.selector, 15 minutes - 1));
        new Escrow(token, models, guardian, treasury, FEE_BPS, 15 minutes - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChallengePeriodOutOfBounds.selector, 30 days + 1));
        new Escrow(token, models, guardian, treasury, FEE_BPS, 30 days + 1);
        vm.expectRevert(IEscrow.ZeroAddress.selector);
        new Escrow(token, models, guardian, address(0), FEE_BPS, CHALLENGE);
        vm.expectRevert(IEscrow.ZeroAddress.selector);
        new Escrow(IERC20(address(0)), models, guardian, treasury, FEE_BPS, CHALLENGE);
        vm.expectRevert(IEscrow.ZeroAddress.selector);
        new Escrow(token, IModels(address(0)), guardian, treasury, FEE_BPS, CHALLENGE);
        new Escrow(token, models, guardian, address(0), 0, 15 minutes);
    }
}
