// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Receipt} from "../Receipts.sol";

/// @title The escrow: holds buyers' money in channels and splits it by signed vouchers
/// @notice One escrow per stablecoin. It has no owner and cannot be upgraded: money moves only by a voucher of the
/// channel's session key, or by the payer's own withdrawal or close. All amounts are in the token's smallest unit.
///
/// The number of an invariant, as in "invariant 3", refers to SPEC.md.
interface IEscrow {
    /// @notice What a channel is made of; its id is the hash of this and of the token. See {channelIdOf}.
    /// @param payer account whose money it holds
    /// @param signer session key that signs vouchers; an externally owned key
    /// @param provider the only account that can redeem from it
    /// @param modelId model it pays for, and so whose royalty it owes
    /// @param salt free choice of the payer, to open several channels between the same parties
    struct ChannelParams {
        address payer;
        address signer;
        address provider;
        bytes32 modelId;
        uint96 salt;
    }

    /// @notice A channel's state, one storage slot.
    /// @param funded all that was ever put in; on closing it falls to `redeemed`
    /// @param redeemed all that was ever paid out by vouchers; never falls
    /// @param closeAt time from which a requested close may be finalised, zero if none was requested
    /// @param flags 0 never opened, 1 open, 3 closed; a closed channel stays closed for ever
    struct Channel {
        uint96 funded;
        uint96 redeemed;
        uint40 closeAt;
        uint24 flags;
    }

    /// @notice What was decided for ever when the escrow was created.
    /// @param token the stablecoin it holds
    /// @param models where models and their royalties are registered
    /// @param guardian who may pause deposits and opens for a while; zero for nobody, ever
    /// @param feeRecipient who is credited the protocol's fee
    /// @param feeBps the fee in basis points of what a buyer pays
    /// @param challengePeriod seconds between a payer's request to close and the close
    struct Terms {
        address token;
        address models;
        address guardian;
        address feeRecipient;
        uint16 feeBps;
        uint40 challengePeriod;
    }

    /// @notice Claims of one provider on channels of one model.
    /// @param modelId the model that all these channels are for
    /// @param claims packed claims of 172 bytes each: payer (20), signer (20), salt (12), cumulative (12), amount (12),
    /// receiptsHead (32), r (32), vs (32); the last two are the voucher's signature as in EIP-2098
    struct Group {
        bytes32 modelId;
        bytes claims;
    }

    /// @notice A payer's free balance grew by `amount`, pulled from its account.
    event Deposited(address indexed payer, uint256 amount);
    /// @notice A payer took `amount` out of its free balance.
    event Withdrawn(address indexed payer, uint256 amount);
    /// @notice A channel was opened with `amount` of the payer's free balance. Its id is {channelIdOf} its parts.
    /// @param signerAndSalt the session key (20 bytes) and the salt (12)
    event Opened(
        address indexed payer, address indexed provider, bytes32 modelId, bytes32 signerAndSalt, uint96 amount
    );
    /// @notice A channel was opened with `amount` pulled from the payer's account. Its id is {channelIdOf} its parts.
    /// @param signerAndSalt the session key (20 bytes) and the salt (12)
    event DepositedAndOpened(
        address indexed payer, address indexed provider, bytes32 modelId, bytes32 signerAndSalt, uint96 amount
    );
    /// @notice `amount` went from the payer's free balance into a channel, which now has `funded`.
    event ToppedUp(bytes32 indexed channelId, address indexed provider, uint96 amount, uint96 funded);
    /// @notice A provider was paid.
    /// @param provider who redeemed
    /// @param providerAmount what it received
    /// @param groups packed, for each group that paid: who holds the model (20), the royalty credited to it (12), the
    /// fee credited beside it (12), number of channels (4), and for each of these its id (32) and its new `redeemed` (12)
    event Redeemed(address indexed provider, uint256 providerAmount, bytes groups);
    /// @notice A payer asked to close a channel; the provider has until `closeAt` to redeem what it holds.
    event CloseRequested(bytes32 indexed channelId, address indexed provider, uint40 closeAt);
    /// @notice A payer took back its request to close.
    event CloseCancelled(bytes32 indexed channelId, address indexed provider);
    /// @notice A channel was closed, and `remainder` returned to the payer's free balance.
    event Closed(bytes32 indexed channelId, address indexed payer, address indexed provider, uint96 remainder);
    /// @notice An account took out its credit.
    event CreditClaimed(address indexed account, uint256 amount);
    /// @notice The fee recipient was sent the fees that were credited beside these accounts.
    event FeesClaimed(address indexed feeRecipient, uint256 amount, address[] holders);

    /// @notice An amount was zero, or nothing of it arrived.
    error ZeroAmount();
    /// @notice A party of the channel, or the fee recipient, was the zero address.
    error ZeroAddress();
    /// @notice The free balance is lower than what was asked.
    error InsufficientBalance(uint256 balance, uint256 asked);
    /// @notice This id was opened before; it cannot be opened again, even after closing. Choose another salt.
    error ChannelExists(bytes32 channelId);
    /// @notice The channel was never opened, or is closed.
    error ChannelNotOpen(bytes32 channelId);
    /// @notice A close was requested already.
    error CloseAlreadyRequested(uint40 closeAt);
    /// @notice No close was requested.
    error CloseNotRequested();
    /// @notice The challenge period has not passed.
    error TooEarly(uint40 closeAt);
    /// @notice The date is beyond the 40 bits it is kept in.
    error DateOverflow();
    /// @notice Only the channel's payer may do this.
    error NotPayer();
    /// @notice Only the channel's provider may do this.
    error NotProvider();
    /// @notice What was signed is too old.
    error Expired(uint256 deadline);
    /// @notice The signature is not the payer's over this.
    error WrongSignature();
    /// @notice The bytes of a group are not a whole number of claims.
    error MalformedClaims(uint256 length);
    /// @notice The compiler laid out memory in a way that this code was not written for; no call can cause it.
    error OutOfScratch();
    /// @notice The constructor's fee is above the maximum.
    error FeeTooHigh(uint16 feeBps);
    /// @notice The constructor's challenge period is out of bounds.
    error ChallengePeriodOutOfBounds(uint40 challengePeriod);

    /// @notice Adds to the caller's free balance; `amount` must be approved. Credits what arrived.
    function deposit(uint96 amount) external;

    /// @notice As {deposit}, for a payer that signed a permit (ERC-2612); anybody may send it.
    /// @dev When the permit is refused (somebody spent it before) the payer itself can still use its allowance.
    function depositWithPermit(address payer, uint96 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice As {deposit}, for a payer that signed an authorization of the token (ERC-3009); anybody may send it.
    /// @dev The authorization is a `ReceiveWithAuthorization` to this escrow whose nonce is
    /// `keccak256(abi.encode(keccak256("Deposit(address payer,bytes32 salt)"), payer, salt))`.
    function depositWithAuthorization(
        address payer,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 salt,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Opens a channel of the caller's with `amount` of its free balance.
    /// @return channelId see {channelIdOf}
    function open(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        returns (bytes32 channelId);

    /// @notice As {open}, for a payer that signed
    /// `Open(address payer,address signer,address provider,bytes32 modelId,uint96 salt,uint96 amount,uint256 deadline)` in
    /// the escrow's domain; anybody may send it, once.
    /// @return channelId see {channelIdOf}
    function openWithSig(ChannelParams calldata params, uint96 amount, bytes calldata signature, uint256 deadline)
        external
        returns (bytes32 channelId);

    /// @notice Pulls `amount` from the caller and opens a channel with what arrived, in one call.
    /// @return channelId see {channelIdOf}
    function depositAndOpen(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount)
        external
        returns (bytes32 channelId);

    /// @notice As {depositAndOpen}, by one signature: the payer's authorization of the token (ERC-3009), a
    /// `ReceiveWithAuthorization` to this escrow whose nonce is the channel's id. Anybody may send it; it opens this
    /// channel and can do nothing else.
    /// @return channelId see {channelIdOf}
    function depositAndOpenWithAuthorization(
        ChannelParams calldata params,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bytes32 channelId);

    /// @notice Moves `amount` of the caller's free balance into an open channel of its own. Not while a close is requested.
    function topUp(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount) external;

    /// @notice Pays the caller for vouchers of many channels: one transfer, one event.
    /// @dev A claim pays what `min(amount, funded)` exceeds `redeemed` by. A claim on a channel of another provider, on a
    /// closed or unknown one, with `amount` above `cumulative`, with a signature that is not the session key's, or that
    /// would pay nothing, is skipped: it never reverts the batch. Reverts only for {MalformedClaims} or a failed transfer.
    /// A model that is not registered earns no royalty.
    /// @return paid what was taken from channels in all; zero if every claim was skipped, and then there is no event
    function redeem(Group[] calldata groups) external returns (uint256 paid);

    /// @notice Closes a channel at once, by its provider; the remainder returns to the payer's free balance.
    function closeByProvider(ChannelParams calldata params) external;

    /// @notice Announces that a channel of the caller's shall close after the challenge period.
    function requestClose(address signer, address provider, bytes32 modelId, uint96 salt) external;

    /// @notice As {requestClose}, for a payer that signed `RequestClose(bytes32 channelId,uint256 nonce,uint256 deadline)`
    /// with its next nonce; anybody may send it.
    function requestCloseWithSig(ChannelParams calldata params, bytes calldata signature, uint256 deadline) external;

    /// @notice Takes back the caller's request to close.
    function cancelClose(address signer, address provider, bytes32 modelId, uint96 salt) external;

    /// @notice Closes a channel once the challenge period has passed; anybody may call.
    function finalizeClose(ChannelParams calldata params) external;

    /// @notice Takes `amount` out of the caller's free balance.
    function withdraw(uint96 amount) external;

    /// @notice As {withdraw}, for a payer that signed
    /// `Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)` with its next nonce; anybody may send it, and
    /// the payer receives the money.
    function withdrawWithSig(address payer, uint96 amount, bytes calldata signature, uint256 deadline) external;

    /// @notice Sends an account all its royalties; anybody may call.
    /// @return amount what was sent
    function claimCredit(address account) external returns (uint256 amount);

    /// @notice Sends the fee recipient the fees that were credited beside `holders`; anybody may call. The holders are in
    /// the `Redeemed` events; fees of models that nobody holds are beside the fee recipient itself.
    /// @return amount what was sent
    function claimFees(address[] calldata holders) external returns (uint256 amount);

    /// @notice A channel's state; all zero if it was never opened.
    function channel(bytes32 channelId) external view returns (Channel memory);

    /// @notice `keccak256(abi.encode(payer, signer, provider, modelId, token, salt))`
    function channelIdOf(address payer, address signer, address provider, bytes32 modelId, uint96 salt)
        external
        view
        returns (bytes32 channelId);

    /// @notice What was decided for ever when the escrow was created.
    function terms() external view returns (Terms memory);

    /// @notice An account's free balance.
    function balanceOf(address payer) external view returns (uint256);

    /// @notice An account's unclaimed royalties.
    function creditOf(address account) external view returns (uint256);

    /// @notice Unclaimed fees that were credited beside an account's royalties; they are the fee recipient's.
    function feesOf(address holder) external view returns (uint256);

    /// @notice The EIP-712 domain separator of this escrow on this chain.
    function domainSeparator() external view returns (bytes32);

    /// @notice The EIP-712 digest that a channel's session key signs.
    function voucherHash(bytes32 channelId, uint96 cumulative, bytes32 receiptsHead)
        external
        view
        returns (bytes32 digest);

    /// @notice The EIP-712 struct hash of a receipt, which the running hash of receipts is made of.
    function receiptStructHash(Receipt calldata receipt) external pure returns (bytes32);

    /// @notice The EIP-712 digest that a provider signs for a receipt.
    function receiptHash(Receipt calldata receipt) external view returns (bytes32 digest);
}
