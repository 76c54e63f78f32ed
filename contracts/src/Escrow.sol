// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IModels} from "./interfaces/IModels.sol";
import {ChannelSlot, ChannelSlots} from "./ChannelSlot.sol";
import {Claims} from "./Claims.sol";
import {Credit} from "./Credit.sol";
import {Guarded} from "./Guarded.sol";
import {Orders} from "./Orders.sol";
import {Receipt, Receipts} from "./Receipts.sol";

/// @title Escrow of one stablecoin
/// @notice See {IEscrow} for what each function does, and SPEC.md for the flow of funds and the invariants.
contract Escrow is IEscrow, EIP712, Nonces, Guarded, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @dev The highest fee, in basis points.
    uint16 private constant MAX_FEE_BPS = 1_000;
    /// @dev The shortest challenge period: a provider must have time to see a request and redeem.
    uint40 private constant MIN_CHALLENGE_PERIOD = 15 minutes;
    /// @dev The longest challenge period; keeps every date within its 40 bits.
    uint40 private constant MAX_CHALLENGE_PERIOD = 30 days;

    IERC20 private immutable token;
    /// @dev The same as it is hashed: an address would be cleaned at each use.
    bytes32 private immutable tokenWord;
    IModels private immutable models;
    address private immutable feeRecipient;
    uint16 private immutable feeBps;
    uint40 private immutable challengePeriod;

    /// @dev Boxes of one slot, so that the place of a slot is computed once for reading and writing it.
    struct Purse {
        uint256 balance;
    }

    struct Share {
        Credit credit;
    }

    struct Box {
        ChannelSlot slot;
    }

    mapping(address payer => Purse) private _purses;
    mapping(address account => Share) private _shares;
    mapping(bytes32 channelId => Box) private _boxes;

    /// @param token_ stablecoin it holds; see SPEC.md for tokens that are not fit for it
    /// @param models_ registry of models
    /// @param guardian_ who may pause deposits and opens for a while; zero for nobody, ever
    /// @param feeRecipient_ who is credited the fee; may be zero only if there is no fee
    /// @param feeBps_ fee in basis points, at most {MAX_FEE_BPS}
    /// @param challengePeriod_ seconds, between {MIN_CHALLENGE_PERIOD} and {MAX_CHALLENGE_PERIOD}
    constructor(
        IERC20 token_,
        IModels models_,
        address guardian_,
        address feeRecipient_,
        uint16 feeBps_,
        uint40 challengePeriod_
    ) EIP712("Rialto", "1") Guarded(guardian_) {
        require(address(token_) != address(0) && address(models_) != address(0), ZeroAddress());
        require(feeRecipient_ != address(0) || feeBps_ == 0, ZeroAddress());
        require(feeBps_ <= MAX_FEE_BPS, FeeTooHigh(feeBps_));
        require(
            challengePeriod_ >= MIN_CHALLENGE_PERIOD && challengePeriod_ <= MAX_CHALLENGE_PERIOD,
            ChallengePeriodOutOfBounds(challengePeriod_)
        );
        token = token_;
        tokenWord = bytes32(uint256(uint160(address(token_))));
        models = models_;
        feeRecipient = feeRecipient_;
        feeBps = feeBps_;
        challengePeriod = challengePeriod_;
    }

    /// @dev Takes from the free balance first. A modifier, as {whenNotPaused} is, because the compiler writes it out in place.
    modifier debiting(address payer, uint256 amount) {
        Purse storage purse = _purses[payer];
        uint256 balance = purse.balance;
        if (amount > balance) revert InsufficientBalance(balance, amount);
        unchecked {
            purse.balance = balance - amount;
        }
        _;
    }

    /// @dev Gives an idle channel a time to close, then goes on. A modifier for the same reason.
    modifier closing(bytes32 channelId, address provider) {
        Box storage box = _boxes[channelId];
        ChannelSlot slot = box.slot;
        if (!slot.isIdle()) _refuse(channelId, slot);
        uint256 closeAt;
        unchecked {
            closeAt = block.timestamp + challengePeriod;
        }
        if (closeAt > type(uint40).max) revert DateOverflow();
        box.slot = slot.closingAt(closeAt);
        emit CloseRequested(channelId, provider, uint40(closeAt));
        _;
    }

    // ---- the payer's money -------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function deposit(uint96 amount) external whenNotPaused nonReentrant {
        _credit(msg.sender, _pull(msg.sender, amount));
    }

    /// @inheritdoc IEscrow
    function depositWithPermit(address payer, uint96 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        whenNotPaused
        nonReentrant
    {
        // Whoever sees a permit may spend it first. Then the allowance is there all the same, but nothing shows any more
        // that the payer wants this deposit, unless the payer itself asks for it.
        try IERC20Permit(address(token)).permit(payer, address(this), amount, deadline, v, r, s) {}
        catch {
            require(msg.sender == payer, NotPayer());
        }
        _credit(payer, _pull(payer, amount));
    }

    /// @inheritdoc IEscrow
    function depositWithAuthorization(
        address payer,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 salt,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external whenNotPaused nonReentrant {
        bytes32 nonce = Orders.depositNonce(payer, salt);
        _credit(payer, _receive(payer, amount, validAfter, validBefore, nonce, v, r, s));
    }

    /// @inheritdoc IEscrow
    function withdraw(uint96 amount) external nonReentrant {
        _withdraw(msg.sender, amount);
    }

    /// @inheritdoc IEscrow
    function withdrawWithSig(address payer, uint96 amount, bytes calldata signature, uint256 deadline)
        external
        nonReentrant
    {
        _requireSigned(payer, Orders.withdrawHash(payer, amount, _useNonce(payer), deadline), signature, deadline);
        _withdraw(payer, amount);
    }

    // ---- opening -----------------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function open(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        whenNotPaused
        debiting(msg.sender, amount)
        returns (bytes32 channelId)
    {
        // As {_ownChannelId} and {_open}, written out: a call inside costs gas, and this is what buyers call most.
        bytes32 token_ = tokenWord;
        uint256 funded;
        assembly ("memory-safe") {
            let preimage := mload(0x40)
            mstore(preimage, caller())
            calldatacopy(add(preimage, 32), 4, 96)
            mstore(add(preimage, 128), token_)
            mstore(add(preimage, 160), salt)
            channelId := keccak256(preimage, 192)
            funded := amount
        }
        Box storage box = _boxes[channelId];
        if (!box.slot.isNew()) revert ChannelExists(channelId);
        box.slot = ChannelSlots.opened(funded);
        emit Opened(msg.sender, provider, modelId, _signerAndSalt(signer, salt), amount);
    }

    /// @inheritdoc IEscrow
    function openWithSig(ChannelParams calldata params, uint96 amount, bytes calldata signature, uint256 deadline)
        external
        whenNotPaused
        debiting(params.payer, amount)
        returns (bytes32 channelId)
    {
        // No nonce: the channel's id can be opened only once.
        _requireSigned(params.payer, Orders.openHash(params, amount, deadline), signature, deadline);
        channelId = _channelId(params);
        _open(channelId, amount);
        bytes32 signerAndSalt = _signerAndSalt(params.signer, params.salt);
        emit Opened(params.payer, params.provider, params.modelId, signerAndSalt, amount);
    }

    /// @inheritdoc IEscrow
    function depositAndOpen(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        whenNotPaused
        nonReentrant
        returns (bytes32 channelId)
    {
        uint96 arrived = _pull(msg.sender, amount);
        channelId = _ownChannelId();
        _open(channelId, arrived);
        emit DepositedAndOpened(msg.sender, provider, modelId, _signerAndSalt(signer, salt), arrived);
    }

    /// @inheritdoc IEscrow
    function depositAndOpenWithAuthorization(
        ChannelParams calldata params,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external whenNotPaused nonReentrant returns (bytes32 channelId) {
        channelId = _channelId(params);
        uint96 arrived = _receive(params.payer, amount, validAfter, validBefore, channelId, v, r, s);
        _open(channelId, arrived);
        bytes32 signerAndSalt = _signerAndSalt(params.signer, params.salt);
        emit DepositedAndOpened(params.payer, params.provider, params.modelId, signerAndSalt, arrived);
    }

    /// @inheritdoc IEscrow
    function topUp(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        debiting(msg.sender, amount)
    {
        bytes32 channelId = _ownChannelId();
        Box storage box = _boxes[channelId];
        ChannelSlot slot = box.slot;
        if (!slot.isIdle()) _refuse(channelId, slot);
        uint256 funded = slot.funded() + amount;
        box.slot = slot.withFunded(funded.toUint96());
        emit ToppedUp(channelId, provider, amount, uint96(funded));
    }

    // ---- the provider's claims ---------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function redeem(Group[] calldata groups) external nonReentrant returns (uint256 paid) {
        Claims.prepare(address(token), _domainSeparatorV4());
        bytes memory entries = Claims.allocate(groups);
        uint256 cursor = Claims.begin(entries);
        uint256 shared;

        for (uint256 i; i < groups.length; ++i) {
            (uint256 groupPaid, uint256 groupShared, uint256 next) = _redeemGroup(groups[i], cursor);
            paid += groupPaid;
            shared += groupShared;
            cursor = next;
        }

        if (paid == 0) return 0;
        Claims.end(entries, cursor);
        uint256 toProvider = paid - shared;
        emit Redeemed(msg.sender, toProvider, entries);
        // Only a channel of one unit that is all royalty leaves the provider nothing; some tokens refuse to send zero.
        if (toProvider != 0) token.safeTransfer(msg.sender, toProvider);
    }

    /// @dev Books the claims of one group, credits what is not the provider's, and writes the event's bytes from `head` on.
    /// @return paid what its channels paid
    /// @return shared what of it is royalty and fee
    /// @return cursor where the next group is to be written; `head` if nothing was paid
    function _redeemGroup(Group calldata group, uint256 head)
        private
        returns (uint256 paid, uint256 shared, uint256 cursor)
    {
        Claims.requireWhole(group.claims.length);
        (address holder, uint256 royaltyBps) = models.royaltyOf(group.modelId);
        Claims.setGroup(msg.sender, group.modelId, royaltyBps, feeBps);
        cursor = head + Claims.GROUP_BYTES;
        {
            (uint256 claim, uint256 last) = Claims.bounds(group.claims);
            for (; claim != last; claim = Claims.next(claim)) {
                cursor = _redeemClaim(claim, cursor);
            }
        }
        uint256 royalty;
        uint256 fee;
        (paid, royalty, fee) = Claims.totals();
        if (paid == 0) return (0, 0, head);
        Claims.writeGroup(head, cursor, holder, royalty, fee);
        shared = royalty + fee;
        if (shared != 0) {
            Share storage share = _shares[holder == address(0) ? feeRecipient : holder];
            share.credit = share.credit.plus(royalty, fee);
        }
    }

    /// @dev Books one claim, if it can be paid, and writes it to the event's bytes.
    /// @return where to write what follows
    function _redeemClaim(uint256 claim, uint256 cursor) private returns (uint256) {
        bytes32 channelId = Claims.channelId(claim);
        Box storage box = _boxes[channelId];
        ChannelSlot slot = box.slot;
        uint256 from = slot.redeemed();
        uint256 to = Claims.target(claim);
        uint256 funded = slot.funded();
        if (to > funded) to = funded;
        // A channel that is closed, or was never opened, has nothing above what it has redeemed. The signature last: it
        // costs most, and a claim that pays nothing does not need it.
        if (to <= from) return cursor;
        if (!Claims.isSigned(claim, channelId)) return cursor;
        unchecked {
            box.slot = slot.plusRedeemed(to - from);
        }
        Claims.add(from, to);
        return Claims.writeChannel(cursor, channelId, to);
    }

    /// @inheritdoc IEscrow
    function claimCredit(address account) external nonReentrant returns (uint256 amount) {
        Share storage share = _shares[account];
        amount = share.credit.royalty();
        require(amount != 0, ZeroAmount());
        share.credit = share.credit.withoutRoyalty();
        emit CreditClaimed(account, amount);
        token.safeTransfer(account, amount);
    }

    /// @inheritdoc IEscrow
    function claimFees(address[] calldata holders) external nonReentrant returns (uint256 amount) {
        for (uint256 i; i < holders.length; ++i) {
            Share storage share = _shares[holders[i]];
            amount += share.credit.fee();
            share.credit = share.credit.withoutFee();
        }
        require(amount != 0, ZeroAmount());
        emit FeesClaimed(feeRecipient, amount, holders);
        token.safeTransfer(feeRecipient, amount);
    }

    // ---- closing -----------------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function closeByProvider(ChannelParams calldata params) external {
        require(msg.sender == params.provider, NotProvider());
        bytes32 channelId = _channelId(params);
        Box storage box = _boxes[channelId];
        ChannelSlot slot = box.slot;
        require(slot.isOpen(), ChannelNotOpen(channelId));
        _close(params, channelId, box, slot);
    }

    /// @inheritdoc IEscrow
    function requestClose(address signer, address provider, bytes32 modelId, uint96 salt)
        external
        closing(_ownChannelId(), provider)
    {}

    /// @inheritdoc IEscrow
    function requestCloseWithSig(ChannelParams calldata params, bytes calldata signature, uint256 deadline)
        external
        closing(_channelId(params), params.provider)
    {
        bytes32 order = Orders.requestCloseHash(_channelId(params), _useNonce(params.payer), deadline);
        _requireSigned(params.payer, order, signature, deadline);
    }

    /// @inheritdoc IEscrow
    function cancelClose(address signer, address provider, bytes32 modelId, uint96 salt) external {
        bytes32 channelId = _ownChannelId();
        (Box storage box, ChannelSlot slot) = _closing(channelId);
        box.slot = slot.idle();
        emit CloseCancelled(channelId, provider);
    }

    /// @inheritdoc IEscrow
    function finalizeClose(ChannelParams calldata params) external {
        bytes32 channelId = _channelId(params);
        (Box storage box, ChannelSlot slot) = _closing(channelId);
        if (block.timestamp < slot.closeAt()) revert TooEarly(uint40(slot.closeAt()));
        _close(params, channelId, box, slot);
    }

    // ---- views -------------------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function terms() external view returns (Terms memory) {
        return Terms(address(token), address(models), guardian, feeRecipient, feeBps, challengePeriod);
    }

    /// @inheritdoc IEscrow
    function channel(bytes32 channelId) external view returns (Channel memory) {
        ChannelSlot slot = _boxes[channelId].slot;
        return Channel(uint96(slot.funded()), uint96(slot.redeemed()), uint40(slot.closeAt()), slot.flags());
    }

    /// @inheritdoc IEscrow
    function channelIdOf(address payer, address signer, address provider, bytes32 modelId, uint96 salt)
        external
        view
        returns (bytes32)
    {
        return _channelId(payer, signer, provider, modelId, salt);
    }

    /// @inheritdoc IEscrow
    function balanceOf(address payer) external view returns (uint256) {
        return _purses[payer].balance;
    }

    /// @inheritdoc IEscrow
    function creditOf(address account) external view returns (uint256) {
        return _shares[account].credit.royalty();
    }

    /// @inheritdoc IEscrow
    function feesOf(address holder) external view returns (uint256) {
        return _shares[holder].credit.fee();
    }

    /// @inheritdoc IEscrow
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IEscrow
    function voucherHash(bytes32 channelId, uint96 cumulative, bytes32 receiptsHead) external view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(Claims.VOUCHER_TYPEHASH, channelId, cumulative, receiptsHead)));
    }

    /// @inheritdoc IEscrow
    function receiptStructHash(Receipt calldata receipt) external pure returns (bytes32) {
        return Receipts.structHash(receipt);
    }

    /// @inheritdoc IEscrow
    function receiptHash(Receipt calldata receipt) external view returns (bytes32) {
        return _hashTypedDataV4(Receipts.structHash(receipt));
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    function _open(bytes32 channelId, uint96 amount) private {
        Box storage box = _boxes[channelId];
        // Flags stay after a close, so yesterday's voucher never meets a new channel of the same id.
        if (!box.slot.isNew()) revert ChannelExists(channelId);
        box.slot = ChannelSlots.opened(amount);
    }

    /// @dev Why a channel that is not idle cannot be topped up, or asked to close once more.
    function _refuse(bytes32 channelId, ChannelSlot slot) private pure {
        require(slot.isOpen(), ChannelNotOpen(channelId));
        revert CloseAlreadyRequested(uint40(slot.closeAt()));
    }

    function _close(ChannelParams calldata params, bytes32 channelId, Box storage box, ChannelSlot slot) private {
        uint256 remainder;
        // Invariant 2: no more than `funded` is ever redeemed. And all balances together are money that the escrow holds.
        unchecked {
            remainder = slot.funded() - slot.redeemed();
            if (remainder != 0) _purses[params.payer].balance += remainder;
        }
        box.slot = slot.closed();
        emit Closed(channelId, params.payer, params.provider, uint96(remainder));
    }

    function _closing(bytes32 channelId) private view returns (Box storage box, ChannelSlot slot) {
        box = _boxes[channelId];
        slot = box.slot;
        // Only an open channel has a time to close.
        if (slot.closeAt() == 0) {
            require(slot.isOpen(), ChannelNotOpen(channelId));
            revert CloseNotRequested();
        }
    }

    /// @dev `keccak256(abi.encode(payer, signer, provider, modelId, token, salt))`, with no memory kept.
    function _channelId(address payer, address signer, address provider, bytes32 modelId, uint96 salt)
        private
        view
        returns (bytes32 id)
    {
        bytes32 token_ = tokenWord;
        assembly ("memory-safe") {
            let preimage := mload(0x40)
            mstore(preimage, payer)
            mstore(add(preimage, 32), signer)
            mstore(add(preimage, 64), provider)
            mstore(add(preimage, 96), modelId)
            mstore(add(preimage, 128), token_)
            mstore(add(preimage, 160), salt)
            id := keccak256(preimage, 192)
        }
    }

    function _signerAndSalt(address signer, uint96 salt) private pure returns (bytes32) {
        uint256 packed;
        assembly ("memory-safe") {
            packed := or(shl(96, signer), salt)
        }
        return bytes32(packed);
    }

    /// @dev The same for a function of a payer, whose first four parameters are all in one piece in calldata: signer,
    /// provider, modelId and salt. Solidity has checked by then that none has bits beyond its type.
    function _ownChannelId() private view returns (bytes32 id) {
        bytes32 token_ = tokenWord;
        assembly ("memory-safe") {
            let preimage := mload(0x40)
            mstore(preimage, caller())
            calldatacopy(add(preimage, 32), 4, 96)
            mstore(add(preimage, 128), token_)
            mstore(add(preimage, 160), calldataload(100))
            id := keccak256(preimage, 192)
        }
    }

    /// @dev The same for a channel's parts in calldata, whose first four are those of the preimage. Bits beyond a part's type
    /// are hashed too, and make an id that no channel has.
    function _channelId(ChannelParams calldata params) private view returns (bytes32 id) {
        bytes32 token_ = tokenWord;
        assembly ("memory-safe") {
            let preimage := mload(0x40)
            calldatacopy(preimage, params, 128)
            mstore(add(preimage, 128), token_)
            mstore(add(preimage, 160), calldataload(add(params, 128)))
            id := keccak256(preimage, 192)
        }
    }

    function _credit(address payer, uint96 arrived) private {
        _purses[payer].balance += arrived;
        emit Deposited(payer, arrived);
    }

    function _withdraw(address payer, uint96 amount) private debiting(payer, amount) {
        require(amount != 0, ZeroAmount());
        emit Withdrawn(payer, amount);
        token.safeTransfer(payer, amount);
    }

    /// @dev Counts what arrived, not what was sent: a token may keep a fee.
    function _pull(address payer, uint96 amount) private returns (uint96) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(payer, address(this), amount);
        return _arrived(before);
    }

    /// @dev As {_pull}, by the payer's signature for the token (ERC-3009).
    function _receive(
        address payer,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) private returns (uint96) {
        uint256 before = token.balanceOf(address(this));
        IERC3009(address(token))
            .receiveWithAuthorization(payer, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        return _arrived(before);
    }

    function _arrived(uint256 before) private view returns (uint96 arrived) {
        arrived = (token.balanceOf(address(this)) - before).toUint96();
        require(arrived != 0, ZeroAmount());
    }

    function _requireSigned(address payer, bytes32 structHash, bytes calldata signature, uint256 deadline)
        private
        view
    {
        require(block.timestamp <= deadline, Expired(deadline));
        require(
            SignatureChecker.isValidSignatureNowCalldata(payer, _hashTypedDataV4(structHash), signature),
            WrongSignature()
        );
    }
}
