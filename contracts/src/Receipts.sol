// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What a provider signs about one finished request.
/// @param channelId channel that pays for it
/// @param sequence number of the receipt in its channel, from 1
/// @param requestId id the buyer gave the request
/// @param modelId model that answered
/// @param requestHash hash of the canonical request
/// @param responseHash hash of the answer as delivered
/// @param inputUnits units read, in the manifest's unit
/// @param outputUnits units produced
/// @param costNano price of this request in nano-dollars
/// @param totalNano the channel's running total in nano-dollars, this receipt included
/// @param status how the request ended
/// @param finishedAt time of the end, Unix seconds
/// @param region where it ran, ASCII, zero padded
/// @param energyMillijoules energy the provider measured
/// @param fingerprintRoot Merkle root of the answer's fingerprint, zero if there is none
/// @param previousHead running hash of the channel's receipts before this one
struct Receipt {
    bytes32 channelId;
    uint64 sequence;
    bytes32 requestId;
    bytes32 modelId;
    bytes32 requestHash;
    bytes32 responseHash;
    uint64 inputUnits;
    uint64 outputUnits;
    uint128 costNano;
    uint128 totalNano;
    uint8 status;
    uint64 finishedAt;
    bytes8 region;
    uint64 energyMillijoules;
    bytes32 fingerprintRoot;
    bytes32 previousHead;
}

/// @title Hashes of receipts
library Receipts {
    /// @notice EIP-712 type hash of a receipt.
    bytes32 internal constant TYPEHASH = keccak256(
        "Receipt(bytes32 channelId,uint64 sequence,bytes32 requestId,bytes32 modelId,bytes32 requestHash,"
        "bytes32 responseHash,uint64 inputUnits,uint64 outputUnits,uint128 costNano,uint128 totalNano,uint8 status,"
        "uint64 finishedAt,bytes8 region,uint64 energyMillijoules,bytes32 fingerprintRoot,bytes32 previousHead)"
    );

    /// @notice EIP-712 struct hash of a receipt.
    /// @dev Every member is a static type of one word, so the encoding of the struct is that of its members in order.
    function structHash(Receipt memory receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(TYPEHASH, receipt));
    }

    /// @notice The running hash of a channel's receipts after one more.
    /// @param head the hash so far, zero before the first receipt
    /// @param receiptStructHash {structHash} of the next receipt
    function nextHead(bytes32 head, bytes32 receiptStructHash) internal pure returns (bytes32) {
        return keccak256(abi.encode(head, receiptStructHash));
    }
}
