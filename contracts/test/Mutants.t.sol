// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IModels} from "../src/interfaces/IModels.sol";
import {Market} from "./Market.sol";
import {Mintable} from "./tokens/Hostile.sol";

/// @notice Knows every way to be paid, asks nobody for a signature, and calls the escrow back in the middle of each.
contract Nosy is Mintable {
    address private escrow;
    bytes private call;
    bool public answered;
    bytes public answer;

    function nose(address escrow_, bytes calldata call_) external {
        escrow = escrow_;
        call = call_;
        answered = false;
        answer = "";
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        uint8,
        bytes32,
        bytes32
    ) external {
        _transfer(from, to, value);
    }

    function permit(address owner, address spender, uint256, uint256, uint8, bytes32, bytes32) external {
        _approve(owner, spender, type(uint256).max);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (call.length == 0) return;
        bytes memory data = call;
        call = "";
        (answered, answer) = escrow.call(data);
        require(!answered, "it let itself be called");
    }
}

/// @notice What mutation of the escrow found that no other test noticed: see assurance/README.md.
contract MutantsTest is Market {
    uint256 private immutable payerKey = uint256(keccak256("payer"));

    /// @dev Deployed by hand: forge's own way to deploy an artifact takes a revert for the end of the test.
    function _isRefused(IERC20 token_, IModels models_, address feeRecipient, uint16 feeBps, uint40 period)
        private
        returns (bool)
    {
        bytes memory terms = abi.encode(token_, models_, guardian, feeRecipient, feeBps, period);
        bytes memory code = abi.encodePacked(vm.getCode("src/Escrow.sol:Escrow"), terms);
        address deployed;
        assembly ("memory-safe") {
            deployed := create(0, add(code, 32), mload(code))
        }
        return deployed == address(0);
    }

    function test_each_bound_of_the_constructor() public {
        yes(_isRefused(IERC20(address(0)), models, treasury, 1, 1 days), "no token");
        yes(_isRefused(token, IModels(address(0)), treasury, 1, 1 days), "no models");
        yes(_isRefused(token, models, address(0), 1, 1 days), "a fee for nobody");
        yes(!_isRefused(token, models, address(0), 0, 1 days), "no fee, for nobody");
        yes(!_isRefused(token, models, treasury, 0, 1 days), "no fee, for somebody");
        yes(!_isRefused(token, models, treasury, 1_000, 1 days), "the highest fee");
        yes(_isRefused(token, models, treasury, 1_001, 1 days), "more than the highest fee");
        yes(!_isRefused(token, models, treasury, 1, 15 minutes), "the shortest period");
        yes(_isRefused(token, models, treasury, 1, 15 minutes - 1), "less than the shortest period");
        yes(!_isRefused(token, models, treasury, 1, 30 days), "the longest period");
        yes(_isRefused(token, models, treasury, 1, 30 days + 1), "more than the longest period");
    }

    function test_events_name_the_payer_and_the_amounts() public {
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Deposited(payer, 9 * DOLLAR);
        vm.prank(payer);
        escrow.deposit(9 * DOLLAR);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Withdrawn(payer, DOLLAR);
        vm.prank(payer);
        escrow.withdraw(DOLLAR);
        bytes32 id = _open(0, 5 * DOLLAR);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.ToppedUp(id, provider, 2 * DOLLAR, 7 * DOLLAR);
        vm.prank(payer);
        _topUp(0, 2 * DOLLAR);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.CloseRequested(id, provider, uint40(block.timestamp) + CHALLENGE);
        vm.prank(payer);
        _requestClose(0);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.CloseCancelled(id, provider);
        vm.prank(payer);
        _cancelClose(0);
        _redeem(_claim(0, DOLLAR));
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.CreditClaimed(publisher, 50_000);
        vm.prank(stranger);
        eq(escrow.claimCredit(publisher), 50_000, "claimed");
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Closed(id, payer, provider, 6 * DOLLAR);
        vm.prank(provider);
        escrow.closeByProvider(_params(0));
    }

    /// @dev Forty channels in two groups: more than any memory that is reserved by mistake.
    function test_a_large_batch_is_in_the_event_to_the_last_byte() public {
        IEscrow.Group[] memory groups = new IEscrow.Group[](2);
        bytes memory entries;
        for (uint96 group; group < 2; ++group) {
            bytes memory claims;
            bytes memory channels;
            for (uint96 i; i < 20; ++i) {
                uint96 salt = group * 20 + i;
                bytes32 id = _open(salt, 10 * DOLLAR);
                claims = abi.encodePacked(claims, _claim(salt, (i + 1) * 100_000));
                channels = abi.encodePacked(channels, id, (i + 1) * 100_000);
            }
            groups[group] = IEscrow.Group(modelId, claims);
            entries = abi.encodePacked(entries, publisher, uint96(1_050_000), uint96(210_000), uint32(20), channels);
        }
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Redeemed(provider, 39_480_000, entries);
        vm.prank(provider);
        eq(escrow.redeem(groups), 42 * DOLLAR, "paid");
    }

    /// @dev A claim that pays nothing is not in the event, also beside one that pays.
    function test_a_replayed_claim_is_not_in_the_event() public {
        bytes32 first = _open(0, DOLLAR);
        bytes32 second = _open(1, DOLLAR);
        _redeem(_claim(0, DOLLAR));
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Redeemed(
            provider, 940_000, abi.encodePacked(publisher, uint96(50_000), uint96(10_000), uint32(1), second, DOLLAR)
        );
        _redeem(abi.encodePacked(_claim(0, DOLLAR), _claim(1, DOLLAR)));
        eq(_redeemed(first), DOLLAR, "once");
    }

    function test_the_last_date_that_fits_is_accepted() public {
        bytes32 id = _open(0, DOLLAR);
        vm.warp(type(uint40).max - CHALLENGE);
        vm.prank(payer);
        _requestClose(0);
        eq(escrow.channel(id).closeAt, type(uint40).max, "time to close");
    }

    /// @dev Bits of the old total must not stay in the new one, in any of the 96.
    function test_a_top_up_of_a_large_channel_is_a_sum() public {
        uint96 large = 1 << 94;
        _fund(payer, 3 * uint256(large));
        bytes32 id = _open(0, large);
        vm.startPrank(payer);
        escrow.deposit(2 * large);
        _topUp(0, large);
        eq(escrow.channel(id).funded, 2 * large, "funded");
        _topUp(0, large);
        eq(escrow.channel(id).funded, 3 * large, "funded");
        vm.stopPrank();
    }

    /// @dev Every function that moves money, with a token that calls back, into every one of them.
    function test_no_function_that_moves_money_is_entered_twice() public {
        Nosy nosy = new Nosy();
        escrow = _escrow(address(nosy));
        nosy.mint(payer, 100 * DOLLAR);
        vm.prank(payer);
        nosy.approve(address(escrow), type(uint256).max);
        vm.prank(payer);
        escrow.deposit(20 * DOLLAR);
        _open(0, 10 * DOLLAR);
        IEscrow.Group[] memory none = new IEscrow.Group[](0);
        bytes[10] memory inner = [
            abi.encodeCall(Escrow.deposit, (1)),
            abi.encodeCall(Escrow.depositWithPermit, (payer, 1, 0, 0, 0, 0)),
            abi.encodeCall(Escrow.depositWithAuthorization, (payer, 1, 0, 0, 0, 0, 0, 0)),
            abi.encodeCall(Escrow.withdraw, (1)),
            abi.encodeCall(Escrow.withdrawWithSig, (payer, 1, "", 0)),
            abi.encodeCall(Escrow.depositAndOpen, (signer, provider, modelId, 99, 1)),
            abi.encodeCall(Escrow.depositAndOpenWithAuthorization, (_params(98), 1, 0, 0, 0, 0, 0)),
            abi.encodeCall(Escrow.redeem, (none)),
            abi.encodeCall(Escrow.claimCredit, (publisher)),
            abi.encodeCall(Escrow.claimFees, (new address[](0)))
        ];
        for (uint256 i; i < inner.length; ++i) {
            nosy.nose(address(escrow), inner[i]);
            vm.prank(payer);
            escrow.deposit(1);
            eq(bytes4(nosy.answer()), ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector, "entered again");
        }
        bytes[9] memory outer = [
            abi.encodeCall(Escrow.depositWithPermit, (payer, 1, 0, 0, 0, 0)),
            abi.encodeCall(Escrow.depositWithAuthorization, (payer, 1, 0, 0, 0, 0, 0, 0)),
            abi.encodeCall(Escrow.withdraw, (1)),
            _withdrawal(1),
            abi.encodeCall(Escrow.depositAndOpen, (signer, provider, modelId, 97, 1)),
            abi.encodeCall(Escrow.depositAndOpenWithAuthorization, (_params(96), 1, 0, 0, 0, 0, 0)),
            abi.encodeCall(Escrow.redeem, (_group(_claim(0, DOLLAR)))),
            abi.encodeCall(Escrow.claimCredit, (publisher)),
            abi.encodeCall(Escrow.claimFees, (_only(publisher)))
        ];
        for (uint256 i; i < outer.length; ++i) {
            nosy.nose(address(escrow), abi.encodeCall(Escrow.redeem, (none)));
            vm.prank(i == 6 ? provider : payer);
            (bool done,) = address(escrow).call(outer[i]);
            yes(done, "the call itself goes through");
            eq(bytes4(nosy.answer()), ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector, "entered from it");
        }
    }

    function _only(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }

    function _withdrawal(uint96 amount) private view returns (bytes memory) {
        bytes32 typehash = keccak256("Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)");
        bytes32 order = keccak256(abi.encode(typehash, payer, amount, 0, block.timestamp));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), order));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(payerKey, digest);
        return abi.encodeCall(Escrow.withdrawWithSig, (payer, amount, abi.encodePacked(r, s, v), block.timestamp));
    }
}
