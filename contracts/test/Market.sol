// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Escrow} from "../src/Escrow.sol";
import {Models} from "../src/Models.sol";
import {TestDollar} from "../src/TestDollar.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Test} from "./Test.sol";

/// @notice A market with one buyer, one provider and one model, and the few things tests do with it.
abstract contract Market is Test {
    uint16 internal constant FEE_BPS = 100;
    uint16 internal constant ROYALTY_BPS = 500;
    uint40 internal constant CHALLENGE = 1 days;
    uint96 internal constant DOLLAR = 1_000_000;

    /// @dev Half of the order of secp256k1, and the order itself.
    uint256 internal constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    address internal immutable payer = _account("payer");
    address internal immutable provider = _account("provider");
    address internal immutable publisher = _account("publisher");
    address internal immutable treasury = _account("treasury");
    address internal immutable guardian = _account("guardian");
    address internal immutable stranger = _account("stranger");
    uint256 internal immutable signerKey = uint256(keccak256("session key"));
    address internal immutable signer = vm.addr(uint256(keccak256("session key")));

    TestDollar internal token;
    Models internal models;
    Escrow internal escrow;
    bytes32 internal modelId;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        token = new TestDollar();
        models = new Models();
        escrow = _escrow(address(token));
        vm.prank(publisher);
        modelId = models.register(keccak256("manifest"), "Q8_0", "MIT", ROYALTY_BPS);
        _fund(payer, 1_000 * DOLLAR);
    }

    function _account(string memory name) internal pure returns (address) {
        return vm.addr(uint256(keccak256(bytes(name))));
    }

    function _escrow(address token_) internal returns (Escrow) {
        return new Escrow(IERC20(token_), models, guardian, treasury, FEE_BPS, CHALLENGE);
    }

    /// @dev Gives an account money and lets the escrow pull it.
    function _fund(address account, uint256 amount) internal {
        token.mint(account, amount);
        vm.prank(account);
        token.approve(address(escrow), type(uint256).max);
    }

    function _params(uint96 salt) internal view returns (IEscrow.ChannelParams memory) {
        return IEscrow.ChannelParams(payer, signer, provider, modelId, salt);
    }

    /// @dev Opens the payer's channel with this salt, pulling `amount`.
    function _open(uint96 salt, uint96 amount) internal returns (bytes32) {
        vm.prank(payer);
        return escrow.depositAndOpen(signer, provider, modelId, salt, amount);
    }

    /// @dev A claim on the channel with this salt for all of a voucher of `cumulative`.
    function _claim(uint96 salt, uint96 cumulative) internal view returns (bytes memory) {
        return _claim(_params(salt), signerKey, cumulative, cumulative);
    }

    function _claim(IEscrow.ChannelParams memory params, uint256 key, uint96 cumulative, uint96 amount)
        internal
        view
        returns (bytes memory)
    {
        return _claim(escrow, params, key, cumulative, amount);
    }

    function _claim(Escrow on, IEscrow.ChannelParams memory params, uint256 key, uint96 cumulative, uint96 amount)
        internal
        view
        returns (bytes memory)
    {
        bytes32 head = keccak256(abi.encode("head", cumulative));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, on.voucherHash(_idOn(on, params), cumulative, head));
        bytes memory terms = abi.encodePacked(params.payer, params.signer, params.salt, cumulative, amount);
        return abi.encodePacked(terms, head, r, _compact(v, s));
    }

    function _id(IEscrow.ChannelParams memory params) internal view returns (bytes32) {
        return _idOn(escrow, params);
    }

    function _idOn(Escrow on, IEscrow.ChannelParams memory params) internal view returns (bytes32) {
        return on.channelIdOf(params.payer, params.signer, params.provider, params.modelId, params.salt);
    }

    /// @dev The payer's functions on the channel with this salt; whoever is pranked calls.
    function _topUp(uint96 salt, uint96 amount) internal {
        escrow.topUp(signer, provider, modelId, salt, amount);
    }

    function _requestClose(uint96 salt) internal {
        escrow.requestClose(signer, provider, modelId, salt);
    }

    function _cancelClose(uint96 salt) internal {
        escrow.cancelClose(signer, provider, modelId, salt);
    }

    function _compact(uint8 v, bytes32 s) internal pure returns (bytes32) {
        return s | bytes32(uint256(v - 27) << 255);
    }

    /// @dev Claims as one group of the market's model.
    function _group(bytes memory claims) internal view returns (IEscrow.Group[] memory groups) {
        groups = new IEscrow.Group[](1);
        groups[0] = IEscrow.Group(modelId, claims);
    }

    /// @dev The provider redeems claims on channels of the market's model.
    function _redeem(bytes memory claims) internal returns (uint256) {
        IEscrow.Group[] memory groups = _group(claims);
        vm.prank(provider);
        return escrow.redeem(groups);
    }

    /// @dev The fees of the market's model.
    function _fees() internal view returns (uint256) {
        return escrow.feesOf(publisher);
    }

    function _redeemed(bytes32 channelId) internal view returns (uint256) {
        return escrow.channel(channelId).redeemed;
    }
}
