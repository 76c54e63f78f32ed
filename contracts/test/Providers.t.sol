// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Providers} from "../src/Providers.sol";
import {IProviders} from "../src/interfaces/IProviders.sol";
import {Market} from "./Market.sol";
import {FeeOnTransfer, Reentrant} from "./tokens/Hostile.sol";

/// @notice Says another escrow's domain.
contract FakeEscrow {
    bytes32 public immutable domainSeparator;

    constructor(bytes32 domain) {
        domainSeparator = domain;
    }
}

/// @notice Registering, stake in and out, and freezing.
contract ProvidersTest is Market {
    address private constant ALICE = address(0xA11CE);
    address private constant BOB = address(0xB0B);
    bytes32 private constant NODE = keccak256("node");
    bytes8 private constant REGION = "eu-west";
    address private constant DISPUTES = address(0xD15);
    address private constant RECIPIENT = address(0x5EC);

    Providers private providers;

    function setUp() public override {
        super.setUp();
        providers = _providers(IERC20(address(token)), address(escrow), RECIPIENT, 7 days);
        token.mint(ALICE, 100);
        vm.startPrank(ALICE);
        token.approve(address(providers), type(uint256).max);
    }

    function _providers(IERC20 token_, address escrow_, address recipient, uint40 window) private returns (Providers) {
        return new Providers(token_, escrow_, DISPUTES, recipient, window);
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

    function test_terms_are_checked() public {
        vm.stopPrank();
        vm.expectRevert(IProviders.BadAddress.selector);
        _providers(IERC20(address(0)), address(escrow), RECIPIENT, 7 days);
        vm.expectRevert(IProviders.BadAddress.selector);
        _providers(token, address(escrow), address(0), 7 days);
        vm.expectRevert();
        _providers(token, ALICE, RECIPIENT, 7 days);
        FakeEscrow fake = new FakeEscrow(escrow.domainSeparator());
        vm.expectRevert(IProviders.WrongEscrow.selector);
        _providers(token, address(fake), RECIPIENT, 7 days);
        vm.expectRevert(abi.encodeWithSelector(IProviders.DisputeWindowOutOfBounds.selector, 30 days + 1));
        _providers(token, address(escrow), RECIPIENT, 30 days + 1);
        Providers longest = _providers(token, address(escrow), RECIPIENT, 30 days);
        eq(longest.unstakeDelay(), 35 days, "delay");
        yes(longest.unstakeDelay() <= longest.FREEZE_PERIOD() + longest.FREEZE_GAP(), "one can leave between freezes");
        eq(longest.escrow(), address(escrow), "escrow");
        eq(longest.disputes(), DISPUTES, "disputes");
        eq(longest.slashRecipient(), RECIPIENT, "recipient");
    }

    function test_the_slash_recipient_is_no_provider() public {
        vm.startPrank(RECIPIENT);
        vm.expectRevert(IProviders.RecipientCannotStake.selector);
        providers.register(1, NODE, REGION, 0);
    }

    // ---- freezing ----------------------------------------------------------------------------------------------

    function test_a_frozen_provider_takes_no_work_and_no_stake_out() public {
        providers.register(100, NODE, REGION, 0);
        providers.requestUnstake(40);
        uint40 until = uint40(block.timestamp) + 30 days;
        vm.expectEmit(true, true, true, true, address(providers));
        emit IProviders.ProviderFrozen(ALICE, until, "case");
        _asDisputes();
        providers.freeze(ALICE, "case");
        IProviders.Provider memory record = providers.providerOf(ALICE);
        yes(!record.active, "not active");
        eq(record.frozenUntil, until, "until");

        vm.startPrank(ALICE);
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(IProviders.Frozen.selector, until));
        providers.completeUnstake();
        vm.warp(until);
        yes(providers.providerOf(ALICE).active, "it lapsed by itself");
        eq(providers.completeUnstake(), 40, "left");
    }

    /// @dev The longest delay and a dispute contract that freezes whenever it may: one can leave all the same.
    function test_no_row_of_freezes_holds_stake_for_ever() public {
        providers = _providers(token, address(escrow), RECIPIENT, 30 days);
        token.approve(address(providers), 100);
        providers.register(100, NODE, REGION, 0);
        _asDisputes();
        providers.freeze(ALICE, "one");
        uint40 from = providers.freezableFrom(ALICE);
        vm.startPrank(ALICE);
        providers.requestUnstake(100);
        _asDisputes();
        vm.expectRevert(abi.encodeWithSelector(IProviders.FrozenLately.selector, from));
        providers.freeze(ALICE, "two");
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IProviders.FrozenLately.selector, from));
        providers.freeze(ALICE, "two");
        vm.startPrank(ALICE);
        eq(providers.completeUnstake(), 100, "left in the gap");
        _asDisputes();
        vm.warp(from);
        providers.freeze(ALICE, "two");
        yes(!providers.providerOf(ALICE).active, "frozen again");
    }

    function test_an_early_end_of_a_freeze_starts_the_gap() public {
        providers.register(100, NODE, REGION, 0);
        _asDisputes();
        vm.expectRevert(IProviders.NotFrozen.selector);
        providers.unfreeze(ALICE);
        vm.expectRevert(IProviders.NotRegistered.selector);
        providers.freeze(BOB, "nobody");
        providers.freeze(ALICE, "case");
        vm.warp(block.timestamp + 1 days);
        vm.expectEmit(true, true, true, true, address(providers));
        emit IProviders.ProviderUnfrozen(ALICE);
        providers.unfreeze(ALICE);
        yes(providers.providerOf(ALICE).active, "active again");
        eq(providers.freezableFrom(ALICE), block.timestamp + 7 days, "gap");
        vm.expectRevert(IProviders.NotFrozen.selector);
        providers.unfreeze(ALICE);
        vm.expectRevert();
        providers.freeze(ALICE, "at once");
    }

    function test_a_slash_reaches_a_frozen_provider() public {
        providers.register(100, NODE, REGION, 0);
        _asDisputes();
        providers.freeze(ALICE, "case");
        eq(providers.slash(ALICE, 10, "case", address(0)), 10, "taken");
        eq(providers.providerOf(ALICE).stake, 90, "stake");
    }

    function _asDisputes() private {
        vm.stopPrank();
        vm.startPrank(DISPUTES);
    }

    // ---- tokens ------------------------------------------------------------------------------------------------

    function test_a_reentrant_token_gains_nothing() public {
        Reentrant hostile = new Reentrant();
        providers = _providers(IERC20(address(hostile)), address(escrow), RECIPIENT, 7 days);
        hostile.mint(ALICE, 1_000);
        hostile.approve(address(providers), 1_000);
        bytes[5] memory calls = [
            abi.encodeCall(Providers.register, (1, NODE, REGION, 0)),
            abi.encodeCall(Providers.addStake, (1)),
            abi.encodeCall(Providers.requestUnstake, (1)),
            abi.encodeCall(Providers.completeUnstake, ()),
            abi.encodeCall(Providers.claimCredit, ())
        ];
        providers.register(100, NODE, REGION, 0);
        for (uint256 i; i < calls.length; ++i) {
            hostile.arm(address(providers), calls[i]);
            providers.addStake(1);
            eq(bytes32(hostile.answer()), bytes32(bytes4(keccak256("ReentrancyGuardReentrantCall()"))), "guarded");
        }
        eq(providers.providerOf(ALICE).stake, 105, "stake");
    }

    function test_a_token_with_a_fee_counts_what_arrived() public {
        FeeOnTransfer hostile = new FeeOnTransfer();
        providers = _providers(IERC20(address(hostile)), address(escrow), RECIPIENT, 7 days);
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
