// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Market} from "./Market.sol";

/// @notice An account that is a contract and signs whatever its owner's key signed.
contract SmartWallet is IERC1271 {
    address private immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (bytes32 r, bytes32 s, uint8 v) = abi.decode(signature, (bytes32, bytes32, uint8));
        return ecrecover(hash, v, r, s) == owner ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @notice A payer with stablecoin and no coin for gas: what it signs is sent by a stranger.
contract OrdersTest is Market {
    bytes32 private constant OPEN = keccak256(
        "Open(address payer,address signer,address provider,bytes32 modelId,uint96 salt,uint96 amount,uint256 deadline)"
    );
    bytes32 private constant CLOSE = keccak256("RequestClose(bytes32 channelId,uint256 nonce,uint256 deadline)");
    bytes32 private constant WITHDRAW =
        keccak256("Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)");
    bytes32 private constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    uint256 private immutable payerKey = uint256(keccak256("payer"));
    uint256 private deadline;

    struct Signed {
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    function setUp() public override {
        super.setUp();
        // No approval: all is by signature.
        vm.prank(payer);
        token.approve(address(escrow), 0);
        deadline = block.timestamp + 10 minutes;
        vm.startPrank(stranger);
    }

    // ---- deposit and open by one authorization -----------------------------------------------------------------

    function test_one_signature_funds_and_opens() public {
        Signed memory a = _authorize(payerKey, 5 * DOLLAR, _id(_params(0)));
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.DepositedAndOpened(
            payer, provider, modelId, bytes32(abi.encodePacked(signer, uint96(0))), 5 * DOLLAR
        );
        bytes32 id = escrow.depositAndOpenWithAuthorization(_params(0), 5 * DOLLAR, 0, deadline, a.v, a.r, a.s);
        eq(id, _id(_params(0)), "id");
        eq(escrow.channel(id).funded, 5 * DOLLAR, "funded");
        eq(token.balanceOf(payer), 995 * DOLLAR, "in hand");
        vm.stopPrank();
        eq(_redeem(_claim(0, DOLLAR)), DOLLAR, "and it pays");
    }

    function test_an_authorization_opens_its_own_channel_only() public {
        bytes32 id = _id(_params(0));
        Signed memory a = _authorize(payerKey, 5 * DOLLAR, id);
        IEscrow.ChannelParams memory other = _params(0);
        other.provider = stranger;
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        escrow.depositAndOpenWithAuthorization(other, 5 * DOLLAR, 0, deadline, a.v, a.r, a.s);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        escrow.depositAndOpenWithAuthorization(_params(0), 4 * DOLLAR, 0, deadline, a.v, a.r, a.s);
        // Nor can it be turned into a deposit, whatever salt is chosen: the nonce would be a hash of the salt.
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        escrow.depositWithAuthorization(payer, 5 * DOLLAR, 0, deadline, id, a.v, a.r, a.s);
        // Nor be taken to the token directly: only the escrow may present it.
        vm.expectRevert();
        token.receiveWithAuthorization(payer, address(escrow), 5 * DOLLAR, 0, deadline, id, a.v, a.r, a.s);
    }

    function test_an_authorization_opens_once() public {
        Signed memory a = _authorize(payerKey, 5 * DOLLAR, _id(_params(0)));
        escrow.depositAndOpenWithAuthorization(_params(0), 5 * DOLLAR, 0, deadline, a.v, a.r, a.s);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, _id(_params(0))));
        escrow.depositAndOpenWithAuthorization(_params(0), 5 * DOLLAR, 0, deadline, a.v, a.r, a.s);
    }

    /// @dev A channel that exists already keeps the payer's money where it is.
    function test_an_authorization_for_an_open_channel_takes_nothing() public {
        vm.stopPrank();
        vm.startPrank(payer);
        bytes32 id = escrow.open(signer, provider, modelId, 0, 0);
        Signed memory a = _authorize(payerKey, 5 * DOLLAR, id);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChannelExists.selector, id));
        escrow.depositAndOpenWithAuthorization(_params(0), 5 * DOLLAR, 0, deadline, a.v, a.r, a.s);
        eq(token.balanceOf(payer), 1_000 * DOLLAR, "in hand");
    }

    // ---- deposits ----------------------------------------------------------------------------------------------

    function test_deposit_with_an_authorization() public {
        bytes32 nonce = keccak256(abi.encode(keccak256("Deposit(address payer,bytes32 salt)"), payer, bytes32("salt")));
        Signed memory a = _authorize(payerKey, 5 * DOLLAR, nonce);
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Deposited(payer, 5 * DOLLAR);
        escrow.depositWithAuthorization(payer, 5 * DOLLAR, 0, deadline, "salt", a.v, a.r, a.s);
        eq(escrow.balanceOf(payer), 5 * DOLLAR, "credited to whoever signed");
        vm.expectRevert();
        escrow.depositWithAuthorization(payer, 5 * DOLLAR, 0, deadline, "salt", a.v, a.r, a.s);
    }

    function test_deposit_with_a_permit() public {
        Signed memory p = _permit(payerKey, 5 * DOLLAR);
        escrow.depositWithPermit(payer, 5 * DOLLAR, deadline, p.v, p.r, p.s);
        eq(escrow.balanceOf(payer), 5 * DOLLAR, "credited to whoever signed");
        vm.expectRevert(IEscrow.NotPayer.selector);
        escrow.depositWithPermit(payer, 5 * DOLLAR, deadline, p.v, p.r, p.s);
    }

    /// @dev Whoever sees a permit can spend it first; the payer goes on with its allowance, and nobody else can.
    function test_a_permit_that_was_spent_by_somebody_else() public {
        Signed memory p = _permit(payerKey, 5 * DOLLAR);
        token.permit(payer, address(escrow), 5 * DOLLAR, deadline, p.v, p.r, p.s);
        vm.expectRevert(IEscrow.NotPayer.selector);
        escrow.depositWithPermit(payer, 5 * DOLLAR, deadline, p.v, p.r, p.s);
        vm.stopPrank();
        vm.prank(payer);
        escrow.depositWithPermit(payer, 5 * DOLLAR, deadline, p.v, p.r, p.s);
        eq(escrow.balanceOf(payer), 5 * DOLLAR, "free balance");
    }

    /// @dev An allowance is not a wish to deposit.
    function test_nobody_deposits_for_a_payer_who_only_approved() public {
        vm.stopPrank();
        vm.prank(payer);
        token.approve(address(escrow), type(uint256).max);
        vm.prank(stranger);
        vm.expectRevert(IEscrow.NotPayer.selector);
        escrow.depositWithPermit(payer, 5 * DOLLAR, deadline, 27, "r", "s");
    }

    // ---- orders of the escrow ----------------------------------------------------------------------------------

    function test_open_with_a_signature() public {
        _deposit(10 * DOLLAR);
        bytes memory signature = _order(payerKey, abi.encode(OPEN, _params(3), 4 * DOLLAR, deadline));
        vm.expectEmit(true, true, true, true, address(escrow));
        emit IEscrow.Opened(payer, provider, modelId, bytes32(abi.encodePacked(signer, uint96(3))), 4 * DOLLAR);
        bytes32 id = escrow.openWithSig(_params(3), 4 * DOLLAR, signature, deadline);
        eq(id, _id(_params(3)), "id");
        eq(escrow.channel(id).funded, 4 * DOLLAR, "funded");
        eq(escrow.balanceOf(payer), 6 * DOLLAR, "left");
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ChannelExists.selector, id));
        escrow.openWithSig(_params(3), 4 * DOLLAR, signature, deadline);
        eq(escrow.balanceOf(payer), 6 * DOLLAR, "a signature opens once");
    }

    function test_an_open_by_signature_is_what_was_signed() public {
        _deposit(10 * DOLLAR);
        bytes memory signature = _order(payerKey, abi.encode(OPEN, _params(3), 4 * DOLLAR, deadline));
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.openWithSig(_params(3), 5 * DOLLAR, signature, deadline);
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.openWithSig(_params(4), 4 * DOLLAR, signature, deadline);
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.openWithSig(_params(3), 4 * DOLLAR, signature, deadline + 1);
        bytes memory others = _order(signerKey, abi.encode(OPEN, _params(3), 4 * DOLLAR, deadline));
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.openWithSig(_params(3), 4 * DOLLAR, others, deadline);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Expired.selector, deadline));
        escrow.openWithSig(_params(3), 4 * DOLLAR, signature, deadline);
        vm.warp(deadline);
        escrow.openWithSig(_params(3), 4 * DOLLAR, signature, deadline);
    }

    function test_an_open_by_signature_needs_the_balance() public {
        bytes memory signature = _order(payerKey, abi.encode(OPEN, _params(3), DOLLAR, deadline));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.InsufficientBalance.selector, 0, DOLLAR));
        escrow.openWithSig(_params(3), DOLLAR, signature, deadline);
    }

    function test_request_close_with_a_signature_once() public {
        bytes32 id = _opened(0);
        bytes memory signature = _order(payerKey, abi.encode(CLOSE, id, escrow.nonces(payer), deadline));
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.requestCloseWithSig(_params(0), signature, deadline - 1);
        escrow.requestCloseWithSig(_params(0), signature, deadline);
        eq(escrow.channel(id).closeAt, block.timestamp + CHALLENGE, "close time");
        vm.stopPrank();
        vm.prank(payer);
        _cancelClose(0);
        vm.prank(stranger);
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.requestCloseWithSig(_params(0), signature, deadline);
        eq(escrow.channel(id).closeAt, 0, "the old order does not come back");
    }

    function test_a_request_to_close_expires() public {
        bytes32 id = _opened(0);
        bytes memory signature = _order(payerKey, abi.encode(CLOSE, id, escrow.nonces(payer), deadline));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Expired.selector, deadline));
        escrow.requestCloseWithSig(_params(0), signature, deadline);
    }

    function test_withdraw_with_a_signature_once_and_to_the_payer() public {
        _deposit(10 * DOLLAR);
        bytes memory signature = _order(payerKey, abi.encode(WITHDRAW, payer, DOLLAR, escrow.nonces(payer), deadline));
        uint256 held = token.balanceOf(payer);
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.withdrawWithSig(payer, 2 * DOLLAR, signature, deadline);
        escrow.withdrawWithSig(payer, DOLLAR, signature, deadline);
        eq(token.balanceOf(payer), held + DOLLAR, "to the payer");
        eq(token.balanceOf(stranger), 0, "not to whoever sends it");
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.withdrawWithSig(payer, DOLLAR, signature, deadline);
        eq(escrow.balanceOf(payer), 9 * DOLLAR, "once");
    }

    /// @dev An order of another kind, another escrow or another chain is no order.
    function test_orders_are_bound_to_their_kind_escrow_and_chain() public {
        _deposit(10 * DOLLAR);
        bytes32 word = bytes32(uint256(uint160(payer)));
        bytes memory asClose = _order(payerKey, abi.encode(CLOSE, word, DOLLAR, uint256(0), deadline));
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.withdrawWithSig(payer, DOLLAR, asClose, deadline);
        bytes memory signature = _order(payerKey, abi.encode(WITHDRAW, payer, DOLLAR, uint256(0), deadline));
        vm.chainId(block.chainid + 1);
        vm.expectRevert(IEscrow.WrongSignature.selector);
        escrow.withdrawWithSig(payer, DOLLAR, signature, deadline);
    }

    function test_a_payer_may_be_a_contract() public {
        SmartWallet wallet = new SmartWallet(payer);
        vm.stopPrank();
        _fund(address(wallet), 10 * DOLLAR);
        vm.startPrank(address(wallet));
        escrow.deposit(10 * DOLLAR);
        vm.stopPrank();
        IEscrow.ChannelParams memory params = _params(0);
        params.payer = address(wallet);
        Signed memory o = _sign(payerKey, _typed(keccak256(abi.encode(OPEN, params, DOLLAR, deadline))));
        bytes32 id = escrow.openWithSig(params, DOLLAR, abi.encode(o.r, o.s, o.v), deadline);
        eq(escrow.channel(id).funded, DOLLAR, "funded");
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    function _deposit(uint96 amount) private {
        vm.stopPrank();
        vm.startPrank(payer);
        token.approve(address(escrow), amount);
        escrow.deposit(amount);
        vm.stopPrank();
        vm.startPrank(stranger);
    }

    function _opened(uint96 salt) private returns (bytes32 id) {
        _deposit(10 * DOLLAR);
        bytes memory signature = _order(payerKey, abi.encode(OPEN, _params(salt), DOLLAR, deadline));
        return escrow.openWithSig(_params(salt), DOLLAR, signature, deadline);
    }

    function _order(uint256 key, bytes memory encoded) private view returns (bytes memory) {
        Signed memory o = _sign(key, _typed(keccak256(encoded)));
        return abi.encodePacked(o.r, o.s, o.v);
    }

    function _typed(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), structHash));
    }

    function _authorize(uint256 key, uint256 amount, bytes32 nonce) private view returns (Signed memory) {
        bytes32 structHash =
            keccak256(abi.encode(RECEIVE, vm.addr(key), address(escrow), amount, uint256(0), deadline, nonce));
        return _sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }

    function _permit(uint256 key, uint256 amount) private view returns (Signed memory) {
        address owner = vm.addr(key);
        bytes32 structHash =
            keccak256(abi.encode(PERMIT, owner, address(escrow), amount, token.nonces(owner), deadline));
        return _sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (Signed memory signed) {
        (signed.v, signed.r, signed.s) = vm.sign(key, digest);
    }
}
