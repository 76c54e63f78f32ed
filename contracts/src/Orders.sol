// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow} from "./interfaces/IEscrow.sol";

/// @title What a payer signs so that somebody else may send it (EIP-712 struct hashes), and nonces for the token (ERC-3009)
library Orders {
    /// @notice EIP-712 type hash of an open.
    bytes32 internal constant OPEN_TYPEHASH = keccak256(
        "Open(address payer,address signer,address provider,bytes32 modelId,uint96 salt,uint96 amount,uint256 deadline)"
    );
    /// @notice EIP-712 type hash of a request to close.
    bytes32 internal constant REQUEST_CLOSE_TYPEHASH =
        keccak256("RequestClose(bytes32 channelId,uint256 nonce,uint256 deadline)");
    /// @notice EIP-712 type hash of a withdrawal.
    bytes32 internal constant WITHDRAW_TYPEHASH =
        keccak256("Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)");
    /// @notice EIP-712 type hash of a deposit; the hash of one is the nonce of its authorization.
    bytes32 internal constant DEPOSIT_TYPEHASH = keccak256("Deposit(address payer,bytes32 salt)");

    /// @notice Struct hash of an open.
    function openHash(IEscrow.ChannelParams calldata params, uint96 amount, uint256 deadline)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(OPEN_TYPEHASH, params, amount, deadline));
    }

    /// @notice Struct hash of a request to close.
    function requestCloseHash(bytes32 channelId, uint256 nonce, uint256 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(REQUEST_CLOSE_TYPEHASH, channelId, nonce, deadline));
    }

    /// @notice Struct hash of a withdrawal.
    function withdrawHash(address payer, uint96 amount, uint256 nonce, uint256 deadline)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(WITHDRAW_TYPEHASH, payer, amount, nonce, deadline));
    }

    /// @notice The nonce of an authorization that is for a deposit. An authorization for a channel has the channel's id as
    /// its nonce, so neither can be used as the other by whoever sees it first.
    function depositNonce(address payer, bytes32 salt) internal pure returns (bytes32) {
        return keccak256(abi.encode(DEPOSIT_TYPEHASH, payer, salt));
    }
}
