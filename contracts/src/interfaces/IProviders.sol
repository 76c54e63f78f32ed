// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title The registry of providers: their stake, network key, region and metadata
/// @notice Stake that is leaving no longer stands for new work, but stays within reach until it has left.
interface IProviders {
    /// @notice What is known about a provider.
    /// @param stake stake that stands for its work, in the token's smallest unit; without what is leaving
    /// @param nodeKey public key of its network endpoint (ed25519)
    /// @param region ASCII, zero padded, for example "eu-west"
    /// @param metadataHash keccak-256 of its metadata document, zero if it has none
    /// @param active whether it is registered and has stake that is not leaving
    struct Provider {
        uint96 stake;
        bytes32 nodeKey;
        bytes8 region;
        bytes32 metadataHash;
        bool active;
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

    /// @notice The caller is registered already.
    error AlreadyRegistered();
    /// @notice The caller is not registered.
    error NotRegistered();
    /// @notice An amount was zero, or nothing of it arrived.
    error ZeroAmount();
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

    /// @notice Registers the caller with a first stake, pulled from it; `stake` must be approved.
    function register(uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external;

    /// @notice Pulls more stake from the caller.
    function addStake(uint96 amount) external;

    /// @notice Replaces what the caller says about itself.
    function update(bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external;

    /// @notice Lets part of the caller's stake begin to leave. Asking again restarts the delay for all that is leaving.
    function requestUnstake(uint96 amount) external;

    /// @notice Pays out what was leaving, once the delay has passed.
    /// @return amount what was sent, in the token's smallest unit
    function completeUnstake() external returns (uint96 amount);

    /// @notice What is known about a provider; all zero if it never registered.
    function providerOf(address provider) external view returns (Provider memory);

    /// @notice What of a provider's stake is leaving.
    /// @return amount what is leaving
    /// @return availableAt the time, in seconds of the chain, from which it may be taken
    function unstakingOf(address provider) external view returns (uint96 amount, uint40 availableAt);

    /// @notice Seconds between asking for stake and getting it: evidence window, dispute window and a margin.
    function unstakeDelay() external view returns (uint40);
}
