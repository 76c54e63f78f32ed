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
/// Scratch memory holds, ready to be hashed:
///
///     offset   0  preimage of the channel id: payer, signer, provider, modelId, token, salt
///     offset 192  voucher struct: type hash, channelId, cumulative, receiptsHead
///     offset 320  typed data: 0x1901, domain separator, struct hash
///     offset 416  input of the recovery precompile: digest, v, r, s
library Claims {
    /// @notice Size of a packed claim.
    uint256 internal constant CLAIM_BYTES = 172;
    /// @notice Size of a channel in the event: channelId (32), redeemed (12).
    uint256 internal constant CHANNEL_BYTES = 44;
    /// @notice Size of a credit in the event: holder (20), amount (12).
    uint256 internal constant CREDIT_BYTES = 32;

    /// @notice EIP-712 type hash of a voucher.
    bytes32 internal constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes32 channelId,uint96 cumulative,bytes32 receiptsHead)");

    /// @dev Half of the order of secp256k1: a signature with a higher `s` is another form of one with a lower.
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;
    uint256 private constant SCRATCH_BYTES = 544;

    /// @notice Reverts unless `length` is a whole number of claims.
    function requireWhole(uint256 length) internal pure {
        require(length % CLAIM_BYTES == 0, IEscrow.MalformedClaims(length));
    }

    /// @notice Room for the channels of all claims, in case all are paid.
    function allocate(IEscrow.Group[] calldata groups) internal pure returns (bytes memory) {
        uint256 bytesClaimed;
        for (uint256 i; i < groups.length; ++i) {
            bytesClaimed += groups[i].claims.length;
        }
        return new bytes(bytesClaimed / CLAIM_BYTES * CHANNEL_BYTES);
    }

    /// @notice Scratch memory with all that is the same for every claim of a call.
    function scratch(address token, bytes32 domainSeparator) internal pure returns (uint256 base) {
        bytes32 typehash = VOUCHER_TYPEHASH;
        assembly ("memory-safe") {
            base := mload(0x40)
            mstore(0x40, add(base, SCRATCH_BYTES))
            mstore(add(base, 128), token)
            mstore(add(base, 192), typehash)
            mstore(add(base, 320), shl(240, 0x1901))
            mstore(add(base, 322), domainSeparator)
        }
    }

    /// @notice Writes to scratch what is the same for every claim of a group.
    function setGroup(uint256 base, address provider, bytes32 modelId) internal pure {
        assembly ("memory-safe") {
            mstore(add(base, 64), provider)
            mstore(add(base, 96), modelId)
        }
    }

    /// @notice Where in calldata the first claim is.
    function first(bytes calldata claims) internal pure returns (uint256 claim) {
        assembly ("memory-safe") {
            claim := claims.offset
        }
    }

    /// @notice The id of the channel that a claim is on.
    function channelId(uint256 claim, uint256 base) internal pure returns (bytes32 id) {
        assembly ("memory-safe") {
            mstore(base, shr(96, calldataload(claim)))
            mstore(add(base, 32), shr(96, calldataload(add(claim, 20))))
            mstore(add(base, 160), shr(160, calldataload(add(claim, 40))))
            id := keccak256(base, 192)
        }
    }

    /// @notice What was signed, and what is claimed of it.
    function amounts(uint256 claim) internal pure returns (uint96 cumulative, uint96 amount) {
        assembly ("memory-safe") {
            cumulative := shr(160, calldataload(add(claim, 52)))
            amount := shr(160, calldataload(add(claim, 64)))
        }
    }

    /// @notice Whether the claim's signature is the session key's over its voucher.
    /// @dev False for a high `s` and for a signature from which nothing can be recovered.
    function isSigned(uint256 claim, uint256 base, bytes32 id) internal view returns (bool signed) {
        uint256 halfOrder = HALF_ORDER;
        assembly ("memory-safe") {
            mstore(add(base, 224), id)
            mstore(add(base, 256), shr(160, calldataload(add(claim, 52))))
            mstore(add(base, 288), calldataload(add(claim, 76)))
            mstore(add(base, 354), keccak256(add(base, 192), 128))
            mstore(add(base, 416), keccak256(add(base, 320), 66))

            let vs := calldataload(add(claim, 140))
            let s := shr(1, shl(1, vs))
            mstore(add(base, 448), add(27, shr(255, vs)))
            mstore(add(base, 480), calldataload(add(claim, 108)))
            mstore(add(base, 512), s)
            // The precompile returns nothing for an invalid signature, so the word that receives it is cleared first.
            mstore(0, 0)
            pop(staticcall(gas(), 1, add(base, 416), 128, 0, 32))
            let recovered := mload(0)
            let signer := shr(96, calldataload(add(claim, 20)))
            signed := and(and(eq(recovered, signer), iszero(iszero(recovered))), iszero(gt(s, halfOrder)))
        }
    }

    /// @notice Writes a paid channel into the event's bytes.
    function writeChannel(bytes memory buffer, uint256 offset, bytes32 id, uint256 redeemed) internal pure {
        assembly ("memory-safe") {
            let to := add(add(buffer, 32), offset)
            mstore(to, id)
            // The second word overlaps the first: its upper 20 bytes repeat the end of the id, its lower 12 are the total.
            mstore(add(to, 12), or(shl(96, id), redeemed))
        }
    }

    /// @notice Writes a credit into the event's bytes.
    function writeCredit(bytes memory buffer, uint256 offset, address holder, uint256 amount) internal pure {
        assembly ("memory-safe") {
            mstore(add(add(buffer, 32), offset), or(shl(96, holder), amount))
        }
    }

    /// @notice Cuts the event's bytes to what was written.
    function shrink(bytes memory buffer, uint256 length) internal pure {
        assembly ("memory-safe") {
            mstore(buffer, length)
        }
    }
}
