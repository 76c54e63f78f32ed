// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {IERC2981} from "@openzeppelin/contracts/interfaces/IERC2981.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IModels} from "./interfaces/IModels.sol";

/// @title Models as tokens
/// @notice Nobody owns this contract; a token is never burnt, so a registered model stays registered.
contract Models is ERC721, IERC2981, IModels {
    using SafeCast for uint256;

    /// @inheritdoc IModels
    uint16 public constant MAX_ROYALTY_BPS = 1_000;
    /// @inheritdoc IModels
    uint256 public constant MAX_TEXT_BYTES = 64;

    /// @inheritdoc IModels
    uint40 public constant RAISE_DELAY = 7 days;

    uint256 private constant BPS = 10_000;

    /// @dev What the escrow asks for at each redemption is in one slot, read as one word: from the low end the holder
    /// (160 bits, which is why it is kept here as well as in ERC-721's own records), the rate until a date (16), the rate
    /// from that date on (16) and the date (40). Without a raise the date is zero and only the second rate counts.
    struct Record {
        uint256 terms;
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
        // Minting writes the holder beside it.
        record.terms = _pack(address(0), 0, royaltyBps, 0);
        record.publisher = msg.sender;
        record.manifestHash = manifestHash;
        record.quantisation = quantisation;
        record.licence = licence;
        emit ModelRegistered(modelId, msg.sender, manifestHash, quantisation, licence, royaltyBps);
        // Not the safe variant: the publisher asked for the token itself, and a callback would only invite re-entry.
        _mint(msg.sender, uint256(modelId));
    }

    /// @inheritdoc IModels
    function setRoyalty(bytes32 modelId, uint16 royaltyBps) external {
        Record storage record = _records[modelId];
        uint256 terms = record.terms;
        // Nobody calls from the zero address, so an unknown model has no holder who could.
        require(msg.sender == address(uint160(terms)), NotHolder(modelId));
        require(royaltyBps <= MAX_ROYALTY_BPS, RoyaltyTooHigh(royaltyBps));
        uint16 current = _inForce(terms);
        if (royaltyBps > current) {
            uint40 from = (block.timestamp + RAISE_DELAY).toUint40();
            record.terms = _pack(msg.sender, current, royaltyBps, from);
            emit RoyaltyChanged(modelId, current, royaltyBps, from);
        } else {
            record.terms = _pack(msg.sender, 0, royaltyBps, 0);
            emit RoyaltyChanged(modelId, royaltyBps, 0, 0);
        }
    }

    /// @inheritdoc IModels
    function modelIdOf(address publisher, bytes32 manifestHash) public pure returns (bytes32) {
        return keccak256(abi.encode(publisher, manifestHash));
    }

    /// @inheritdoc IModels
    function exists(bytes32 modelId) public view returns (bool) {
        return address(uint160(_records[modelId].terms)) != address(0);
    }

    /// @inheritdoc IModels
    function royaltyOf(bytes32 modelId) public view returns (address holder, uint16 royaltyBps) {
        uint256 terms = _records[modelId].terms;
        return (address(uint160(terms)), _inForce(terms));
    }

    /// @inheritdoc IModels
    function pendingRoyaltyOf(bytes32 modelId) external view returns (uint16 royaltyBps, uint40 from) {
        uint256 terms = _records[modelId].terms;
        from = uint40(terms >> 192);
        if (block.timestamp >= from) return (0, 0);
        royaltyBps = uint16(terms >> 176);
    }

    /// @inheritdoc IModels
    function modelOf(bytes32 modelId) external view returns (Model memory) {
        require(exists(modelId), UnknownModel(modelId));
        Record storage record = _records[modelId];
        uint16 royaltyBps = _inForce(record.terms);
        return Model(record.publisher, royaltyBps, record.manifestHash, record.quantisation, record.licence);
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
        Record storage record = _records[bytes32(tokenId)];
        record.terms = record.terms >> 160 << 160 | uint160(to);
    }

    /// @dev The rate in force now.
    function _inForce(uint256 terms) private view returns (uint16) {
        return uint16(block.timestamp < terms >> 192 ? terms >> 160 : terms >> 176);
    }

    function _pack(address holder, uint16 until, uint16 since, uint40 date) private pure returns (uint256) {
        return uint256(date) << 192 | uint256(since) << 176 | uint256(until) << 160 | uint160(holder);
    }
}
