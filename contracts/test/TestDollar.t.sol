// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {TestDollar} from "../src/TestDollar.sol";
import {Test} from "./Test.sol";

/// @notice The development stablecoin has what the market expects of a real one.
contract TestDollarTest is Test {
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    bytes32 private constant TRANSFER = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 private constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    uint256 private constant KEY = uint256(keccak256("holder"));
    address private constant BOB = address(0xB0B);

    TestDollar private token = new TestDollar();
    address private holder = vm.addr(KEY);

    function setUp() public {
        vm.warp(1_700_000_000);
        token.mint(holder, 100);
    }

    function test_six_decimals_and_a_faucet() public view {
        eq(token.decimals(), 6, "decimals");
        eq(token.balanceOf(holder), 100, "minted");
    }

    function test_permit() public {
        (uint8 v, bytes32 r, bytes32 s) = _sign(keccak256(abi.encode(PERMIT, holder, BOB, 40, 0, block.timestamp)));
        token.permit(holder, BOB, 40, block.timestamp, v, r, s);
        eq(token.allowance(holder, BOB), 40, "allowance");
        vm.expectRevert();
        token.permit(holder, BOB, 40, block.timestamp, v, r, s);
    }

    function test_transfer_with_authorization_once() public {
        (uint8 v, bytes32 r, bytes32 s) = _sign(_authorization(TRANSFER));
        token.transferWithAuthorization(holder, BOB, 40, 0, type(uint256).max, "nonce", v, r, s);
        eq(token.balanceOf(BOB), 40, "received");
        yes(token.authorizationState(holder, "nonce"), "used");
        vm.expectRevert();
        token.transferWithAuthorization(holder, BOB, 40, 0, type(uint256).max, "nonce", v, r, s);
    }

    function test_receive_with_authorization_by_the_receiver_alone() public {
        (uint8 v, bytes32 r, bytes32 s) = _sign(_authorization(RECEIVE));
        vm.expectRevert();
        token.receiveWithAuthorization(holder, BOB, 40, 0, type(uint256).max, "nonce", v, r, s);
        vm.prank(BOB);
        token.receiveWithAuthorization(holder, BOB, 40, 0, type(uint256).max, "nonce", v, r, s);
        eq(token.balanceOf(BOB), 40, "received");
    }

    function _authorization(bytes32 typehash) private view returns (bytes32) {
        return keccak256(abi.encode(typehash, holder, BOB, 40, 0, type(uint256).max, bytes32("nonce")));
    }

    function _sign(bytes32 structHash) private view returns (uint8 v, bytes32 r, bytes32 s) {
        return vm.sign(KEY, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }
}
