// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IGuarded} from "./interfaces/IGuarded.sol";

/// @title A pause that nobody can abuse for long
/// @notice The one privilege in the escrow: new money can be kept out while a flaw is looked into. What is inside is
/// never held back (invariant 6), and the guardian can do nothing else.
abstract contract Guarded is IGuarded {
    /// @dev The longest pause.
    uint256 private constant MAX_PAUSE = 7 days;
    /// @dev From the beginning of a pause, how long there cannot be another.
    uint256 private constant PAUSE_INTERVAL = 30 days;

    address internal immutable guardian;

    // In a slot of its own, whole: each open reads it.
    uint256 private _pausedUntil;
    uint256 private _nextPauseAt;

    /// @dev For what a pause stops.
    modifier whenNotPaused() {
        if (block.timestamp < _pausedUntil) revert PausedNow(uint40(_pausedUntil));
        _;
    }

    constructor(address guardian_) {
        guardian = guardian_;
    }

    /// @inheritdoc IGuarded
    function pause() external {
        require(msg.sender == guardian, NotGuardian());
        require(block.timestamp >= _nextPauseAt, PausedLately(uint40(_nextPauseAt)));
        _pausedUntil = block.timestamp + MAX_PAUSE;
        _nextPauseAt = block.timestamp + PAUSE_INTERVAL;
        emit Paused(uint40(_pausedUntil));
    }

    /// @inheritdoc IGuarded
    function endPause() external {
        require(msg.sender == guardian, NotGuardian());
        _pausedUntil = 0;
        emit Unpaused();
    }

    /// @inheritdoc IGuarded
    function pauses() external view returns (uint40 pausedUntil, uint40 nextPauseAt) {
        return (uint40(_pausedUntil), uint40(_nextPauseAt));
    }
}
