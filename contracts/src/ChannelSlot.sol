// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice A channel in its one storage slot. From the lowest bit: `funded` (96), `redeemed` (96), `closeAt` (40),
/// `flags` (24), as Solidity would lay out {IEscrow.Channel}. Read and written whole, so no field costs an access of its own.
type ChannelSlot is uint256;

using ChannelSlots for ChannelSlot global;

/// @title Fields of a channel's slot
library ChannelSlots {
    uint256 private constant REDEEMED = 96;
    uint256 private constant CLOSE_AT = 192;
    uint256 private constant FLAGS = 232;

    /// @dev Flags of an open channel.
    uint256 private constant OPEN = 1;
    /// @dev Flags of a closed channel; they stay for ever.
    uint256 private constant CLOSED = 3;

    /// @notice An open channel that nobody asked to close.
    function open(uint96 funded_, uint96 redeemed_) internal pure returns (ChannelSlot) {
        return ChannelSlot.wrap(OPEN << FLAGS | uint256(redeemed_) << REDEEMED | funded_);
    }

    /// @notice A closed channel, which holds nothing: what it has not paid out has left it.
    function closed(uint96 redeemed_) internal pure returns (ChannelSlot) {
        return ChannelSlot.wrap(CLOSED << FLAGS | uint256(redeemed_) << REDEEMED | redeemed_);
    }

    /// @notice All that was ever put in.
    function funded(ChannelSlot slot) internal pure returns (uint96) {
        return uint96(ChannelSlot.unwrap(slot));
    }

    /// @notice All that was ever paid out.
    function redeemed(ChannelSlot slot) internal pure returns (uint96) {
        return uint96(ChannelSlot.unwrap(slot) >> REDEEMED);
    }

    /// @notice From when a requested close may be finalised, zero if none was requested.
    function closeAt(ChannelSlot slot) internal pure returns (uint40) {
        return uint40(ChannelSlot.unwrap(slot) >> CLOSE_AT);
    }

    /// @notice 0 never opened, 1 open, 3 closed.
    function flags(ChannelSlot slot) internal pure returns (uint24) {
        return uint24(ChannelSlot.unwrap(slot) >> FLAGS);
    }

    /// @notice Whether it is open, a requested close included.
    function isOpen(ChannelSlot slot) internal pure returns (bool) {
        return ChannelSlot.unwrap(slot) >> FLAGS == OPEN;
    }

    /// @notice The same channel with another total paid out.
    function withRedeemed(ChannelSlot slot, uint96 redeemed_) internal pure returns (ChannelSlot) {
        uint256 rest = ChannelSlot.unwrap(slot) & ~(uint256(type(uint96).max) << REDEEMED);
        return ChannelSlot.wrap(rest | uint256(redeemed_) << REDEEMED);
    }

    /// @notice The same channel with another close time.
    function withCloseAt(ChannelSlot slot, uint40 closeAt_) internal pure returns (ChannelSlot) {
        uint256 rest = ChannelSlot.unwrap(slot) & ~(uint256(type(uint40).max) << CLOSE_AT);
        return ChannelSlot.wrap(rest | uint256(closeAt_) << CLOSE_AT);
    }
}
