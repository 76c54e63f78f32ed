// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

/// @title A dollar for development
/// @notice Anybody mints any amount: worth nothing, and never deployed where money is real. It has what the market
/// expects of a stablecoin: six decimals, permits (ERC-2612) and transfers by authorization (ERC-3009).
contract TestDollar is ERC20, ERC20Permit, ERC3009 {
    constructor() ERC20("Rialto Test Dollar", "tUSD") ERC20Permit("Rialto Test Dollar") {}

    /// @notice The faucet: creates `amount` (in millionths of a dollar) for `to`.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice Six, as the stablecoins in use.
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
