// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Vm} from "./Test.sol";
import {Market} from "./Market.sol";

/// @notice A provider's claims: what they pay, to whom, and what is skipped.
contract RedeemTest is Market {
    function test_a_claim_is_split_in_three() public {
        bytes32 id = _open(0, 100 * DOLLAR);
        eq(_redeem(_claim(0, 100 * DOLLAR)), 100 * DOLLAR, "paid");
        eq(_redeemed(id), 100 * DOLLAR, "redeemed");
        eq(token.balanceOf(provider), 94 * DOLLAR, "provider");
        eq(escrow.creditOf(publisher), 5 * DOLLAR, "royalty");
        eq(_fees(), DOLLAR, "fee");
    }

    function test_vouchers_are_cumulative() public {
        _open(0, 100 * DOLLAR);
        eq(_redeem(_claim(0, 10 * DOLLAR)), 10 * DOLLAR, "first");
        eq(_redeem(_claim(0, 25 * DOLLAR)), 15 * DOLLAR, "what is new");
        eq(_redeem(_claim(0, 10 * DOLLAR)), 0, "an older one pays nothing");
    }

    function test_a_provider_may_claim_less_than_was_signed_and_the_rest_later() public {
        bytes32 id = _open(0, 100 * DOLLAR);
        eq(_redeem(_claim(_params(0), signerKey, 10 * DOLLAR, 6 * DOLLAR)), 6 * DOLLAR, "less");
        eq(_redeem(_claim(_params(0), signerKey, 10 * DOLLAR, 10 * DOLLAR)), 4 * DOLLAR, "the rest");
        eq(_redeemed(id), 10 * DOLLAR, "redeemed");
    }

    function test_a_provider_never_gets_more_than_was_signed() public {
        _open(0, 100 * DOLLAR);
        eq(_redeem(_claim(_params(0), signerKey, 10 * DOLLAR, 10 * DOLLAR + 1)), 0, "skipped");
    }

    function test_a_claim_is_clamped_to_what_is_there() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        eq(_redeem(_claim(0, 50 * DOLLAR)), 10 * DOLLAR, "clamped");
        eq(_redeemed(id), 10 * DOLLAR, "redeemed");
        vm.startPrank(payer);
        escrow.deposit(20 * DOLLAR);
        _topUp(0, 20 * DOLLAR);
        vm.stopPrank();
        eq(_redeem(_claim(0, 50 * DOLLAR)), 20 * DOLLAR, "the same voucher after a top-up");
    }

    function test_bad_claims_are_skipped_and_good_ones_paid() public {
        _open(0, 10 * DOLLAR);
        _open(1, 10 * DOLLAR);
        _open(2, 10 * DOLLAR);
        vm.prank(provider);
        escrow.closeByProvider(_params(2));
        bytes memory claims = abi.encodePacked(
            _claim(_params(0), uint256(keccak256("another key")), DOLLAR, DOLLAR), // not the session key
            _claim(2, DOLLAR), // closed
            _claim(3, DOLLAR), // never opened
            _claim(0, 0), // nothing
            _claim(_params(0), signerKey, DOLLAR, 2 * DOLLAR), // above the voucher
            _claim(1, 7 * DOLLAR)
        );
        eq(_redeem(claims), 7 * DOLLAR, "only the good one");
    }

    function test_signatures_that_recover_nothing_are_skipped() public {
        bytes32 id = _open(0, 10 * DOLLAR);
        bytes memory terms = abi.encodePacked(payer, signer, uint96(0), DOLLAR, DOLLAR, bytes32(0));
        eq(_redeem(abi.encodePacked(terms, bytes32(0), bytes32(0))), 0, "zero");
        eq(_redeem(abi.encodePacked(terms, bytes32(type(uint256).max), bytes32(uint256(1)))), 0, "r above the field");
        eq(_redeem(abi.encodePacked(terms, bytes32(uint256(1)), bytes32(type(uint256).max))), 0, "s above the order");
        eq(_redeemed(id), 0, "redeemed");
    }

    function test_a_claim_of_the_zero_signer_is_skipped() public {
        bytes memory terms = abi.encodePacked(payer, address(0), uint96(0), DOLLAR, DOLLAR, bytes32(0));
        eq(_redeem(abi.encodePacked(terms, bytes32(uint256(1)), bytes32(uint256(1)))), 0, "skipped");
    }

    function test_bytes_that_are_not_claims_are_refused() public {
        _open(0, 10 * DOLLAR);
        bytes memory claim = _claim(0, DOLLAR);
        IEscrow.Group[] memory groups = _group(abi.encodePacked(claim, bytes1(0)));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.MalformedClaims.selector, 173));
        vm.prank(provider);
        escrow.redeem(groups);
    }

    function test_nothing_to_pay_is_no_event_and_no_transfer() public {
        _open(0, 10 * DOLLAR);
        vm.recordLogs();
        eq(_redeem(""), 0, "no claims");
        eq(_redeem(_claim(0, 0)), 0, "an empty claim");
        vm.prank(provider);
        eq(escrow.redeem(new IEscrow.Group[](0)), 0, "no groups");
        eq(vm.getRecordedLogs().length, 0, "events");
    }

    function test_the_event_names_every_channel_and_royalty() public {
        vm.prank(stranger);
        bytes32 second = models.register(keccak256("another"), "F16", "MIT", 1_000);
        bytes32 a = _open(0, 10 * DOLLAR);
        bytes32 b = _open(1, 10 * DOLLAR);
        vm.prank(payer);
        bytes32 c = escrow.depositAndOpen(signer, provider, second, 0, 10 * DOLLAR);

        IEscrow.Group[] memory groups = new IEscrow.Group[](2);
        // The second claim is skipped, so the event's bytes are shorter than was reserved for them.
        groups[0] =
            IEscrow.Group(modelId, abi.encodePacked(_claim(0, DOLLAR), _claim(9, DOLLAR), _claim(1, 2 * DOLLAR)));
        IEscrow.ChannelParams memory params = _params(0);
        params.modelId = second;
        groups[1] = IEscrow.Group(second, _claim(params, signerKey, 10 * DOLLAR, 10 * DOLLAR));

        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Redeemed(
            provider,
            11_720_000,
            abi.encodePacked(
                abi.encodePacked(publisher, uint96(150_000), uint96(30_000), uint32(2)),
                abi.encodePacked(a, uint96(DOLLAR), b, uint96(2 * DOLLAR)),
                abi.encodePacked(stranger, uint96(1_000_000), uint96(100_000), uint32(1)),
                abi.encodePacked(c, uint96(10 * DOLLAR))
            )
        );
        vm.prank(provider);
        escrow.redeem(groups);
        eq(token.balanceOf(provider), 11_720_000, "one transfer of all");
        eq(escrow.creditOf(publisher), 150_000, "royalty of the first");
        eq(escrow.creditOf(stranger), 1_000_000, "royalty of the second");
        eq(escrow.feesOf(publisher), 30_000, "fee beside the first");
        eq(escrow.feesOf(stranger), 100_000, "fee beside the second");
    }

    /// @dev A group of which nothing is paid leaves no trace, wherever it stands.
    function test_groups_that_pay_nothing_are_not_in_the_event() public {
        bytes32 id = _open(0, DOLLAR);
        IEscrow.Group[] memory groups = new IEscrow.Group[](3);
        groups[0] = IEscrow.Group("nothing", _claim(0, DOLLAR));
        groups[1] = IEscrow.Group(modelId, _claim(0, DOLLAR));
        groups[2] = IEscrow.Group("nothing", "");
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Redeemed(
            provider, 940_000, abi.encodePacked(publisher, uint96(50_000), uint96(10_000), uint32(1), id, DOLLAR)
        );
        vm.prank(provider);
        eq(escrow.redeem(groups), DOLLAR, "paid");
    }

    /// @dev Nobody holds a model that is not registered: no royalty, and the fee is beside the fee recipient itself.
    function test_an_unregistered_model_earns_no_royalty() public {
        modelId = keccak256("nothing");
        _open(0, DOLLAR);
        eq(_redeem(_claim(0, DOLLAR)), DOLLAR, "paid");
        eq(token.balanceOf(provider), 990_000, "provider");
        eq(escrow.feesOf(treasury), 10_000, "fee");
        eq(escrow.feesOf(address(0)), 0, "nothing is credited to nobody");
    }

    function test_fees_go_to_the_fee_recipient_whoever_asks() public {
        _open(0, 100 * DOLLAR);
        _redeem(_claim(0, 100 * DOLLAR));
        address[] memory holders = new address[](3);
        (holders[0], holders[1], holders[2]) = (publisher, stranger, publisher);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.FeesClaimed(treasury, DOLLAR, holders);
        vm.prank(stranger);
        eq(escrow.claimFees(holders), DOLLAR, "claimed, and twice the same is once");
        eq(token.balanceOf(treasury), DOLLAR, "received");
        eq(escrow.creditOf(publisher), 5 * DOLLAR, "the royalty is not touched");
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.claimFees(holders);
        eq(escrow.claimCredit(publisher), 5 * DOLLAR, "royalty after the fees");
    }

    function test_fees_stay_when_the_holder_takes_its_royalty() public {
        _open(0, 100 * DOLLAR);
        _redeem(_claim(0, 50 * DOLLAR));
        escrow.claimCredit(publisher);
        eq(escrow.feesOf(publisher), DOLLAR / 2, "beside");
        _redeem(_claim(0, 100 * DOLLAR));
        eq(escrow.feesOf(publisher), DOLLAR, "both fees");
        eq(escrow.creditOf(publisher), 2_500_000, "the second royalty");
    }

    function test_one_transfer_and_one_event_per_call() public {
        bytes memory claims;
        for (uint96 salt; salt < 5; ++salt) {
            _open(salt, DOLLAR);
            claims = abi.encodePacked(claims, _claim(salt, DOLLAR / 2));
        }
        vm.recordLogs();
        _redeem(claims);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 2, "the escrow's event and the token's");
    }

    function test_royalty_follows_the_token() public {
        _open(0, 100 * DOLLAR);
        _redeem(_claim(0, 10 * DOLLAR));
        vm.prank(publisher);
        models.transferFrom(publisher, stranger, uint256(modelId));
        _redeem(_claim(0, 30 * DOLLAR));
        eq(escrow.creditOf(publisher), 500_000, "what was earned before");
        eq(escrow.creditOf(stranger), DOLLAR, "what was earned since");
    }

    function test_credits_are_claimed_once() public {
        _open(0, 100 * DOLLAR);
        _redeem(_claim(0, 100 * DOLLAR));
        vm.prank(stranger);
        eq(escrow.claimCredit(publisher), 5 * DOLLAR, "claimed, whoever asks");
        eq(token.balanceOf(publisher), 5 * DOLLAR, "received");
        vm.expectRevert(IEscrow.ZeroAmount.selector);
        escrow.claimCredit(publisher);
    }

    function test_no_fee_and_no_royalty() public {
        vm.prank(publisher);
        bytes32 free = models.register(keccak256("free"), "Q8_0", "MIT", 0);
        escrow = new Escrow(token, models, guardian, address(0), 0, CHALLENGE);
        vm.startPrank(payer);
        token.approve(address(escrow), type(uint256).max);
        escrow.depositAndOpen(signer, provider, free, 0, 10 * DOLLAR);
        vm.stopPrank();
        modelId = free;
        eq(_redeem(_claim(0, 10 * DOLLAR)), 10 * DOLLAR, "paid");
        eq(token.balanceOf(provider), 10 * DOLLAR, "all of it to the provider");
    }

    /// @dev Invariants 3 and 5 on one channel, over any sequence of two claims.
    function testFuzz_split_is_exact(uint96 funded, uint96 first, uint96 second, uint96 signed) public {
        funded = uint96(bound(funded, 1, type(uint96).max));
        _fund(payer, funded);
        bytes32 id = _open(0, funded);
        uint256 paid = _redeem(_claim(_params(0), signerKey, signed, first));
        paid += _redeem(_claim(_params(0), signerKey, signed, second));
        uint256 received = token.balanceOf(provider) + escrow.creditOf(publisher) + _fees();
        eq(received, paid, "provider + royalty + fee");
        eq(_redeemed(id), paid, "redeemed");
        yes(paid <= signed, "never more than was signed");
        yes(paid <= funded, "never more than there is");
    }

    /// @dev Invariant 7: however a total is cut into claims, each party ends with the same.
    function testFuzz_batching_changes_no_total(uint96[4] memory cuts, uint16 royaltyBps) public {
        vm.prank(publisher);
        modelId = models.register(keccak256("fuzzed"), "Q8_0", "MIT", uint16(bound(royaltyBps, 0, 1_000)));
        uint96 total;
        for (uint256 i; i < cuts.length; ++i) {
            cuts[i] = uint96(bound(cuts[i], 1, 1_000));
            total += cuts[i];
        }
        _open(0, total);
        uint96 soFar;
        for (uint256 i; i < cuts.length; ++i) {
            soFar += cuts[i];
            _redeem(_claim(0, soFar));
        }
        uint256[3] memory inPieces = [token.balanceOf(provider), escrow.creditOf(publisher), _fees()];

        _open(1, total);
        _redeem(_claim(1, total));
        eq(token.balanceOf(provider), 2 * inPieces[0], "provider");
        eq(escrow.creditOf(publisher), 2 * inPieces[1], "royalty");
        eq(_fees(), 2 * inPieces[2], "fee");
    }

    /// @dev The finest cut there is: one unit at a time, at the highest rates, where rounding could go negative.
    function test_one_unit_at_a_time_is_never_negative_and_owes_the_same() public {
        vm.prank(publisher);
        modelId = models.register(keccak256("dear"), "Q8_0", "MIT", 1_000);
        escrow = new Escrow(token, models, guardian, treasury, 1_000, CHALLENGE);
        vm.prank(payer);
        token.approve(address(escrow), type(uint256).max);
        _open(0, 100);
        for (uint96 total = 1; total <= 100; ++total) {
            eq(_redeem(_claim(0, total)), 1, "one unit");
        }
        eq(token.balanceOf(provider), 80, "provider");
        eq(escrow.creditOf(publisher), 10, "royalty");
        eq(_fees(), 10, "fee");
    }

    /// @dev Bytes of any kind that are whole claims never revert and never pay.
    function testFuzz_noise_is_skipped(bytes32[] memory noise, uint8 count) public {
        _open(0, DOLLAR);
        bytes memory claims = new bytes(uint256(count % 5) * 172);
        for (uint256 i; i < claims.length && noise.length != 0; ++i) {
            claims[i] = noise[(i / 32) % noise.length][i % 32];
        }
        eq(_redeem(claims), 0, "paid");
    }

    /// @dev A claim with any one bit flipped pays nothing, unless the bit is of the claimed amount and lowers it.
    function testFuzz_a_flipped_bit_pays_nothing_more(uint16 bit) public {
        _open(0, 10 * DOLLAR);
        bytes memory claim = _claim(_params(0), signerKey, DOLLAR, DOLLAR);
        uint256 index = bit % (172 * 8);
        claim[index / 8] ^= bytes1(uint8(2 ** (index % 8)));
        uint256 paid = _redeem(claim);
        if (index / 8 < 64 || index / 8 >= 76) eq(paid, 0, "a signed or identifying bit");
        else yes(paid < DOLLAR, "never more than was signed");
    }
}
