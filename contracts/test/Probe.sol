// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Claims} from "../src/Claims.sol";
import {Receipts} from "../src/Receipts.sol";

/// @notice Asks the libraries of src/ what no contract there says. It is compiled as they are when they are deployed (see
/// quick.sh); what a test itself calls of a library is compiled as the test is.
contract Probe {
    function voucherTypehash() external pure returns (bytes32) {
        return Claims.VOUCHER_TYPEHASH;
    }

    function receiptTypehash() external pure returns (bytes32) {
        return Receipts.TYPEHASH;
    }

    function nextHead(bytes32 head, bytes32 receiptStructHash) external pure returns (bytes32) {
        return Receipts.nextHead(head, receiptStructHash);
    }

    /// @dev The signature check alone.
    function isSigned(bytes calldata claim, bytes32 domainSeparator, bytes32 id) external view returns (bool) {
        Claims.prepare(address(0), domainSeparator);
        return _isSigned(claim, id);
    }

    /// @dev Asks about `claim` directly after a good one, with nothing written in between.
    function isSignedAfter(bytes calldata good, bytes calldata claim, bytes32 domainSeparator, bytes32 id)
        external
        view
        returns (bool)
    {
        Claims.prepare(address(0), domainSeparator);
        require(_isSigned(good, id), "the first is good");
        return _isSigned(claim, id);
    }

    function _isSigned(bytes calldata claim, bytes32 id) private view returns (bool) {
        (uint256 first,) = Claims.bounds(claim);
        Claims.channelId(first);
        return Claims.isSigned(first, id);
    }
}
