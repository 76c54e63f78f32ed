// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title A pause of bounded length, by a guardian that can do nothing else
interface IGuarded {
    /// @notice Deposits and opens are refused until then.
    event Paused(uint40 until);
    /// @notice Deposits and opens are possible again.
    event Unpaused();

    /// @notice Deposits and opens are refused until then; all else works.
    error PausedNow(uint40 until);
    /// @notice The last pause was too short a time ago.
    error PausedLately(uint40 nextPauseAt);
    /// @notice Only the guardian may do this.
    error NotGuardian();

    /// @notice Refuses deposits and opens for 7 days. Not within 30 days of the beginning of the last pause.
    function pause() external;

    /// @notice Ends a pause early; the 30 days run on.
    function endPause() external;

    /// @notice Pauses, in seconds of the chain.
    /// @return pausedUntil until when deposits and opens are refused; in the past when they are not
    /// @return nextPauseAt from when the guardian may pause again
    function pauses() external view returns (uint40 pausedUntil, uint40 nextPauseAt);
}
