// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Providers} from "../../src/Providers.sol";

// The registry of providers with one flaw each, as auditors found them elsewhere. A test that is green on the real
// contract must show the attack on these, or it tests nothing.

/// @notice L-18: what is taken goes to whoever reports it.
contract RewardIsEverything is Providers {
    constructor(IERC20 token, address escrow, address disputes, address recipient, uint40 window)
        Providers(token, escrow, disputes, recipient, window)
    {}

    function _reward(uint96 taken) internal pure override returns (uint96) {
        return taken;
    }
}

/// @notice M-05: a slash is taken from stake that stands, and reverts where there is less.
contract SlashNeedsStake is Providers {
    error NotEnough();

    constructor(IERC20 token, address escrow, address disputes, address recipient, uint40 window)
        Providers(token, escrow, disputes, recipient, window)
    {}

    function _split(uint96 stake, uint96, uint256 amount) internal pure override returns (uint96, uint96) {
        require(amount <= stake, NotEnough());
        return (uint96(amount), 0);
    }
}

/// @notice M-04: stake that is asked for later rides on the date of what was asked for before.
contract OldDateCounts is Providers {
    constructor(IERC20 token, address escrow, address disputes, address recipient, uint40 window)
        Providers(token, escrow, disputes, recipient, window)
    {}

    function _availableAt(uint40 before) internal view override returns (uint40) {
        return before != 0 ? before : super._availableAt(before);
    }
}

/// @notice M-9: stake is free when the dispute window ends, although evidence may come in its last moment.
contract DelayIsTheDisputeWindow is Providers {
    constructor(IERC20 token, address escrow, address disputes, address recipient, uint40 window)
        Providers(token, escrow, disputes, recipient, window)
    {}

    function _delay(uint40 disputeWindow) internal pure override returns (uint40) {
        return disputeWindow;
    }
}

/// @notice OZ-2025 M-01: a date that does not fit is cut to its field's width.
contract DateIsCut is Providers {
    constructor(IERC20 token, address escrow, address disputes, address recipient, uint40 window)
        Providers(token, escrow, disputes, recipient, window)
    {}

    function _availableAt(uint40) internal view override returns (uint40) {
        return uint40(block.timestamp + unstakeDelay);
    }
}
