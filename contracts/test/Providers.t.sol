// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Providers} from "../src/Providers.sol";
import {IProviders} from "../src/interfaces/IProviders.sol";
import {Test} from "./Test.sol";
import {TestDollar} from "../src/TestDollar.sol";
import {FeeOnTransfer} from "./tokens/Hostile.sol";

/// @notice Registering, and stake in and out.
contract ProvidersTest is Test {
    address private constant ALICE = address(0xA11CE);
    bytes32 private constant NODE = keccak256("node");
    bytes8 private constant REGION = "eu-west";

    TestDollar private token = new TestDollar();
    Providers private providers = new Providers(token, 7 days);

    function setUp() public {
        vm.warp(1_700_000_000);
        token.mint(ALICE, 100);
        vm.startPrank(ALICE);
        token.approve(address(providers), type(uint256).max);
    }

    function test_register() public {
        vm.expectEmit(true, true, true, true, address(providers));
        emit IProviders.ProviderRegistered(ALICE, 60, NODE, REGION, keccak256("meta"));
        providers.register(60, NODE, REGION, keccak256("meta"));
        IProviders.Provider memory provider = providers.providerOf(ALICE);
        eq(provider.stake, 60, "stake");
        eq(provider.nodeKey, NODE, "node key");
        eq(bytes32(provider.region), bytes32(REGION), "region");
        eq(provider.metadataHash, keccak256("meta"), "metadata");
        yes(provider.active, "active");
        eq(token.balanceOf(address(providers)), 60, "held");
    }

    function test_nobody_registers_twice_or_for_nothing() public {
        vm.expectRevert(IProviders.ZeroAmount.selector);
        providers.register(0, NODE, REGION, 0);
        vm.expectRevert(IProviders.EmptyNodeKey.selector);
        providers.register(1, 0, REGION, 0);
        providers.register(1, NODE, REGION, 0);
        vm.expectRevert(IProviders.AlreadyRegistered.selector);
        providers.register(1, NODE, REGION, 0);
    }

    function test_a_stranger_has_nothing_to_change() public {
        vm.expectRevert(IProviders.NotRegistered.selector);
        providers.addStake(1);
        vm.expectRevert(IProviders.NotRegistered.selector);
        providers.update(NODE, REGION, 0);
        vm.expectRevert(IProviders.NotRegistered.selector);
        providers.requestUnstake(1);
        vm.expectRevert(IProviders.NotRegistered.selector);
        providers.completeUnstake();
        yes(!providers.providerOf(ALICE).active, "unknown");
    }

    function test_add_stake_and_update() public {
        providers.register(60, NODE, REGION, 0);
        providers.addStake(40);
        vm.expectRevert(IProviders.EmptyNodeKey.selector);
        providers.update(0, REGION, 0);
        providers.update(keccak256("new node"), "us-east", keccak256("meta"));
        IProviders.Provider memory provider = providers.providerOf(ALICE);
        eq(provider.stake, 100, "stake");
        eq(provider.nodeKey, keccak256("new node"), "node key");
        eq(bytes32(provider.region), bytes32(bytes8("us-east")), "region");
        eq(provider.metadataHash, keccak256("meta"), "metadata");
    }

    function test_stake_leaves_after_the_delay() public {
        providers.register(100, NODE, REGION, 0);
        vm.expectRevert(IProviders.NothingLeaving.selector);
        providers.completeUnstake();
        vm.expectRevert(IProviders.ZeroAmount.selector);
        providers.requestUnstake(0);
        vm.expectRevert(abi.encodeWithSelector(IProviders.InsufficientStake.selector, 100, 101));
        providers.requestUnstake(101);

        providers.requestUnstake(70);
        uint40 availableAt = uint40(block.timestamp) + providers.unstakeDelay();
        (uint96 amount, uint40 date) = providers.unstakingOf(ALICE);
        eq(amount, 70, "leaving");
        eq(date, availableAt, "when");
        vm.warp(availableAt - 1);
        vm.expectRevert(abi.encodeWithSelector(IProviders.TooEarly.selector, availableAt));
        providers.completeUnstake();
        vm.warp(availableAt);
        eq(providers.completeUnstake(), 70, "left");
        eq(token.balanceOf(ALICE), 70, "in hand");
        eq(providers.providerOf(ALICE).stake, 30, "stands");
        vm.expectRevert(IProviders.NothingLeaving.selector);
        providers.completeUnstake();
    }

    function test_a_provider_without_stake_is_not_active_until_it_adds_some() public {
        providers.register(60, NODE, REGION, 0);
        providers.requestUnstake(60);
        yes(!providers.providerOf(ALICE).active, "not active");
        providers.addStake(1);
        yes(providers.providerOf(ALICE).active, "active");
    }

    function test_a_token_with_a_fee_counts_what_arrived() public {
        FeeOnTransfer hostile = new FeeOnTransfer();
        providers = new Providers(IERC20(address(hostile)), 7 days);
        hostile.mint(ALICE, 1_000);
        hostile.approve(address(providers), 1_000);
        providers.register(1_000, NODE, REGION, 0);
        eq(providers.providerOf(ALICE).stake, 970, "stake");
    }

    /// @dev Whatever a provider does, the contract holds exactly what stands and what is leaving.
    function testFuzz_stake_is_conserved(uint8[16] memory steps) public {
        providers.register(50, NODE, REGION, 0);
        for (uint256 i; i < steps.length; ++i) {
            uint96 stake = providers.providerOf(ALICE).stake;
            (uint96 leaving, uint40 availableAt) = providers.unstakingOf(ALICE);
            uint256 kind = steps[i] % 4;
            if (kind == 0 && token.balanceOf(ALICE) != 0) providers.addStake(1);
            if (kind == 1 && stake != 0) providers.requestUnstake(uint96(bound(steps[i], 1, stake)));
            if (kind == 2) vm.warp(block.timestamp + uint256(steps[i]) * 1 hours);
            if (kind == 3 && leaving != 0 && block.timestamp >= availableAt) providers.completeUnstake();
            (leaving,) = providers.unstakingOf(ALICE);
            eq(token.balanceOf(address(providers)), uint256(providers.providerOf(ALICE).stake) + leaving, "held");
            eq(token.balanceOf(address(providers)) + token.balanceOf(ALICE), 100, "conserved");
        }
    }
}
