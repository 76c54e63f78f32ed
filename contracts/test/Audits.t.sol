// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../src/Escrow.sol";
import {Providers} from "../src/Providers.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IProviders} from "../src/interfaces/IProviders.sol";
import {Market} from "./Market.sol";
import {Probe} from "./Probe.sol";
import {FeeOnTransfer, Mintable, Reentrant, ReturnsFalse, ReturnsNothing, Reverts} from "./tokens/Hostile.sol";

/// @notice What auditors found in contracts of this kind, each shown not to be here. Named as in the audit's report.
contract AuditsTest is Market {
    // ---- The Graph: payments by voucher ------------------------------------------------------------------------

    /// @dev A payer named itself as the receiver and drained what a provider had earned.
    function test_TRST_H_1_payer_as_its_own_data_service() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        IEscrow.Group[] memory groups = _group(_claim(0, 10 * DOLLAR));
        vm.prank(payer);
        eq(escrow.redeem(groups), 0, "the payer redeems nothing");
        vm.prank(stranger);
        eq(escrow.redeem(groups), 0, "a stranger redeems nothing");
        eq(_redeemed(id), 0, "redeemed");
        eq(_redeem(_claim(0, 10 * DOLLAR)), 10 * DOLLAR, "the provider does");
    }

    /// @dev The metadata that decided on the fee was not signed, so a provider put in what was cheapest.
    function test_OZ_2024_H_08_unsigned_metadata_dodging_fees() public {
        vm.prank(provider);
        bytes32 ownModel = models.register(keccak256("free of royalty"), "Q8_0", "MIT", 0);
        _open(0, 10 * DOLLAR);
        IEscrow.Group[] memory groups = _group(_claim(0, 10 * DOLLAR));
        groups[0].modelId = ownModel;
        vm.prank(provider);
        eq(escrow.redeem(groups), 0, "the model is part of the id");
    }

    /// @dev A type hash did not match its struct.
    function test_OZ_2024_H_07_typehash_wrong() public {
        bytes32 voucher = keccak256("Voucher(bytes32 channelId,uint96 cumulative,bytes32 receiptsHead)");
        eq(_probe().voucherTypehash(), voucher, "voucher");
        bytes32 structHash = keccak256(abi.encode(voucher, bytes32("id"), uint256(7), bytes32("head")));
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Rialto"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        eq(escrow.domainSeparator(), domain, "domain");
        eq(
            escrow.voucherHash(bytes32("id"), 7, bytes32("head")),
            keccak256(abi.encodePacked(hex"1901", domain, structHash)),
            "digest"
        );
        bytes memory receipt = "Receipt(bytes32 channelId,uint64 sequence,bytes32 requestId,bytes32 modelId,"
            "bytes32 requestHash,bytes32 responseHash,uint64 inputUnits,uint64 outputUnits,uint128 costNano,"
            "uint128 totalNano,uint8 status,uint64 finishedAt,bytes8 region,uint64 energyMillijoules,"
            "bytes32 fingerprintRoot,bytes32 previousHead)";
        eq(_probe().receiptTypehash(), keccak256(receipt), "receipt");
    }

    /// @dev The payer was left out of what is signed, so one payer's voucher paid from another's money.
    function test_TRST_M_15_payer_left_out() public {
        _open(0, 10 * DOLLAR);
        _fund(stranger, 10 * DOLLAR);
        vm.prank(stranger);
        escrow.depositAndOpen(signer, provider, modelId, 0, 10 * DOLLAR);
        bytes memory claim = _claim(0, 10 * DOLLAR);
        for (uint256 i; i < 20; ++i) {
            claim[i] = bytes20(stranger)[i];
        }
        eq(_redeem(claim), 0, "a voucher pays from its own payer's channel alone");
    }

    /// @dev After the payer behind a signer changed, the same voucher was collected again.
    function test_TRST_M_10_collected_twice_after_a_payer_switch() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        bytes memory claim = _claim(0, 10 * DOLLAR);
        eq(_redeem(claim), 10 * DOLLAR, "once");
        _fund(stranger, 10 * DOLLAR);
        vm.prank(stranger);
        bytes32 second = escrow.depositAndOpen(signer, provider, modelId, 0, 10 * DOLLAR);
        yes(id != second, "another payer, another channel");
        eq(_redeem(claim), 0, "not again");
        eq(_redeemed(second), 0, "not from the other payer");
    }

    // ---- The Graph: stake --------------------------------------------------------------------------------------

    /// @dev Stake was free in the moment the dispute window ended.
    function test_TRST_M_9_unbonding_equal_to_the_dispute_window() public {
        uint40 disputeWindow = 7 days;
        Providers providers = new Providers(token, address(escrow), address(0), treasury, disputeWindow);
        yes(providers.unstakeDelay() > 72 hours + disputeWindow, "a margin is left");
        eq(providers.unstakeDelay(), 72 hours + disputeWindow + 48 hours, "delay");
    }

    /// @dev A date was cut to 64 bits, and stake thawed at once. Here the call reverts instead.
    function test_OZ_2025_M_01_overflow_thaws_at_once() public {
        Providers providers = _staked(30 days);
        _open(0, DOLLAR);
        vm.warp(type(uint40).max);
        vm.prank(provider);
        vm.expectRevert();
        providers.requestUnstake(DOLLAR);
        vm.prank(payer);
        vm.expectRevert();
        _requestClose(0);
        vm.expectRevert(abi.encodeWithSelector(IProviders.DisputeWindowOutOfBounds.selector, type(uint40).max));
        new Providers(token, address(escrow), address(0), treasury, type(uint40).max);
    }

    /// @dev Thawing began before the business that the stake was shown for.
    function test_OZ_2025_M_04_thaw_begun_before_the_business() public {
        Providers providers = _staked(7 days);
        vm.prank(provider);
        providers.requestUnstake(4 * DOLLAR);
        eq(providers.providerOf(provider).stake, 6 * DOLLAR, "what is leaving stands for no new business");
        vm.warp(block.timestamp + providers.unstakeDelay() - 1);
        vm.prank(provider);
        providers.requestUnstake(6 * DOLLAR);
        yes(!providers.providerOf(provider).active, "nothing stands");
        vm.warp(block.timestamp + 1);
        vm.prank(provider);
        vm.expectRevert();
        providers.completeUnstake();
    }

    // ---- x402: batches -----------------------------------------------------------------------------------------

    /// @dev One drained channel reverted the whole batch.
    function test_x402_a_drained_channel_does_not_revert_the_batch() public {
        _open(0, DOLLAR);
        _open(1, DOLLAR);
        _open(2, DOLLAR);
        _redeem(_claim(1, DOLLAR));
        bytes memory claims = abi.encodePacked(_claim(0, DOLLAR), _claim(1, 5 * DOLLAR), _claim(2, 5 * DOLLAR));
        eq(_redeem(claims), 2 * DOLLAR, "the others are paid");
    }

    /// @dev A claim of zero burnt the nonce of the real one.
    function test_x402_a_zero_claim_burns_nothing() public {
        _open(0, DOLLAR);
        eq(_redeem(_claim(_params(0), signerKey, DOLLAR, 0)), 0, "zero");
        eq(_redeem(_claim(0, DOLLAR)), DOLLAR, "the real one is paid afterwards");
    }

    // ---- signatures and ids ------------------------------------------------------------------------------------

    function test_a_channel_of_the_same_id_never_meets_yesterdays_voucher() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        bytes memory claim = _claim(0, 10 * DOLLAR);
        vm.prank(provider);
        escrow.closeByProvider(_params(0));
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChannelExists.selector, id));
        escrow.depositAndOpen(signer, provider, modelId, 0, 10 * DOLLAR);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChannelExists.selector, id));
        escrow.open(signer, provider, modelId, 0, DOLLAR);
        vm.stopPrank();
        eq(_redeem(claim), 0, "nothing is paid");
    }

    /// @dev Every signature has a twin with a high `s`; it must not count, least of all a second time.
    function test_a_high_s_signature_is_refused() public {
        _open(0, 10 * DOLLAR);
        bytes32 head = bytes32("head");
        bytes32 digest = escrow.voucherHash(_id(_params(0)), DOLLAR, head);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(signerKey, digest);
        bytes memory terms = abi.encodePacked(payer, signer, uint96(0), DOLLAR, DOLLAR, head);
        bytes32 high = bytes32(ORDER - uint256(s));
        eq(ecrecover(digest, v == 27 ? 28 : 27, r, high), signer, "the twin is a valid signature");
        // EIP-2098 has one bit for the parity, so it can only carry twins whose s is below 2^255.
        eq(_redeem(abi.encodePacked(terms, r, _compact(v == 27 ? 28 : 27, high))), 0, "the twin");
        eq(_redeem(abi.encodePacked(terms, r, high)), 0, "the twin without its parity");
        eq(_redeem(abi.encodePacked(terms, r, _compact(v, s))), DOLLAR, "the signature itself");
    }

    /// @dev A high `s` that fits the 255 bits of EIP-2098: the rule itself must refuse it, not the encoding. Nobody can
    /// find one for a channel, whose id contains the signer, so the check is asked with an id of our choice.
    function test_a_high_s_that_fits_eip_2098_is_refused() public {
        Probe probe = _probe();
        bytes32 domain = escrow.domainSeparator();
        bytes32 id = keccak256("any id");
        bytes32 digest = escrow.voucherHash(id, DOLLAR, bytes32("head"));
        bytes32 r = bytes32(uint256(0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798));
        for (uint256 above; above < 2; ++above) {
            bytes32 s = bytes32(ORDER / 2 + above);
            yes(uint256(s) < 1 << 255, "fits");
            address ghost = ecrecover(digest, 27, r, s);
            yes(ghost != address(0), "recovers somebody");
            bytes memory terms = abi.encodePacked(payer, ghost, uint96(0), DOLLAR, DOLLAR, bytes32("head"));
            bool signed = probe.isSigned(abi.encodePacked(terms, r, s), domain, id);
            eq(signed ? 0 : 1, above, "the highest low s counts, the lowest high s does not");
        }
    }

    /// @dev Where nothing is recovered, neither the zero address nor the signer recovered before may count.
    function test_an_invalid_signature_recovers_nobody() public {
        Probe probe = _probe();
        bytes32 domain = escrow.domainSeparator();
        bytes memory bad =
            abi.encodePacked(payer, address(0), uint96(0), DOLLAR, DOLLAR, bytes32(0), bytes32(0), bytes32(0));
        yes(!probe.isSigned(bad, domain, "id"), "the zero address signs nothing");
        bad = abi.encodePacked(payer, signer, uint96(0), DOLLAR, DOLLAR, bytes32(0), bytes32(0), bytes32(0));
        yes(!probe.isSignedAfter(_claim(0, DOLLAR), bad, domain, _id(_params(0))), "not the one before");
    }

    function test_the_same_claim_twice_in_a_batch_pays_once() public {
        _open(0, 10 * DOLLAR);
        bytes memory claim = _claim(0, DOLLAR);
        eq(_redeem(abi.encodePacked(claim, claim)), DOLLAR, "once");
    }

    function test_a_voucher_of_another_escrow_or_chain_pays_nothing() public {
        _open(0, 10 * DOLLAR);
        Escrow other = _escrow(address(token));
        eq(_redeem(_claim(other, _params(0), signerKey, DOLLAR, DOLLAR)), 0, "another escrow");
        bytes memory claim = _claim(0, DOLLAR);
        vm.chainId(block.chainid + 1);
        eq(_redeem(claim), 0, "another chain");
    }

    // ---- tokens ------------------------------------------------------------------------------------------------

    function test_a_fee_on_transfer_token_credits_what_arrived() public {
        FeeOnTransfer hostile = new FeeOnTransfer();
        _use(address(hostile));
        bytes32 id = _open(0, 100 * DOLLAR);
        eq(escrow.channel(id).funded, 97 * DOLLAR, "funded");
        vm.prank(payer);
        escrow.deposit(100 * DOLLAR);
        eq(escrow.balanceOf(payer), 97 * DOLLAR, "free balance");
        eq(hostile.balanceOf(address(escrow)), 194 * DOLLAR, "invariant 1");
        eq(_redeem(_claim(0, 97 * DOLLAR)), 97 * DOLLAR, "paid");
        uint256 owed = escrow.creditOf(publisher) + _fees() + escrow.balanceOf(payer);
        eq(owed, hostile.balanceOf(address(escrow)), "invariant 1");
    }

    function test_a_token_that_returns_false_moves_no_books() public {
        ReturnsFalse hostile = new ReturnsFalse();
        _use(address(hostile));
        bytes32 id = _open(0, 10 * DOLLAR);
        hostile.refuse(true);
        _refuses(id);
    }

    function test_a_token_that_reverts_moves_no_books() public {
        Reverts hostile = new Reverts();
        _use(address(hostile));
        bytes32 id = _open(0, 10 * DOLLAR);
        hostile.refuse(true);
        _refuses(id);
        hostile.refuse(false);
        eq(_redeem(_claim(0, DOLLAR)), DOLLAR, "the claim is good once the token works");
    }

    function test_a_token_that_returns_nothing_works() public {
        ReturnsNothing old = new ReturnsNothing();
        escrow = _escrow(address(old));
        old.mint(payer, 10 * DOLLAR);
        _open(0, 10 * DOLLAR);
        eq(_redeem(_claim(0, 10 * DOLLAR)), 10 * DOLLAR, "paid");
        eq(old.balanceOf(provider), 9_400_000, "provider");
    }

    function test_a_reentrant_token_gains_nothing() public {
        Reentrant hostile = new Reentrant();
        _use(address(hostile));
        bytes32 id = _open(0, 10 * DOLLAR);
        bytes memory again = abi.encodeCall(Escrow.redeem, (_group(_claim(0, 5 * DOLLAR))));
        hostile.arm(address(escrow), again);
        eq(_redeem(_claim(0, 4 * DOLLAR)), 4 * DOLLAR, "paid");
        yes(!hostile.succeeded(), "no second entry");
        eq(bytes32(hostile.answer()), bytes32(bytes4(keccak256("ReentrancyGuardReentrantCall()"))), "why");

        // Each function that moves tokens is behind the same guard.
        bytes[4] memory calls = [
            abi.encodeCall(Escrow.deposit, (1)),
            abi.encodeCall(Escrow.withdraw, (1)),
            abi.encodeCall(Escrow.claimCredit, (publisher)),
            abi.encodeCall(Escrow.depositAndOpen, (signer, provider, modelId, 5, 1))
        ];
        for (uint96 i; i < calls.length; ++i) {
            hostile.arm(address(escrow), calls[i]);
            _redeem(_claim(0, 5 * DOLLAR + i));
            eq(bytes32(hostile.answer()), bytes32(bytes4(keccak256("ReentrancyGuardReentrantCall()"))), "guarded");
        }
        eq(_redeemed(id), 5 * DOLLAR + 3, "redeemed");
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    /// @dev Every movement of tokens fails, and the books stay as they were.
    function _refuses(bytes32 id) private {
        IEscrow.Group[] memory groups = _group(_claim(0, DOLLAR));
        vm.prank(provider);
        vm.expectRevert();
        escrow.redeem(groups);
        vm.startPrank(payer);
        vm.expectRevert();
        escrow.deposit(DOLLAR);
        vm.expectRevert();
        escrow.depositAndOpen(signer, provider, modelId, 1, DOLLAR);
        vm.stopPrank();
        eq(_redeemed(id), 0, "redeemed");
        eq(escrow.balanceOf(payer), 0, "free balance");
    }

    /// @dev Moves the market to another token, of which the payer has plenty.
    function _use(address hostile) private {
        escrow = _escrow(hostile);
        Mintable(hostile).mint(payer, 1_000 * DOLLAR);
        vm.prank(payer);
        Mintable(hostile).approve(address(escrow), type(uint256).max);
    }

    function _staked(uint40 disputeWindow) private returns (Providers providers) {
        providers = new Providers(token, address(escrow), address(0), treasury, disputeWindow);
        token.mint(provider, 10 * DOLLAR);
        vm.startPrank(provider);
        token.approve(address(providers), type(uint256).max);
        providers.register(10 * DOLLAR, bytes32("node"), "eu-west", bytes32(0));
        vm.stopPrank();
    }
}
