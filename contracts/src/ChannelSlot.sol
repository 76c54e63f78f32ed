// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice A channel in its one storage slot. From the lowest bit: `funded` (96), `redeemed` (96), `closeAt` (40),
/// `flags` (24), as Solidity would lay out {IEscrow.Channel}. Read and written whole, so no field costs an access of its own.
type ChannelSlot is uint256;

using ChannelSlots for ChannelSlot global;

/// @title Fields of a channel's slot
/// @dev Amounts come in whole words: the caller has seen to it that they fit.
library ChannelSlots {
    uint256 private constant REDEEMED = 96;
    uint256 private constant CLOSE_AT = 192;
    uint256 private constant FLAGS = 232;
    uint256 private constant AMOUNT_MASK = type(uint96).max;
    uint256 private constant TIME_MASK = type(uint40).max;

    /// @dev Flags of an open channel.
    uint256 private constant OPEN = 1;
    /// @dev Flags of a closed channel; they stay for ever.
    uint256 private constant CLOSED = 3;

    /// @notice A channel with `funded_` in it, of which nothing was paid out, and that nobody asked to close.
    function opened(uint256 funded_) internal pure returns (ChannelSlot) {
        return ChannelSlot.wrap(OPEN << FLAGS | funded_);
    }

    /// @notice The channel closed. It holds nothing any more: what it has not paid out has left it.
    function closed(ChannelSlot slot) internal pure returns (ChannelSlot) {
        uint256 redeemed_ = redeemed(slot);
        return ChannelSlot.wrap(CLOSED << FLAGS | redeemed_ << REDEEMED | redeemed_);
    }

    /// @notice All that was ever put in, 96 bits.
    function funded(ChannelSlot slot) internal pure returns (uint256) {
        return ChannelSlot.unwrap(slot) & AMOUNT_MASK;
    }

    /// @notice All that was ever paid out, 96 bits.
    function redeemed(ChannelSlot slot) internal pure returns (uint256) {
        return ChannelSlot.unwrap(slot) >> REDEEMED & AMOUNT_MASK;
    }

    /// @notice From when a requested close may be finalised, 40 bits; zero if none was requested, or it was finalised.
    function closeAt(ChannelSlot slot) internal pure returns (uint256) {
        return ChannelSlot.unwrap(slot) >> CLOSE_AT & TIME_MASK;
    }

    /// @notice 0 never opened, 1 open, 3 closed.
    function flags(ChannelSlot slot) internal pure returns (uint24) {
        return uint24(ChannelSlot.unwrap(slot) >> FLAGS);
    }

    /// @notice Whether it was never opened.
    function isNew(ChannelSlot slot) internal pure returns (bool) {
        return ChannelSlot.unwrap(slot) == 0;
    }

    /// @notice Whether it is open, a requested close included.
    function isOpen(ChannelSlot slot) internal pure returns (bool) {
        return ChannelSlot.unwrap(slot) >> FLAGS == OPEN;
    }

    /// @notice Whether it is open and nobody asked to close it.
    function isIdle(ChannelSlot slot) internal pure returns (bool) {
        return ChannelSlot.unwrap(slot) >> CLOSE_AT == OPEN << FLAGS - CLOSE_AT;
    }

    /// @notice The same channel with another total put in.
    function withFunded(ChannelSlot slot, uint256 funded_) internal pure returns (ChannelSlot) {
        return ChannelSlot.wrap(ChannelSlot.unwrap(slot) & ~AMOUNT_MASK | funded_);
    }

    /// @notice The same channel with `amount` more paid out, which is not more than what is left.
    function plusRedeemed(ChannelSlot slot, uint256 amount) internal pure returns (ChannelSlot) {
        unchecked {
            return ChannelSlot.wrap(ChannelSlot.unwrap(slot) + (amount << REDEEMED));
        }
    }

    /// @notice An idle channel with a time to close.
    function closingAt(ChannelSlot slot, uint256 closeAt_) internal pure returns (ChannelSlot) {
        return ChannelSlot.wrap(ChannelSlot.unwrap(slot) | closeAt_ << CLOSE_AT);
    }

    /// @notice The same channel without a time to close.
    function idle(ChannelSlot slot) internal pure returns (ChannelSlot) {
        return ChannelSlot.wrap(ChannelSlot.unwrap(slot) & ~(TIME_MASK << CLOSE_AT));
    }
}
