// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow} from "./interfaces/IEscrow.sol";

/// @title Reading packed claims
/// @notice The part of a redemption that runs once per channel, kept in assembly because a batch of fifty pays for it
/// fifty times: no memory is allocated per claim, and what is the same for all claims is written once.
///
/// A claim is 172 bytes of calldata:
///
///     offset  0  payer (20)      offset 52  cumulative (12)     offset 108  r (32)
///     offset 20  signer (20)     offset 64  amount (12)         offset 140  vs (32), EIP-2098
///     offset 40  salt (12)       offset 76  receiptsHead (32)
///
/// Scratch memory lies at a fixed place, so that every address is a literal, and holds, ready to be hashed:
///
///     0x200  preimage of the channel id: payer, signer, provider, modelId, token, salt
///     0x2c0  voucher struct: type hash, channelId, cumulative, receiptsHead
///     0x340  typed data: 0x1901, domain separator, struct hash
///     0x3a0  input of the recovery precompile: digest, v, r, s
///     0x420  rates of the split: royalty, fee, and what the fee leaves of the whole, in basis points
///     0x480  totals of the group: paid, royalty, fee
library Claims {
    /// @notice Size of a packed claim.
    uint256 internal constant CLAIM_BYTES = 172;
    /// @notice Size of a group's head in the event: holder (20), royalty (12), fee (12), number of channels (4).
    uint256 internal constant GROUP_BYTES = 48;
    /// @notice Size of a channel in the event: channelId (32), redeemed (12).
    uint256 internal constant CHANNEL_BYTES = 44;

    /// @notice EIP-712 type hash of a voucher.
    bytes32 internal constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes32 channelId,uint96 cumulative,bytes32 receiptsHead)");

    /// @dev Half of the order of secp256k1: a signature with a higher `s` is another form of one with a lower.
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;
    uint256 private constant BPS = 10_000;

    uint256 private constant PAYER = 0x200;
    uint256 private constant SIGNER = 0x220;
    uint256 private constant PROVIDER = 0x240;
    uint256 private constant MODEL = 0x260;
    uint256 private constant TOKEN = 0x280;
    uint256 private constant SALT = 0x2a0;
    uint256 private constant VOUCHER = 0x2c0;
    uint256 private constant CHANNEL = 0x2e0;
    uint256 private constant CUMULATIVE = 0x300;
    uint256 private constant HEAD = 0x320;
    uint256 private constant TYPED = 0x340;
    uint256 private constant DOMAIN = 0x342;
    uint256 private constant STRUCT = 0x362;
    uint256 private constant DIGEST = 0x3a0;
    uint256 private constant V = 0x3c0;
    uint256 private constant R = 0x3e0;
    uint256 private constant S = 0x400;
    uint256 private constant ROYALTY_BPS = 0x420;
    uint256 private constant FEE_BPS = 0x440;
    uint256 private constant REST_BPS = 0x460;
    uint256 private constant PAID = 0x480;
    uint256 private constant ROYALTY = 0x4a0;
    uint256 private constant FEE = 0x4c0;
    uint256 private constant SCRATCH_END = 0x4e0;

    /// @notice Reverts unless `length` is a whole number of claims.
    function requireWhole(uint256 length) internal pure {
        require(length % CLAIM_BYTES == 0, IEscrow.MalformedClaims(length));
    }

    /// @notice Room for the event's bytes, in case all claims are paid.
    function allocate(IEscrow.Group[] calldata groups) internal pure returns (bytes memory buffer) {
        uint256 length = groups.length * GROUP_BYTES;
        for (uint256 i; i < groups.length; ++i) {
            length += groups[i].claims.length / CLAIM_BYTES * CHANNEL_BYTES;
        }
        // Not cleared, as `new bytes` would: each byte that is emitted is written first. A write may reach up to a word
        // beyond what it writes, so there is one word to spare.
        assembly ("memory-safe") {
            buffer := mload(0x40)
            mstore(0x40, add(buffer, and(add(length, 95), not(31))))
        }
    }

    /// @notice Reserves scratch memory and writes to it what is the same for every claim of a call. Nothing of size may have
    /// been allocated before.
    function prepare(address token, bytes32 domainSeparator) internal pure {
        bytes32 typehash = VOUCHER_TYPEHASH;
        uint256 free;
        assembly ("memory-safe") {
            free := mload(0x40)
        }
        require(free <= PAYER, IEscrow.OutOfScratch());
        assembly ("memory-safe") {
            mstore(0x40, SCRATCH_END)
            mstore(TOKEN, token)
            mstore(VOUCHER, typehash)
            mstore(TYPED, shl(240, 0x1901))
            mstore(DOMAIN, domainSeparator)
        }
    }

    /// @notice Writes to scratch what is the same for every claim of a group.
    function setGroup(address provider, bytes32 modelId, uint256 royaltyBps, uint256 feeBps) internal pure {
        assembly ("memory-safe") {
            mstore(PROVIDER, provider)
            mstore(MODEL, modelId)
            mstore(ROYALTY_BPS, royaltyBps)
            mstore(FEE_BPS, feeBps)
            mstore(REST_BPS, sub(BPS, feeBps))
            mstore(PAID, 0)
            mstore(ROYALTY, 0)
            mstore(FEE, 0)
        }
    }

    /// @notice Where in calldata the first claim begins, and where the last ends.
    function bounds(bytes calldata claims) internal pure returns (uint256 claim, uint256 last) {
        assembly ("memory-safe") {
            claim := claims.offset
            last := add(claims.offset, claims.length)
        }
    }

    /// @notice The id of the channel that a claim is on.
    function channelId(uint256 claim) internal pure returns (bytes32 id) {
        assembly ("memory-safe") {
            mstore(PAYER, shr(96, calldataload(claim)))
            mstore(SIGNER, shr(96, calldataload(add(claim, 20))))
            mstore(SALT, shr(160, calldataload(add(claim, 40))))
            id := keccak256(PAYER, 192)
        }
    }

    /// @notice The total that a claim asks for; zero if that is more than what was signed.
    function target(uint256 claim) internal pure returns (uint256 amount) {
        assembly ("memory-safe") {
            amount := shr(160, calldataload(add(claim, 64)))
            amount := mul(amount, iszero(gt(amount, shr(160, calldataload(add(claim, 52))))))
        }
    }

    /// @notice The claim after this one.
    function next(uint256 claim) internal pure returns (uint256) {
        unchecked {
            return claim + CLAIM_BYTES;
        }
    }

    /// @notice Whether the claim's signature is the session key's over its voucher. To be asked after {channelId}.
    /// @dev False for a high `s` and for a signature from which nothing can be recovered.
    function isSigned(uint256 claim, bytes32 id) internal view returns (bool signed) {
        uint256 halfOrder = HALF_ORDER;
        assembly ("memory-safe") {
            mstore(CHANNEL, id)
            mstore(CUMULATIVE, shr(160, calldataload(add(claim, 52))))
            mstore(HEAD, calldataload(add(claim, 76)))
            mstore(STRUCT, keccak256(VOUCHER, 128))
            mstore(DIGEST, keccak256(TYPED, 66))

            let vs := calldataload(add(claim, 140))
            let s := shr(1, shl(1, vs))
            mstore(V, add(27, shr(255, vs)))
            mstore(R, calldataload(add(claim, 108)))
            mstore(S, s)
            // The precompile returns nothing for an invalid signature, so the word that receives it is cleared first.
            mstore(0, 0)
            pop(staticcall(gas(), 1, DIGEST, 128, 0, 32))
            let recovered := mload(0)
            signed := and(and(eq(recovered, mload(SIGNER)), iszero(iszero(recovered))), iszero(gt(s, halfOrder)))
        }
    }

    /// @notice Adds to the group's totals what a channel pays between two running totals of its own.
    ///
    /// @dev With `fee(n) = n * feeBps / 10000` and `royalty(n) = (n - fee(n)) * royaltyBps / (10000 - feeBps)`, each part is
    /// the difference of a function of the channel's running total, so that batching changes no total (invariant 7). Each of
    /// the three functions (fee, royalty, the rest) grows by 0 or 1 when the total grows by 1, so no part is ever negative
    /// (invariant 5). Totals have 96 bits and rates 14, and the highest fee keeps the divisor above zero.
    function add(uint256 from, uint256 to) internal pure {
        assembly ("memory-safe") {
            let royaltyBps := mload(ROYALTY_BPS)
            let feeBps := mload(FEE_BPS)
            let restBps := mload(REST_BPS)
            let feeFrom := div(mul(from, feeBps), BPS)
            let feeTo := div(mul(to, feeBps), BPS)
            let royaltyFrom := div(mul(sub(from, feeFrom), royaltyBps), restBps)
            let royaltyTo := div(mul(sub(to, feeTo), royaltyBps), restBps)
            mstore(PAID, add(mload(PAID), sub(to, from)))
            mstore(ROYALTY, add(mload(ROYALTY), sub(royaltyTo, royaltyFrom)))
            mstore(FEE, add(mload(FEE), sub(feeTo, feeFrom)))
        }
    }

    /// @notice What the group's channels paid, and what of it is royalty and fee.
    function totals() internal pure returns (uint256 paid, uint256 royalty, uint256 fee) {
        assembly ("memory-safe") {
            paid := mload(PAID)
            royalty := mload(ROYALTY)
            fee := mload(FEE)
        }
    }

    /// @notice Where the event's bytes begin.
    function begin(bytes memory entries) internal pure returns (uint256 cursor) {
        assembly ("memory-safe") {
            cursor := add(entries, 32)
        }
    }

    /// @notice Writes a paid channel into the event's bytes.
    /// @return next where to write what follows
    function writeChannel(uint256 cursor, bytes32 id, uint256 redeemed) internal pure returns (uint256 next) {
        assembly ("memory-safe") {
            mstore(cursor, id)
            // The second word overlaps the first: its upper 20 bytes repeat the end of the id, its lower 12 are the total.
            mstore(add(cursor, 12), or(shl(96, id), redeemed))
            next := add(cursor, CHANNEL_BYTES)
        }
    }

    /// @notice Writes the head of a group, whose channels end at `cursor`, into the event's bytes.
    function writeGroup(uint256 head, uint256 cursor, address holder, uint256 royalty, uint256 fee) internal pure {
        assembly ("memory-safe") {
            let count := div(sub(sub(cursor, head), GROUP_BYTES), CHANNEL_BYTES)
            let first := or(shl(96, holder), royalty)
            mstore(head, first)
            // The second word overlaps the first: its upper 16 bytes repeat the end of it.
            mstore(add(head, 16), or(shl(128, first), or(shl(32, fee), count)))
        }
    }

    /// @notice Sets the length of the event's bytes by where the writing ended.
    function end(bytes memory entries, uint256 cursor) internal pure {
        assembly ("memory-safe") {
            mstore(entries, sub(cursor, add(entries, 32)))
        }
    }
}
