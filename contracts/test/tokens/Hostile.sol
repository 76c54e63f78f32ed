// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A token that anybody mints; the tokens below each break one expectation.
abstract contract Mintable is ERC20 {
    constructor() ERC20("Hostile", "HOST") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @notice Keeps three percent of each transfer.
contract FeeOnTransfer is Mintable {
    /// @notice What was kept of all that was sent to an account.
    mapping(address => uint256) public keptOn;

    function _update(address from, address to, uint256 value) internal override {
        if (from == address(0) || to == address(0)) return super._update(from, to, value);
        uint256 kept = value * 3 / 100;
        super._update(from, to, value - kept);
        super._update(from, address(0), kept);
        keptOn[to] += kept;
    }
}

/// @notice Reports failure instead of reverting, and moves nothing.
contract ReturnsFalse is Mintable {
    bool public refuses;

    function refuse(bool on) external {
        refuses = on;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return refuses ? false : super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return refuses ? false : super.transferFrom(from, to, value);
    }
}

/// @notice Reverts on each transfer once told to.
contract Reverts is Mintable {
    bool public refuses;

    function refuse(bool on) external {
        refuses = on;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!refuses, "refused");
        super._update(from, to, value);
    }
}

/// @notice Returns nothing at all, as some old stablecoins do.
contract ReturnsNothing {
    mapping(address => uint256) public balanceOf;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address, uint256) external {}

    function transfer(address to, uint256 value) external {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
    }

    function transferFrom(address from, address to, uint256 value) external {
        balanceOf[from] -= value;
        balanceOf[to] += value;
    }
}

/// @notice Calls somebody back in the middle of each transfer.
contract Reentrant is Mintable {
    address public target;
    bytes public attack;
    bool public succeeded;
    bytes public answer;

    function arm(address target_, bytes calldata attack_) external {
        target = target_;
        attack = attack_;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (target != address(0)) (succeeded, answer) = target.call(attack);
    }
}
