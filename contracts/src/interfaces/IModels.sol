// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title The registry of models: who earns from a model, and at what rate
/// @notice A model is an ERC-721 token whose id is the model id. Whoever holds the token earns the royalty.
interface IModels {
    /// @notice What was registered about a model.
    /// @param publisher account that registered it; part of the model id, never changes
    /// @param royaltyBps royalty in force, in basis points of what a buyer pays, at most {MAX_ROYALTY_BPS}
    /// @param manifestHash keccak-256 of the canonical manifest
    /// @param quantisation exact quantisation of the artifact, for example "Q8_0"
    /// @param licence SPDX expression of the weights' licence
    struct Model {
        address publisher;
        uint16 royaltyBps;
        bytes32 manifestHash;
        string quantisation;
        string licence;
    }

    /// @notice A model was registered, and its token minted to its publisher.
    event ModelRegistered(
        bytes32 indexed modelId,
        address indexed publisher,
        bytes32 manifestHash,
        string quantisation,
        string licence,
        uint16 royaltyBps
    );

    /// @notice A model's rate changed, or will. With the newest of these events and the time, the rate is known.
    /// @param royaltyBps the rate in force now
    /// @param nextBps the rate in force from `from` on; zero if no raise is pending
    /// @param from seconds of the chain; zero if no raise is pending
    event RoyaltyChanged(bytes32 indexed modelId, uint16 royaltyBps, uint16 nextBps, uint40 from);

    /// @notice The caller does not hold the model's token.
    error NotHolder(bytes32 modelId);
    /// @notice The manifest hash was zero.
    error EmptyManifest();
    /// @notice The same publisher has registered this manifest before.
    error AlreadyRegistered(bytes32 modelId);
    /// @notice The royalty asked for is above {MAX_ROYALTY_BPS}.
    error RoyaltyTooHigh(uint16 royaltyBps);
    /// @notice A text field is longer than {MAX_TEXT_BYTES}.
    error TextTooLong(uint256 length);
    /// @notice No model has this id.
    error UnknownModel(bytes32 modelId);

    /// @notice The highest royalty, in basis points.
    function MAX_ROYALTY_BPS() external view returns (uint16);

    /// @notice The longest quantisation or licence text, in bytes.
    function MAX_TEXT_BYTES() external view returns (uint256);

    /// @notice Registers a model for the caller and mints its token to the caller.
    /// @dev The id contains the caller, so nobody can register a model in another's name.
    /// @return modelId `keccak256(abi.encode(msg.sender, manifestHash))`; the token id is the same number
    function register(bytes32 manifestHash, string calldata quantisation, string calldata licence, uint16 royaltyBps)
        external
        returns (bytes32 modelId);

    /// @notice Sets a model's rate. A cut is in force at once; a raise after {RAISE_DELAY}.
    /// @dev The rate is what sellers of the model earn less, so they have time to redeem what they sold and to change their
    /// prices. Any call replaces a raise that is pending: a second raise starts the wait anew, a cut (or the rate in force)
    /// cancels it. A pending raise stays with the token when it is transferred: what was announced to the market is in
    /// force at its date whoever holds the token then, and the new holder can cancel it.
    ///
    /// The holder alone may call. Whom the holder approved for transfers (a marketplace) may sell the token, and has no
    /// say in what it earns.
    function setRoyalty(bytes32 modelId, uint16 royaltyBps) external;

    /// @notice Seconds between asking for a raise and the raise.
    function RAISE_DELAY() external view returns (uint40);

    /// @notice A raise that was asked for and is not in force yet.
    /// @return royaltyBps the coming rate, zero if there is none
    /// @return from the time, in seconds of the chain, from which it is in force; zero if there is none
    function pendingRoyaltyOf(bytes32 modelId) external view returns (uint16 royaltyBps, uint40 from);

    /// @notice The id a publisher's manifest has, registered or not.
    function modelIdOf(address publisher, bytes32 manifestHash) external pure returns (bytes32 modelId);

    /// @notice Whether a model is registered.
    function exists(bytes32 modelId) external view returns (bool);

    /// @notice Who earns from a model now, and how much.
    /// @dev Never reverts: an unknown model has no holder and no royalty.
    /// @return holder the token's holder, zero if the model is unknown
    /// @return royaltyBps the rate in force, in basis points of what a buyer pays
    function royaltyOf(bytes32 modelId) external view returns (address holder, uint16 royaltyBps);

    /// @notice Everything registered about a model; reverts with {UnknownModel}.
    function modelOf(bytes32 modelId) external view returns (Model memory);
}
