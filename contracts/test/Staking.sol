// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Providers} from "../src/Providers.sol";
import {Receipt, Receipts} from "../src/Receipts.sol";
import {Market} from "./Market.sol";

/// @notice A market whose provider has stake, with a dispute contract and receipts to be signed.
abstract contract Staking is Market {
    uint40 internal constant WINDOW = 7 days;
    uint96 internal constant STAKE = 100 * DOLLAR;
    bytes32 internal constant NODE = keccak256("node");
    bytes8 internal constant REGION = "eu-west";
    bytes32 internal constant CASE = keccak256("case");

    uint256 internal immutable providerKey = uint256(keccak256("provider"));
    address internal immutable disputes = _account("disputes");
    address internal immutable recipient = _account("slash recipient");
    address internal immutable reporter = _account("reporter");

    Providers internal providers;

    function setUp() public virtual override {
        super.setUp();
        providers = _staked(_providers(IERC20(address(token))));
    }

    function _providers(IERC20 token_) internal returns (Providers) {
        return new Providers(token_, address(escrow), disputes, recipient, WINDOW);
    }

    /// @dev The provider registers at this registry with {STAKE}.
    function _staked(Providers registry) internal returns (Providers) {
        token.mint(provider, STAKE);
        vm.startPrank(provider);
        token.approve(address(registry), STAKE);
        registry.register(STAKE, NODE, REGION, 0);
        vm.stopPrank();
        return registry;
    }

    function _standing(Providers registry) internal view returns (uint96) {
        return registry.providerOf(provider).stake;
    }

    function _leaving(Providers registry) internal view returns (uint96 amount) {
        (amount,) = registry.unstakingOf(provider);
    }

    function _receipt(uint64 sequence, bytes32 responseHash) internal pure returns (Receipt memory receipt) {
        receipt.channelId = keccak256("channel");
        receipt.sequence = sequence;
        receipt.responseHash = responseHash;
        receipt.totalNano = 7;
    }

    /// @dev As the Rust side signs: r, s, v.
    function _signed(uint256 key, Receipt memory receipt) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, _digest(receipt));
        return abi.encodePacked(r, s, v);
    }

    function _digest(Receipt memory receipt) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), Receipts.structHash(receipt)));
    }

    /// @dev Proves that a key signed two receipts with number one.
    function _prove(Providers registry, uint256 key, address by) internal returns (uint96) {
        Receipt memory first = _receipt(1, "one answer");
        Receipt memory second = _receipt(1, "another");
        bytes memory signedFirst = _signed(key, first);
        bytes memory signedSecond = _signed(key, second);
        vm.prank(by);
        return registry.proveEquivocation(first, signedFirst, second, signedSecond);
    }

    function _slash(Providers registry, uint96 amount, bytes32 offence) internal returns (uint96) {
        vm.prank(disputes);
        return registry.slash(provider, amount, offence, reporter);
    }

    function _request(Providers registry, uint96 amount) internal {
        vm.prank(provider);
        registry.requestUnstake(amount);
    }
}
