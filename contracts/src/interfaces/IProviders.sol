// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Receipt} from "../Receipts.sol";

/// @title The registry of providers: their stake, network key, region and metadata
/// @notice Stake that is leaving no longer stands for new work, but stays within reach until it has left. What is taken
/// from a provider is credited, never sent: no token and no receiver can keep a provider from being punished.
interface IProviders {
    /// @notice What is known about a provider.
    /// @param stake stake that stands for its work, in the token's smallest unit; without what is leaving
    /// @param nodeKey public key of its network endpoint (ed25519)
    /// @param region ASCII, zero padded, for example "eu-west"
    /// @param metadataHash keccak-256 of its metadata document, zero if it has none
    /// @param active whether it is registered, has stake that is not leaving, and is neither frozen nor convicted
    /// @param convicted whether it was proven to have signed two receipts for one number; for ever
    /// @param frozenUntil the time, in seconds of the chain, at which its freeze ends or ended; zero if there was none
    struct Provider {
        uint96 stake;
        bytes32 nodeKey;
        bytes8 region;
        bytes32 metadataHash;
        bool active;
        bool convicted;
        uint40 frozenUntil;
    }

    /// @notice A provider registered with its first stake.
    event ProviderRegistered(
        address indexed provider, uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash
    );
    /// @notice A provider's stake grew by `amount` to `stake`.
    event StakeAdded(address indexed provider, uint96 amount, uint96 stake);
    /// @notice A provider changed what it says about itself.
    event ProviderUpdated(address indexed provider, bytes32 nodeKey, bytes8 region, bytes32 metadataHash);
    /// @notice `amount` more of a provider's stake is leaving; all that is leaving (`leaving`) may go at `availableAt`.
    event UnstakeRequested(address indexed provider, uint96 amount, uint96 leaving, uint40 availableAt);
    /// @notice Stake left.
    event UnstakeCompleted(address indexed provider, uint96 amount);
    /// @notice A provider takes no new work and no stake out until `frozenUntil`, because of the case `caseHash`.
    event ProviderFrozen(address indexed provider, uint40 frozenUntil, bytes32 caseHash);
    /// @notice A freeze ended before its time.
    event ProviderUnfrozen(address indexed provider);
    /// @notice Stake was taken. `reward` of it is credited to `reporter` and the rest to the slash recipient.
    /// @param offence what it was taken for; zero where {EquivocationProven} of the same transaction says it
    /// @param taken how much, possibly nothing
    /// @param stake what still stands
    /// @param leaving what is still leaving
    event ProviderSlashed(
        address indexed provider,
        bytes32 indexed offence,
        uint96 taken,
        uint96 stake,
        uint96 leaving,
        address reporter,
        uint96 reward
    );
    /// @notice A provider signed two different receipts with one number.
    event EquivocationProven(
        address indexed provider, bytes32 indexed channelId, uint64 sequence, bytes32 first, bytes32 second
    );
    /// @notice A reporter or the slash recipient took out what was credited to it.
    event CreditClaimed(address indexed account, uint256 amount);

    /// @notice The caller is registered already.
    error AlreadyRegistered();
    /// @notice The account is not registered.
    error NotRegistered();
    /// @notice The provider was convicted; this account never works again.
    error ProviderConvicted();
    /// @notice An amount was zero, or nothing of it arrived.
    error ZeroAmount();
    /// @notice The token or the slash recipient of the constructor is zero, or this contract itself.
    error BadAddress();
    /// @notice The escrow of the constructor does not sign under the domain that receipts are signed under.
    error WrongEscrow();
    /// @notice A network key must not be zero.
    error EmptyNodeKey();
    /// @notice More was asked to leave than stands.
    error InsufficientStake(uint96 stake, uint96 asked);
    /// @notice Nothing is leaving.
    error NothingLeaving();
    /// @notice The delay has not passed.
    error TooEarly(uint40 availableAt);
    /// @notice The dispute window of the constructor is out of bounds.
    error DisputeWindowOutOfBounds(uint40 disputeWindow);
    /// @notice The caller is not the dispute contract.
    error NotDisputes();
    /// @notice No stake leaves while its provider is frozen.
    error Frozen(uint40 frozenUntil);
    /// @notice The provider is frozen, or was so lately that it must be left in peace until `from`.
    error FrozenLately(uint40 from);
    /// @notice The provider is not frozen.
    error NotFrozen();
    /// @notice The slash recipient may not be a provider: it would be slashed to its own profit.
    error RecipientCannotStake();
    /// @notice The two receipts are of different channels or numbers, or are one and the same.
    error NoEquivocation();
    /// @notice The two receipts were signed by different keys.
    error DifferentSigners(address first, address second);

    /// @notice Registers the caller with a first stake, pulled from it; `stake` must be approved.
    function register(uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external;

    /// @notice Pulls more stake from the caller.
    function addStake(uint96 amount) external;

    /// @notice Replaces what the caller says about itself.
    function update(bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external;

    /// @notice Lets part of the caller's stake begin to leave. Asking again restarts the delay for all that is leaving.
    /// A frozen provider may ask: its delay runs, so that it can leave between two freezes.
    function requestUnstake(uint96 amount) external;

    /// @notice Pays out what was leaving, once the delay has passed and the provider is not frozen.
    /// @return amount what was sent, in the token's smallest unit
    function completeUnstake() external returns (uint96 amount);

    /// @notice Stops a provider for {FREEZE_PERIOD}: it is not active, and takes no stake out. The dispute contract alone.
    /// @dev It lapses by itself. The next freeze is possible only {FREEZE_GAP} after this one ended, also if it was ended
    /// early: otherwise a dispute contract that fell into wrong hands, or stopped working amid a case, would hold stake for
    /// ever. Period and gap together are longer than the longest {unstakeDelay}, so whoever asks for its stake in the
    /// first moment of a freeze can take it before the next one.
    function freeze(address provider, bytes32 caseHash) external;

    /// @notice Ends a freeze before its time. The dispute contract alone.
    function unfreeze(address provider) external;

    /// @notice Takes stake for an offence. The dispute contract alone.
    /// @dev Takes what was asked, or {MAX_SLASH_BPS} of all the provider's stake, leaving included, if that is less; what
    /// is leaving goes first. Never reverts for what a provider did in the meantime: where nothing is left it takes
    /// nothing, and a second slash for the same offence does nothing at all.
    /// @param amount how much, in the token's smallest unit
    /// @param offence what for; counts once
    /// @param reporter who is credited {REWARD_BPS} of it; zero, or the provider itself, for nobody
    /// @return taken how much was taken
    function slash(address provider, uint96 amount, bytes32 offence, address reporter) external returns (uint96 taken);

    /// @notice Takes all stake of a provider, leaving included, that signed two different receipts with one number in one
    /// channel. Anybody may prove it, at any time while there is stake; {REWARD_BPS} is credited to the caller.
    /// @dev Needs no jury: two signatures are the proof. An honest provider stores a receipt before it hands it out, and
    /// never signs that number again. Whoever sees this call in the pool can copy it for the reward; the provider is
    /// convicted all the same. The provider is convicted for ever: its key has lied or is in wrong hands, and both are
    /// told only by an account that stays marked. Who wants to go on needs a new account, without a history, and new stake.
    /// @param first a receipt
    /// @param firstSignature over its EIP-712 digest in the escrow's domain: r, s, v, with the lower of the two possible s
    /// @param second another receipt with the same channel and number
    /// @param secondSignature over that one, by the same key
    /// @return taken how much was taken
    function proveEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external returns (uint96 taken);

    /// @notice Sends the caller what was credited to it.
    /// @return amount what was sent
    function claimCredit() external returns (uint256 amount);

    /// @notice What is known about a provider; all zero if it never registered.
    function providerOf(address provider) external view returns (Provider memory);

    /// @notice What of a provider's stake is leaving.
    /// @return amount what is leaving
    /// @return availableAt the time, in seconds of the chain, from which it may be taken
    function unstakingOf(address provider) external view returns (uint96 amount, uint40 availableAt);

    /// @notice When a provider may be frozen next, in seconds of the chain; in the past if it may be now.
    function freezableFrom(address provider) external view returns (uint40);

    /// @notice Whether an offence was slashed for.
    function isJudged(bytes32 offence) external view returns (bool);

    /// @notice What {claimCredit} would send to an account.
    function creditOf(address account) external view returns (uint256);

    /// @notice All credits together: the contract holds this besides everybody's stake.
    function totalCredit() external view returns (uint256);

    /// @notice Who alone may freeze and slash; zero if nobody may.
    function disputes() external view returns (address);

    /// @notice Who is credited what is taken from providers.
    function slashRecipient() external view returns (address);

    /// @notice The escrow in whose domain receipts are signed.
    function escrow() external view returns (address);

    /// @notice Seconds between asking for stake and getting it: evidence window, dispute window and a margin.
    function unstakeDelay() external view returns (uint40);
}
