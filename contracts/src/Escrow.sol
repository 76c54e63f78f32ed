// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IModels} from "./interfaces/IModels.sol";
import {ChannelSlot, ChannelSlots} from "./ChannelSlot.sol";
import {Claims} from "./Claims.sol";
import {Receipt, Receipts} from "./Receipts.sol";

/// @title Escrow of one stablecoin
/// @notice See {IEscrow} for what each function does, and SPEC.md for the flow of funds and the invariants.
contract Escrow is IEscrow, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice The highest fee, in basis points.
    uint16 public constant MAX_FEE_BPS = 1_000;
    /// @notice The shortest challenge period: a provider must have time to see a request and redeem.
    uint40 public constant MIN_CHALLENGE_PERIOD = 15 minutes;
    /// @notice The longest challenge period; keeps every date within its 40 bits.
    uint40 public constant MAX_CHALLENGE_PERIOD = 30 days;

    uint256 private constant BPS = 10_000;

    /// @notice The stablecoin it holds.
    IERC20 public immutable token;
    /// @notice Where models and their royalties are registered.
    IModels public immutable models;
    /// @notice Who is credited the protocol fee.
    address public immutable feeRecipient;
    /// @notice Protocol fee in basis points of what a buyer pays.
    uint16 public immutable feeBps;
    /// @notice Seconds between a payer's request to close and the close.
    uint40 public immutable challengePeriod;

    mapping(address payer => uint256) private _balances;
    mapping(address account => uint256) private _credits;
    mapping(bytes32 channelId => ChannelSlot) private _channels;

    /// @dev What one call to {redeem} has gathered so far.
    struct Totals {
        uint256 paid;
        uint256 royalty;
        uint256 fee;
    }

    /// @param token_ stablecoin it holds; see SPEC.md for tokens that are not fit for it
    /// @param models_ registry of models
    /// @param feeRecipient_ who is credited the fee; may be zero only if there is no fee
    /// @param feeBps_ fee in basis points, at most {MAX_FEE_BPS}
    /// @param challengePeriod_ seconds, between {MIN_CHALLENGE_PERIOD} and {MAX_CHALLENGE_PERIOD}
    constructor(IERC20 token_, IModels models_, address feeRecipient_, uint16 feeBps_, uint40 challengePeriod_)
        EIP712("Rialto", "1")
    {
        require(address(token_) != address(0) && address(models_) != address(0), ZeroAddress());
        require(feeRecipient_ != address(0) || feeBps_ == 0, ZeroAddress());
        require(feeBps_ <= MAX_FEE_BPS, FeeTooHigh(feeBps_));
        require(
            challengePeriod_ >= MIN_CHALLENGE_PERIOD && challengePeriod_ <= MAX_CHALLENGE_PERIOD,
            ChallengePeriodOutOfBounds(challengePeriod_)
        );
        token = token_;
        models = models_;
        feeRecipient = feeRecipient_;
        feeBps = feeBps_;
        challengePeriod = challengePeriod_;
    }

    // ---- the payer's money -------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function deposit(uint96 amount) external nonReentrant {
        uint96 arrived = _pull(amount);
        _balances[msg.sender] += arrived;
        emit Deposited(msg.sender, arrived);
    }

    /// @inheritdoc IEscrow
    function withdraw(uint96 amount) external nonReentrant {
        require(amount != 0, ZeroAmount());
        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IEscrow
    function open(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        returns (bytes32 channelId)
    {
        require(amount != 0, ZeroAmount());
        _debit(msg.sender, amount);
        return _open(signer, provider, modelId, salt, amount, true);
    }

    /// @inheritdoc IEscrow
    function depositAndOpen(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        nonReentrant
        returns (bytes32 channelId)
    {
        return _open(signer, provider, modelId, salt, _pull(amount), false);
    }

    /// @inheritdoc IEscrow
    function topUp(ChannelParams calldata params, uint96 amount) external {
        require(msg.sender == params.payer, NotPayer());
        require(amount != 0, ZeroAmount());
        (bytes32 channelId, ChannelSlot slot) = _openChannel(params);
        require(slot.closeAt() == 0, CloseAlreadyRequested(slot.closeAt()));
        _debit(msg.sender, amount);
        uint96 funded = slot.funded() + amount;
        _channels[channelId] = ChannelSlots.open(funded, slot.redeemed());
        emit ToppedUp(channelId, params.provider, amount, funded);
    }

    // ---- the provider's claims ---------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function redeem(Group[] calldata groups) external nonReentrant returns (uint256 paid) {
        Totals memory totals;
        bytes memory paidChannels = Claims.allocate(groups);
        bytes memory royalties = new bytes(groups.length * Claims.CREDIT_BYTES);
        uint256 scratch = Claims.scratch(address(token), _domainSeparatorV4());
        uint256 channelsLength;
        uint256 royaltiesLength;

        for (uint256 i; i < groups.length; ++i) {
            (address holder, uint256 royalty, uint256 length) =
                _redeemGroup(groups[i], scratch, totals, paidChannels, channelsLength);
            channelsLength = length;
            if (royalty != 0) {
                _credits[holder] += royalty;
                Claims.writeCredit(royalties, royaltiesLength, holder, royalty);
                royaltiesLength += Claims.CREDIT_BYTES;
            }
        }

        paid = totals.paid;
        if (paid == 0) return 0;
        Claims.shrink(paidChannels, channelsLength);
        Claims.shrink(royalties, royaltiesLength);
        if (totals.fee != 0) _credits[feeRecipient] += totals.fee;
        uint256 toProvider = paid - totals.royalty - totals.fee;
        emit Redeemed(msg.sender, toProvider, totals.royalty, totals.fee, paidChannels, royalties);
        // Only a channel of one unit that is all royalty leaves the provider nothing; some tokens refuse to send zero.
        if (toProvider != 0) token.safeTransfer(msg.sender, toProvider);
    }

    /// @dev Books the claims of one group; adds to `totals` and writes each channel paid to `paidChannels`.
    /// @return holder whom the group's royalty belongs to
    /// @return royalty the group's royalty, not yet credited
    /// @return length of `paidChannels` afterwards
    function _redeemGroup(
        Group calldata group,
        uint256 scratch,
        Totals memory totals,
        bytes memory paidChannels,
        uint256 length
    ) private returns (address holder, uint256 royalty, uint256) {
        Claims.requireWhole(group.claims.length);
        uint16 royaltyBps;
        (holder, royaltyBps) = models.royaltyOf(group.modelId);
        Claims.setGroup(scratch, msg.sender, group.modelId);
        uint256 claim = Claims.first(group.claims);
        uint256 end = claim + group.claims.length;
        for (; claim < end; claim += Claims.CLAIM_BYTES) {
            (bytes32 channelId, uint256 from, uint256 to) = _redeemClaim(claim, scratch);
            if (to == 0) continue;
            (uint256 royaltyPart, uint256 feePart) = _split(from, to, royaltyBps);
            royalty += royaltyPart;
            totals.fee += feePart;
            totals.paid += to - from;
            Claims.writeChannel(paidChannels, length, channelId, to);
            length += Claims.CHANNEL_BYTES;
        }
        totals.royalty += royalty;
        return (holder, royalty, length);
    }

    /// @dev Books one claim. A claim that cannot be paid changes nothing and returns `to` of zero.
    /// @return channelId the claim's channel
    /// @return from what the channel had redeemed before
    /// @return to what it has redeemed now
    function _redeemClaim(uint256 claim, uint256 scratch)
        private
        returns (bytes32 channelId, uint256 from, uint256 to)
    {
        channelId = Claims.channelId(claim, scratch);
        ChannelSlot slot = _channels[channelId];
        if (!slot.isOpen()) return (channelId, 0, 0);

        (uint96 cumulative, uint96 amount) = Claims.amounts(claim);
        if (amount > cumulative) return (channelId, 0, 0);
        uint96 funded = slot.funded();
        uint96 target = amount < funded ? amount : funded;
        uint96 redeemed = slot.redeemed();
        if (target <= redeemed) return (channelId, 0, 0);
        // The signature last: it costs most, and a claim that pays nothing does not need it.
        if (!Claims.isSigned(claim, scratch, channelId)) return (channelId, 0, 0);

        _channels[channelId] = slot.withRedeemed(target);
        return (channelId, redeemed, target);
    }

    /// @dev The royalty and fee of what a channel pays between two running totals.
    ///
    /// Each part is the difference of a function of the channel's running total, so that batching changes no total
    /// (invariant 7). Each of the three functions (fee of the total, royalty of what the fee leaves, the rest) grows by
    /// 0 or 1 when the total grows by 1, so no part is ever negative (invariant 5).
    function _split(uint256 from, uint256 to, uint256 royaltyBps) private view returns (uint256 royalty, uint256 fee) {
        uint256 bps = feeBps;
        // Totals have 96 bits and rates 14; MAX_FEE_BPS keeps the divisor above zero.
        unchecked {
            uint256 feeFrom = from * bps / BPS;
            uint256 feeTo = to * bps / BPS;
            fee = feeTo - feeFrom;
            royalty = (to - feeTo) * royaltyBps / (BPS - bps) - (from - feeFrom) * royaltyBps / (BPS - bps);
        }
    }

    /// @inheritdoc IEscrow
    function claimCredit() external nonReentrant returns (uint256 amount) {
        amount = _credits[msg.sender];
        require(amount != 0, ZeroAmount());
        _credits[msg.sender] = 0;
        emit CreditClaimed(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // ---- closing -----------------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function closeByProvider(ChannelParams calldata params) external {
        require(msg.sender == params.provider, NotProvider());
        (bytes32 channelId, ChannelSlot slot) = _openChannel(params);
        _close(params, channelId, slot);
    }

    /// @inheritdoc IEscrow
    function requestClose(ChannelParams calldata params) external {
        require(msg.sender == params.payer, NotPayer());
        (bytes32 channelId, ChannelSlot slot) = _openChannel(params);
        require(slot.closeAt() == 0, CloseAlreadyRequested(slot.closeAt()));
        uint40 closeAt = (block.timestamp + challengePeriod).toUint40();
        _channels[channelId] = slot.withCloseAt(closeAt);
        emit CloseRequested(channelId, params.provider, closeAt);
    }

    /// @inheritdoc IEscrow
    function cancelClose(ChannelParams calldata params) external {
        require(msg.sender == params.payer, NotPayer());
        (bytes32 channelId, ChannelSlot slot) = _openChannel(params);
        require(slot.closeAt() != 0, CloseNotRequested());
        _channels[channelId] = slot.withCloseAt(0);
        emit CloseCancelled(channelId, params.provider);
    }

    /// @inheritdoc IEscrow
    function finalizeClose(ChannelParams calldata params) external {
        (bytes32 channelId, ChannelSlot slot) = _openChannel(params);
        uint40 closeAt = slot.closeAt();
        require(closeAt != 0, CloseNotRequested());
        require(block.timestamp >= closeAt, TooEarly(closeAt));
        _close(params, channelId, slot);
    }

    // ---- views -------------------------------------------------------------------------------------------------

    /// @inheritdoc IEscrow
    function channel(bytes32 channelId) external view returns (Channel memory) {
        ChannelSlot slot = _channels[channelId];
        return Channel(slot.funded(), slot.redeemed(), slot.closeAt(), slot.flags());
    }

    /// @inheritdoc IEscrow
    function channelIdOf(ChannelParams calldata params) external view returns (bytes32) {
        return _channelId(params);
    }

    /// @inheritdoc IEscrow
    function balanceOf(address payer) external view returns (uint256) {
        return _balances[payer];
    }

    /// @inheritdoc IEscrow
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
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

    function _open(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount, bool fromBalance)
        private
        returns (bytes32 channelId)
    {
        require(signer != address(0) && provider != address(0), ZeroAddress());
        require(models.exists(modelId), UnknownModel(modelId));
        channelId = keccak256(abi.encode(msg.sender, signer, provider, modelId, address(token), salt));
        // Flags stay after a close, so yesterday's voucher never meets a new channel of the same id.
        require(_channels[channelId].flags() == 0, ChannelExists(channelId));
        _channels[channelId] = ChannelSlots.open(amount, 0);
        emit Opened(channelId, msg.sender, provider, signer, modelId, salt, amount, fromBalance);
    }

    function _close(ChannelParams calldata params, bytes32 channelId, ChannelSlot slot) private {
        uint96 redeemed = slot.redeemed();
        uint96 remainder = slot.funded() - redeemed;
        _channels[channelId] = ChannelSlots.closed(redeemed);
        if (remainder != 0) _balances[params.payer] += remainder;
        emit Closed(channelId, params.payer, params.provider, remainder);
    }

    function _openChannel(ChannelParams calldata params) private view returns (bytes32 id, ChannelSlot slot) {
        id = _channelId(params);
        slot = _channels[id];
        require(slot.isOpen(), ChannelNotOpen(id));
    }

    function _channelId(ChannelParams calldata params) private view returns (bytes32) {
        return keccak256(
            abi.encode(params.payer, params.signer, params.provider, params.modelId, address(token), params.salt)
        );
    }

    function _debit(address payer, uint96 amount) private {
        uint256 balance = _balances[payer];
        require(amount <= balance, InsufficientBalance(balance, amount));
        unchecked {
            _balances[payer] = balance - amount;
        }
    }

    /// @dev Counts what arrived, not what was sent: a token may keep a fee.
    function _pull(uint96 amount) private returns (uint96 arrived) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        arrived = (token.balanceOf(address(this)) - before).toUint96();
        require(arrived != 0, ZeroAmount());
    }
}
