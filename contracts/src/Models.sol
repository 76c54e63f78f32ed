// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {IERC2981} from "@openzeppelin/contracts/interfaces/IERC2981.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IModels} from "./interfaces/IModels.sol";

/// @title Models as tokens
/// @notice Nobody owns this contract; a token is never burnt, so a registered model stays registered.
contract Models is ERC721, IERC2981, IModels {
    /// @inheritdoc IModels
    uint16 public constant MAX_ROYALTY_BPS = 1_000;
    /// @inheritdoc IModels
    uint256 public constant MAX_TEXT_BYTES = 64;

    uint256 private constant BPS = 10_000;

    /// @dev What the escrow asks for at each redemption (holder and rate) is in one slot, which is why the holder is kept
    /// here as well as in ERC-721's own records. The slot has room for a pending rate and its date.
    struct Record {
        address holder;
        uint16 royaltyBps;
        address publisher;
        bytes32 manifestHash;
        string quantisation;
        string licence;
    }

    mapping(bytes32 modelId => Record) private _records;

    constructor() ERC721("Rialto Models", "MODEL") {}

    /// @inheritdoc IModels
    function register(bytes32 manifestHash, string calldata quantisation, string calldata licence, uint16 royaltyBps)
        external
        returns (bytes32 modelId)
    {
        require(manifestHash != bytes32(0), EmptyManifest());
        require(royaltyBps <= MAX_ROYALTY_BPS, RoyaltyTooHigh(royaltyBps));
        require(bytes(quantisation).length <= MAX_TEXT_BYTES, TextTooLong(bytes(quantisation).length));
        require(bytes(licence).length <= MAX_TEXT_BYTES, TextTooLong(bytes(licence).length));
        modelId = modelIdOf(msg.sender, manifestHash);
        require(!exists(modelId), AlreadyRegistered(modelId));

        Record storage record = _records[modelId];
        record.royaltyBps = royaltyBps;
        record.publisher = msg.sender;
        record.manifestHash = manifestHash;
        record.quantisation = quantisation;
        record.licence = licence;
        emit ModelRegistered(modelId, msg.sender, manifestHash, quantisation, licence, royaltyBps);
        // Not the safe variant: the publisher asked for the token itself, and a callback would only invite re-entry.
        _mint(msg.sender, uint256(modelId));
    }

    /// @inheritdoc IModels
    function modelIdOf(address publisher, bytes32 manifestHash) public pure returns (bytes32) {
        return keccak256(abi.encode(publisher, manifestHash));
    }

    /// @inheritdoc IModels
    function exists(bytes32 modelId) public view returns (bool) {
        return _records[modelId].holder != address(0);
    }

    /// @inheritdoc IModels
    function royaltyOf(bytes32 modelId) public view returns (address holder, uint16 royaltyBps) {
        Record storage record = _records[modelId];
        return (record.holder, record.royaltyBps);
    }

    /// @inheritdoc IModels
    function modelOf(bytes32 modelId) external view returns (Model memory) {
        require(exists(modelId), UnknownModel(modelId));
        Record storage record = _records[modelId];
        return Model(record.publisher, record.royaltyBps, record.manifestHash, record.quantisation, record.licence);
    }

    /// @inheritdoc IERC2981
    /// @dev Only advice to marketplaces that sell the token; inside the market the escrow enforces {royaltyOf}.
    function royaltyInfo(uint256 tokenId, uint256 salePrice) external view returns (address receiver, uint256 amount) {
        uint16 royaltyBps;
        (receiver, royaltyBps) = royaltyOf(bytes32(tokenId));
        amount = salePrice * royaltyBps / BPS;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) public view override(ERC721, IERC165) returns (bool) {
        return interfaceId == type(IERC2981).interfaceId || super.supportsInterface(interfaceId);
    }

    /// @dev Every mint and transfer passes here, so the holder the escrow pays is the holder of the token.
    function _update(address to, uint256 tokenId, address auth) internal override returns (address from) {
        from = super._update(to, tokenId, auth);
        _records[bytes32(tokenId)].holder = to;
    }
}
