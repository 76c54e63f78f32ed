// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What an account is owed of royalties (lower half) and, beside it, what the fee recipient is owed of the same
/// redemptions (upper half). In one slot, because a redemption that wrote two would cost 5,000 gas more.
type Credit is uint256;

using Credits for Credit global;

/// @title Halves of a credit
library Credits {
    uint256 private constant FEE = 128;

    /// @notice The same with more owed. Both sums are of money that the escrow holds, so neither half overflows.
    function plus(Credit credit, uint256 royalty_, uint256 fee_) internal pure returns (Credit) {
        return Credit.wrap(Credit.unwrap(credit) + (fee_ << FEE | royalty_));
    }

    /// @notice What the account is owed.
    function royalty(Credit credit) internal pure returns (uint256) {
        return uint128(Credit.unwrap(credit));
    }

    /// @notice What the fee recipient is owed.
    function fee(Credit credit) internal pure returns (uint256) {
        return Credit.unwrap(credit) >> FEE;
    }

    /// @notice The same after the account took what it was owed.
    function withoutRoyalty(Credit credit) internal pure returns (Credit) {
        return Credit.wrap(Credit.unwrap(credit) >> FEE << FEE);
    }

    /// @notice The same after the fee recipient took what it was owed.
    function withoutFee(Credit credit) internal pure returns (Credit) {
        return Credit.wrap(royalty(credit));
    }
}
