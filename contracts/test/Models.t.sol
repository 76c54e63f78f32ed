// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC2981} from "@openzeppelin/contracts/interfaces/IERC2981.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {Models} from "../src/Models.sol";
import {IModels} from "../src/interfaces/IModels.sol";
import {Test} from "./Test.sol";

/// @notice Registering models, and who earns from them.
contract ModelsTest is Test {
    address private constant ALICE = address(0xA11CE);
    address private constant BOB = address(0xB0B);
    bytes32 private constant MANIFEST = keccak256("manifest");

    Models private models = new Models();

    function test_register() public {
        bytes32 expected = keccak256(abi.encode(ALICE, MANIFEST));
        vm.expectEmit(true, true, true, true, address(models));
        emit IModels.ModelRegistered(expected, ALICE, MANIFEST, "Q8_0", "Apache-2.0", 250);
        vm.prank(ALICE);
        bytes32 id = models.register(MANIFEST, "Q8_0", "Apache-2.0", 250);

        eq(id, expected, "id");
        yes(models.exists(id), "exists");
        eq(models.ownerOf(uint256(id)), ALICE, "holder");
        IModels.Model memory model = models.modelOf(id);
        eq(model.publisher, ALICE, "publisher");
        eq(model.manifestHash, MANIFEST, "manifest");
        eq(model.royaltyBps, 250, "royalty");
        eq(keccak256(bytes(model.quantisation)), keccak256("Q8_0"), "quantisation");
        eq(keccak256(bytes(model.licence)), keccak256("Apache-2.0"), "licence");
    }

    function test_nobody_registers_in_anothers_name() public {
        vm.prank(ALICE);
        bytes32 alices = models.register(MANIFEST, "Q8_0", "MIT", 250);
        vm.prank(BOB);
        bytes32 bobs = models.register(MANIFEST, "Q8_0", "MIT", 1_000);
        yes(alices != bobs, "the same weights, two listings");
        eq(models.ownerOf(uint256(alices)), ALICE, "Alice keeps hers");
    }

    function test_registration_is_checked() public {
        vm.startPrank(ALICE);
        vm.expectRevert(IModels.EmptyManifest.selector);
        models.register(0, "Q8_0", "MIT", 0);
        vm.expectRevert(abi.encodeWithSelector(IModels.RoyaltyTooHigh.selector, 1_001));
        models.register(MANIFEST, "Q8_0", "MIT", 1_001);
        string memory long = string(new bytes(65));
        vm.expectRevert(abi.encodeWithSelector(IModels.TextTooLong.selector, 65));
        models.register(MANIFEST, long, "MIT", 0);
        vm.expectRevert(abi.encodeWithSelector(IModels.TextTooLong.selector, 65));
        models.register(MANIFEST, "Q8_0", long, 0);
        bytes32 id = models.register(MANIFEST, "Q8_0", "MIT", 1_000);
        vm.expectRevert(abi.encodeWithSelector(IModels.AlreadyRegistered.selector, id));
        models.register(MANIFEST, "Q8_0", "MIT", 0);
        vm.stopPrank();
    }

    function test_the_royalty_follows_the_token() public {
        vm.prank(ALICE);
        bytes32 id = models.register(MANIFEST, "Q8_0", "MIT", 250);
        vm.prank(ALICE);
        models.transferFrom(ALICE, BOB, uint256(id));
        (address holder, uint16 royaltyBps) = models.royaltyOf(id);
        eq(holder, BOB, "holder");
        eq(models.ownerOf(uint256(id)), BOB, "the same holder as ERC-721 says");
        eq(royaltyBps, 250, "rate");
        (address receiver, uint256 amount) = models.royaltyInfo(uint256(id), 10_000);
        eq(receiver, BOB, "receiver");
        eq(amount, 250, "amount");
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(IModels.AlreadyRegistered.selector, id));
        models.register(MANIFEST, "Q8_0", "MIT", 0);
    }

    // ---- changing the rate -------------------------------------------------------------------------------------

    function test_a_cut_is_in_force_at_once() public {
        bytes32 id = _registered(500);
        vm.expectEmit(true, true, true, true, address(models));
        emit IModels.RoyaltyChanged(id, 200, 0, 0);
        _set(id, 200);
        _is(id, 200, 0, 0);
        eq(models.modelOf(id).royaltyBps, 200, "model");
    }

    function test_a_raise_waits_seven_days() public {
        bytes32 id = _registered(200);
        uint40 from = uint40(block.timestamp) + 7 days;
        vm.expectEmit(true, true, true, true, address(models));
        emit IModels.RoyaltyChanged(id, 200, 500, from);
        _set(id, 500);
        _is(id, 200, 500, from);
        vm.warp(from - 1);
        _is(id, 200, 500, from);
        vm.warp(from);
        _is(id, 500, 0, 0);
        eq(models.modelOf(id).royaltyBps, 500, "model");
        (, uint256 amount) = models.royaltyInfo(uint256(id), 10_000);
        eq(amount, 500, "ERC-2981");
    }

    function test_a_second_raise_starts_the_wait_anew_and_a_cut_cancels_it() public {
        bytes32 id = _registered(200);
        _set(id, 500);
        vm.warp(block.timestamp + 6 days);
        _set(id, 400);
        uint40 from = uint40(block.timestamp) + 7 days;
        _is(id, 200, 400, from);
        vm.warp(from - 1);
        _set(id, 200);
        _is(id, 200, 0, 0);
        vm.warp(from + 30 days);
        _is(id, 200, 0, 0);
    }

    /// @dev A raise in force is the rate that the next change starts from.
    function test_a_change_after_a_raise_starts_from_the_raised_rate() public {
        bytes32 id = _registered(200);
        _set(id, 500);
        vm.warp(block.timestamp + 7 days);
        _set(id, 700);
        _is(id, 500, 700, uint40(block.timestamp) + 7 days);
        _set(id, 300);
        _is(id, 300, 0, 0);
    }

    function test_a_pending_raise_stays_with_the_token() public {
        bytes32 id = _registered(200);
        _set(id, 500);
        uint40 from = uint40(block.timestamp) + 7 days;
        vm.prank(ALICE);
        models.transferFrom(ALICE, BOB, uint256(id));
        _is(id, 200, 500, from);
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(IModels.NotHolder.selector, id));
        models.setRoyalty(id, 0);
        vm.prank(BOB);
        models.setRoyalty(id, 200);
        _is(id, 200, 0, 0);
        (address holder,) = models.royaltyOf(id);
        eq(holder, BOB, "holder");
    }

    function test_the_holder_alone_sets_the_rate() public {
        bytes32 id = _registered(200);
        vm.startPrank(ALICE);
        models.approve(BOB, uint256(id));
        models.setApprovalForAll(BOB, true);
        vm.expectRevert(abi.encodeWithSelector(IModels.RoyaltyTooHigh.selector, 1_001));
        models.setRoyalty(id, 1_001);
        vm.stopPrank();
        vm.prank(BOB);
        vm.expectRevert(abi.encodeWithSelector(IModels.NotHolder.selector, id));
        models.setRoyalty(id, 100);
        bytes32 unknown = keccak256("unknown");
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(IModels.NotHolder.selector, unknown));
        models.setRoyalty(unknown, 100);
        vm.warp(type(uint40).max);
        vm.prank(ALICE);
        vm.expectRevert();
        models.setRoyalty(id, 300);
    }

    /// @dev Whatever is asked for and when: against a model in the plainest form, and never above what was announced
    /// seven days before.
    function testFuzz_the_rate_follows_the_rules(uint16[12] memory rates, uint32[12] memory pauses) public {
        uint16 current = 250;
        bytes32 id = _registered(current);
        (uint16 next, uint256 from) = (0, 0);
        for (uint256 i; i < rates.length; ++i) {
            vm.warp(block.timestamp + pauses[i] % 10 days);
            if (from != 0 && block.timestamp >= from) (current, next, from) = (next, 0, 0);
            _is(id, current, next, uint40(from));
            uint16 asked = rates[i] % 1_001;
            _set(id, asked);
            if (asked > current) (next, from) = (asked, block.timestamp + 7 days);
            else (current, next, from) = (asked, 0, 0);
            _is(id, current, next, uint40(from));
        }
    }

    function _registered(uint16 royaltyBps) private returns (bytes32) {
        vm.warp(1_700_000_000);
        vm.prank(ALICE);
        return models.register(MANIFEST, "Q8_0", "MIT", royaltyBps);
    }

    function _set(bytes32 id, uint16 royaltyBps) private {
        vm.prank(ALICE);
        models.setRoyalty(id, royaltyBps);
    }

    function _is(bytes32 id, uint16 current, uint16 next, uint40 from) private view {
        (, uint16 royaltyBps) = models.royaltyOf(id);
        eq(royaltyBps, current, "in force");
        (uint16 pending, uint40 date) = models.pendingRoyaltyOf(id);
        eq(pending, next, "pending");
        eq(date, from, "date");
    }

    function test_an_unknown_model_has_no_royalty() public {
        bytes32 unknown = keccak256("unknown");
        yes(!models.exists(unknown), "unknown");
        (address holder, uint16 royaltyBps) = models.royaltyOf(unknown);
        eq(holder, address(0), "holder");
        eq(royaltyBps, 0, "rate");
        vm.expectRevert(abi.encodeWithSelector(IModels.UnknownModel.selector, unknown));
        models.modelOf(unknown);
    }

    function test_interfaces() public view {
        yes(models.supportsInterface(type(IERC721).interfaceId), "ERC-721");
        yes(models.supportsInterface(type(IERC2981).interfaceId), "ERC-2981");
        yes(models.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        yes(!models.supportsInterface(0xffffffff), "nothing else");
    }
}
