// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title The registry of models: who earns from a model, and at what rate
/// @notice A model is an ERC-721 token whose id is the model id. Whoever holds the token earns the royalty.
interface IModels {
    /// @notice What was registered about a model.
    /// @param publisher account that registered it; part of the model id, never changes
    /// @param royaltyBps royalty in basis points of what a buyer pays, at most {MAX_ROYALTY_BPS}
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

    /// @notice The id a publisher's manifest has, registered or not.
    function modelIdOf(address publisher, bytes32 manifestHash) external pure returns (bytes32 modelId);

    /// @notice Whether a model is registered.
    function exists(bytes32 modelId) external view returns (bool);

    /// @notice Who earns from a model now, and how much.
    /// @dev Never reverts: an unknown model has no holder and no royalty.
    /// @return holder the token's holder, zero if the model is unknown
    /// @return royaltyBps basis points of what a buyer pays
    function royaltyOf(bytes32 modelId) external view returns (address holder, uint16 royaltyBps);

    /// @notice Everything registered about a model; reverts with {UnknownModel}.
    function modelOf(bytes32 modelId) external view returns (Model memory);
}
