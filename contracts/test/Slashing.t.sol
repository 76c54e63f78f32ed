// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Providers} from "../src/Providers.sol";
import {Receipt, Receipts} from "../src/Receipts.sol";
import {IProviders} from "../src/interfaces/IProviders.sol";
import {Staking} from "./Staking.sol";
import {
    DateIsCut,
    DelayIsTheDisputeWindow,
    OldDateCounts,
    RewardIsEverything,
    SlashNeedsStake
} from "./mutants/Stake.sol";
import {Reverts} from "./tokens/Hostile.sol";

/// @notice What auditors found in other contracts with stake. Each attack fails on the real contract and works on a
/// mutant that has the flaw.
contract SlashingAuditsTest is Staking {
    function test_L_18_slashing_oneself_for_the_reward() public {
        yes(!_slashesItselfForTheReward(_staked(_providers(token))), "the attack does not pay");
        Providers mutant = new RewardIsEverything(token, address(escrow), disputes, recipient, WINDOW);
        yes(_slashesItselfForTheReward(_staked(mutant)), "on the mutant it does");
    }

    function test_M_05_slash_that_reverts() public {
        yes(!_escapesBySlashThatReverts(_staked(_providers(token))), "nobody escapes");
        Providers mutant = new SlashNeedsStake(token, address(escrow), disputes, recipient, WINDOW);
        yes(_escapesBySlashThatReverts(_staked(mutant)), "on the mutant it does");
    }

    function test_M_04_thaw_begun_before_the_business() public {
        yes(!_thawsBeforeTheBusiness(_staked(_providers(token))), "the stake is still there");
        Providers mutant = new OldDateCounts(token, address(escrow), disputes, recipient, WINDOW);
        yes(_thawsBeforeTheBusiness(_staked(mutant)), "on the mutant it is gone");
    }

    function test_M_9_unbonding_equal_to_the_dispute_window() public {
        yes(!_leavesBeforeTheLastVerdict(_staked(_providers(token))), "the stake is still there");
        Providers mutant = new DelayIsTheDisputeWindow(token, address(escrow), disputes, recipient, WINDOW);
        yes(_leavesBeforeTheLastVerdict(_staked(mutant)), "on the mutant it is gone");
    }

    function test_OZ_2025_M_01_overflow_thaws_at_once() public {
        Providers real = _staked(_providers(token));
        Providers mutant = _staked(new DateIsCut(token, address(escrow), disputes, recipient, WINDOW));
        vm.warp(type(uint40).max);
        yes(!_thawsAtOnce(real), "nothing leaves");
        yes(_thawsAtOnce(mutant), "on the mutant it does");
    }

    // ---- attacks: true if it worked ----------------------------------------------------------------------------

    /// @dev A provider reports itself by a friend, to have its stake at once instead of after the delay.
    function _slashesItselfForTheReward(Providers registry) private returns (bool) {
        uint256 before = token.balanceOf(reporter);
        _slash(registry, STAKE, keccak256(abi.encode(registry)));
        _prove(registry, providerKey, reporter);
        vm.prank(reporter);
        registry.claimCredit();
        eq(_standing(registry) + _leaving(registry), 0, "all is gone");
        return token.balanceOf(reporter) - before > STAKE / 20;
    }

    /// @dev A provider asks for nearly all of its stake before the verdict, so that less stands than is to be taken.
    function _escapesBySlashThatReverts(Providers registry) private returns (bool) {
        _request(registry, STAKE - 1);
        vm.prank(disputes);
        try registry.slash(provider, STAKE / 10, CASE, address(0)) returns (uint96 taken) {
            eq(taken, STAKE / 10, "taken");
            eq(_standing(registry), 1, "what is leaving went first");
            return false;
        } catch {
            return true;
        }
    }

    /// @dev A little is asked for long before the business; then, after it, the rest.
    function _thawsBeforeTheBusiness(Providers registry) private returns (bool) {
        _request(registry, 1);
        vm.warp(block.timestamp + registry.unstakeDelay());
        // Here is the business, with all the other stake behind it.
        _request(registry, STAKE - 1);
        return _completes(registry);
    }

    /// @dev Evidence comes in the last moment of its window, and the verdict in the last moment of its own.
    function _leavesBeforeTheLastVerdict(Providers registry) private returns (bool) {
        _request(registry, STAKE);
        vm.warp(block.timestamp + 72 hours + WINDOW);
        _completes(registry);
        return _slash(registry, STAKE, keccak256(abi.encode(registry))) == 0;
    }

    function _thawsAtOnce(Providers registry) private returns (bool) {
        vm.prank(provider);
        try registry.requestUnstake(STAKE) {}
        catch {
            return false;
        }
        return _completes(registry);
    }

    function _completes(Providers registry) private returns (bool) {
        vm.prank(provider);
        try registry.completeUnstake() {
            return true;
        } catch {
            return false;
        }
    }
}

/// @notice What the dispute contract may take.
contract SlashingTest is Staking {
    function test_a_slash_is_split_and_told() public {
        _request(providers, 4 * DOLLAR);
        vm.expectEmit(true, true, true, true, address(providers));
        emit IProviders.ProviderSlashed(provider, CASE, 9 * DOLLAR, 91 * DOLLAR, 0, reporter, 450_000);
        eq(_slash(providers, 9 * DOLLAR, CASE), 9 * DOLLAR, "taken");
        (uint96 leaving, uint40 availableAt) = providers.unstakingOf(provider);
        eq(leaving + availableAt, 0, "nothing is leaving any more");
        eq(providers.creditOf(reporter), 450_000, "reporter");
        eq(providers.creditOf(recipient), 8_550_000, "recipient");
        eq(providers.totalCredit(), 9 * DOLLAR, "together");
        yes(providers.providerOf(provider).active, "works on");

        vm.expectEmit(true, true, true, true, address(providers));
        emit IProviders.CreditClaimed(recipient, 8_550_000);
        vm.prank(recipient);
        eq(providers.claimCredit(), 8_550_000, "claimed");
        vm.prank(recipient);
        vm.expectRevert(IProviders.ZeroAmount.selector);
        providers.claimCredit();
        eq(token.balanceOf(recipient), 8_550_000, "in hand");
        eq(token.balanceOf(address(providers)), STAKE - 8_550_000, "held");
        eq(providers.totalCredit(), 450_000, "left");
    }

    function test_only_the_dispute_contract_slashes_and_freezes() public {
        address[3] memory others = [provider, recipient, stranger];
        for (uint256 i; i < others.length; ++i) {
            vm.startPrank(others[i]);
            vm.expectRevert(IProviders.NotDisputes.selector);
            providers.slash(provider, 1, CASE, reporter);
            vm.expectRevert(IProviders.NotDisputes.selector);
            providers.freeze(provider, CASE);
            vm.expectRevert(IProviders.NotDisputes.selector);
            providers.unfreeze(provider);
            vm.stopPrank();
        }
    }

    function test_an_offence_costs_a_tenth_at_most_and_counts_once() public {
        _request(providers, 30 * DOLLAR);
        eq(_slash(providers, STAKE, CASE), STAKE / 10, "a tenth of all, leaving included");
        eq(_leaving(providers), 20 * DOLLAR, "from what is leaving");
        yes(providers.isJudged(CASE), "judged");
        eq(_slash(providers, STAKE, CASE), 0, "once");
        eq(_standing(providers) + _leaving(providers), 90 * DOLLAR, "nothing more");
        eq(_slash(providers, STAKE, keccak256("another")), 9 * DOLLAR, "another offence, a tenth of what is left");
    }

    function test_a_slash_takes_nothing_where_nothing_is() public {
        vm.prank(disputes);
        eq(providers.slash(stranger, DOLLAR, CASE, reporter), 0, "never registered");
        _request(providers, STAKE);
        vm.warp(block.timestamp + providers.unstakeDelay());
        vm.prank(provider);
        providers.completeUnstake();
        eq(_slash(providers, DOLLAR, keccak256("too late")), 0, "gone");
        eq(providers.totalCredit(), 0, "no credit of nothing");
    }

    function test_nobody_is_rewarded_for_reporting_itself() public {
        vm.prank(disputes);
        providers.slash(provider, DOLLAR, CASE, provider);
        eq(providers.creditOf(provider), 0, "the provider");
        vm.prank(disputes);
        providers.slash(provider, DOLLAR, keccak256("unreported"), address(0));
        eq(providers.creditOf(address(0)), 0, "nobody");
        eq(providers.creditOf(recipient), 2 * DOLLAR, "all to the recipient");
    }

    function test_no_token_and_no_receiver_stops_a_slash() public {
        Reverts hostile = new Reverts();
        Providers registry = _providers(IERC20(address(hostile)));
        hostile.mint(provider, STAKE);
        vm.startPrank(provider);
        hostile.approve(address(registry), STAKE);
        registry.register(STAKE, NODE, REGION, 0);
        vm.stopPrank();
        hostile.refuse(true);
        eq(_slash(registry, DOLLAR, CASE), DOLLAR, "slashed");
        eq(_prove(registry, providerKey, reporter), STAKE - DOLLAR, "convicted");
        vm.prank(reporter);
        vm.expectRevert();
        registry.claimCredit();
        yes(registry.creditOf(reporter) != 0, "the credit stays");
    }

    function test_where_nobody_judges_nobody_is_slashed() public {
        Providers registry = _staked(new Providers(token, address(escrow), address(0), recipient, WINDOW));
        vm.prank(disputes);
        vm.expectRevert(IProviders.NotDisputes.selector);
        registry.slash(provider, 1, CASE, reporter);
        eq(_prove(registry, providerKey, reporter), STAKE, "two receipts need no judge");
    }

    function testFuzz_a_slash_conserves(uint96 stake, uint96 leaving, uint96 amount) public {
        // With the stake that is there already, it must fit 96 bits.
        stake = uint96(bound(stake, 1, type(uint96).max / 2));
        token.mint(provider, stake);
        vm.startPrank(provider);
        token.approve(address(providers), stake);
        providers.addStake(stake);
        uint96 all = stake + STAKE;
        leaving = uint96(bound(leaving, 1, all));
        providers.requestUnstake(leaving);
        vm.stopPrank();
        uint96 taken = _slash(providers, amount, CASE);
        uint256 ceiling = uint256(all) * 1_000 / 10_000;
        eq(taken, amount < ceiling ? amount : ceiling, "what was asked, or a tenth");
        eq(uint256(_standing(providers)) + _leaving(providers) + taken, all, "stake");
        eq(providers.creditOf(reporter) + providers.creditOf(recipient), taken, "credits");
        eq(providers.creditOf(reporter), uint256(taken) / 20, "reward");
    }
}

/// @notice Two receipts for one number.
contract EquivocationTest is Staking {
    function test_two_receipts_for_one_number_cost_everything() public {
        _request(providers, 40 * DOLLAR);
        Receipt memory first = _receipt(1, "one answer");
        vm.expectEmit(true, true, true, true, address(providers));
        emit IProviders.EquivocationProven(
            provider, first.channelId, 1, Receipts.structHash(first), Receipts.structHash(_receipt(1, "another"))
        );
        eq(_prove(providers, providerKey, reporter), STAKE, "all of it");
        eq(_standing(providers) + _leaving(providers), 0, "nothing is left");
        eq(providers.creditOf(reporter), 5 * DOLLAR, "reward");
        eq(providers.creditOf(recipient), 95 * DOLLAR, "recipient");
        IProviders.Provider memory record = providers.providerOf(provider);
        yes(record.convicted && !record.active, "convicted");

        vm.startPrank(provider);
        vm.expectRevert(IProviders.NothingLeaving.selector);
        providers.completeUnstake();
        vm.expectRevert(IProviders.AlreadyRegistered.selector);
        providers.register(1, NODE, REGION, 0);
        vm.expectRevert(IProviders.ProviderConvicted.selector);
        providers.addStake(1);
        vm.stopPrank();
        vm.expectRevert(IProviders.ProviderConvicted.selector);
        this.prove(providerKey);
    }

    function prove(uint256 key) external returns (uint96) {
        return _prove(providers, key, reporter);
    }

    function test_who_proves_its_own_fraud_is_not_rewarded() public {
        eq(_prove(providers, providerKey, provider), STAKE, "taken");
        eq(providers.creditOf(recipient), STAKE, "all to the recipient");
    }

    function test_what_is_no_proof() public {
        Receipt memory first = _receipt(1, "one answer");
        bytes memory signedFirst = _signed(providerKey, first);
        vm.expectRevert(IProviders.NoEquivocation.selector);
        providers.proveEquivocation(first, signedFirst, first, signedFirst);

        Receipt memory next = _receipt(2, "another");
        bytes memory signed = _signed(providerKey, next);
        vm.expectRevert(IProviders.NoEquivocation.selector);
        providers.proveEquivocation(first, signedFirst, next, signed);

        Receipt memory elsewhere = _receipt(1, "another");
        elsewhere.channelId = keccak256("another channel");
        signed = _signed(providerKey, elsewhere);
        vm.expectRevert(IProviders.NoEquivocation.selector);
        providers.proveEquivocation(first, signedFirst, elsewhere, signed);

        Receipt memory second = _receipt(1, "another");
        signed = _signed(signerKey, second);
        vm.expectRevert(abi.encodeWithSelector(IProviders.DifferentSigners.selector, provider, signer));
        providers.proveEquivocation(first, signedFirst, second, signed);

        vm.expectRevert(IProviders.NotRegistered.selector);
        this.prove(signerKey);
        eq(_standing(providers), STAKE, "untouched");
    }

    function test_malleable_and_malformed_signatures_prove_nothing() public {
        Receipt memory first = _receipt(1, "one answer");
        Receipt memory second = _receipt(1, "another");
        bytes memory signedSecond = _signed(providerKey, second);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(providerKey, _digest(first));

        bytes32 high = bytes32(ORDER - uint256(s));
        bytes memory twin = abi.encodePacked(r, high, v == 27 ? uint8(28) : uint8(27));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, high));
        providers.proveEquivocation(first, twin, second, signedSecond);
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 64));
        providers.proveEquivocation(first, abi.encodePacked(r, _compact(v, s)), second, signedSecond);
        vm.expectRevert(ECDSA.ECDSAInvalidSignature.selector);
        providers.proveEquivocation(first, abi.encodePacked(r, s, uint8(0)), second, signedSecond);
        eq(_standing(providers), STAKE, "untouched");
    }

    /// @dev Each field counts: two receipts that differ anywhere are two receipts.
    function testFuzz_any_difference_is_one(uint8 field, uint256 bit) public {
        Receipt memory first = _receipt(1, "one answer");
        Receipt memory second = _receipt(1, "one answer");
        uint256 kind = field % 6;
        if (kind == 0) second.requestId = bytes32(uint256(1) << (bit % 256));
        if (kind == 1) second.costNano ^= uint128(1) << uint8(bit % 128);
        if (kind == 2) second.status = 2;
        if (kind == 3) second.region = bytes8(uint64(1) << uint8(bit % 64));
        if (kind == 4) second.previousHead = bytes32(uint256(1) << (bit % 256));
        if (kind == 5) second.finishedAt ^= uint64(1) << uint8(bit % 64);
        bytes memory signedFirst = _signed(providerKey, first);
        bytes memory signedSecond = _signed(providerKey, second);
        vm.prank(reporter);
        eq(providers.proveEquivocation(first, signedFirst, second, signedSecond), STAKE, "taken");
    }

    /// @dev What was signed for one chain proves nothing on its fork, and what is signed there does.
    function test_the_domain_follows_the_chain() public {
        Receipt memory first = _receipt(1, "one answer");
        Receipt memory second = _receipt(1, "another");
        bytes memory signedFirst = _signed(providerKey, first);
        bytes memory signedSecond = _signed(providerKey, second);
        vm.chainId(block.chainid + 1);
        vm.expectRevert();
        providers.proveEquivocation(first, signedFirst, second, signedSecond);
        eq(_standing(providers), STAKE, "untouched");
        eq(_prove(providers, providerKey, reporter), STAKE, "signed on the fork");
    }
}
