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
