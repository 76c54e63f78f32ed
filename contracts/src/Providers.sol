// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IProviders} from "./interfaces/IProviders.sol";

/// @title Providers and their stake
/// @notice Nobody owns this contract, and in this version nobody can take a provider's stake.
contract Providers is IProviders, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice How long after a receipt evidence against it may be brought.
    uint40 public constant EVIDENCE_WINDOW = 72 hours;
    /// @notice Time left over after the last possible dispute, so that stake never leaves in the same moment.
    uint40 public constant MARGIN = 48 hours;
    /// @notice The longest dispute window; keeps every date within its 40 bits.
    uint40 public constant MAX_DISPUTE_WINDOW = 30 days;

    uint24 private constant REGISTERED = 1;

    /// @dev The first slot holds all money and dates, with flag bits to spare for freezing.
    struct Record {
        uint96 stake;
        uint96 leaving;
        uint40 availableAt;
        uint24 flags;
        bytes32 nodeKey;
        bytes32 metadataHash;
        bytes8 region;
    }

    /// @notice The stablecoin that is staked.
    IERC20 public immutable token;
    /// @inheritdoc IProviders
    uint40 public immutable unstakeDelay;

    mapping(address provider => Record) private _records;

    /// @param token_ stablecoin that is staked
    /// @param disputeWindow seconds a dispute may take, at most {MAX_DISPUTE_WINDOW}
    constructor(IERC20 token_, uint40 disputeWindow) {
        require(disputeWindow <= MAX_DISPUTE_WINDOW, DisputeWindowOutOfBounds(disputeWindow));
        token = token_;
        unstakeDelay = EVIDENCE_WINDOW + disputeWindow + MARGIN;
    }

    /// @inheritdoc IProviders
    function register(uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external nonReentrant {
        Record storage record = _records[msg.sender];
        require(record.flags & REGISTERED == 0, AlreadyRegistered());
        require(nodeKey != bytes32(0), EmptyNodeKey());
        uint96 arrived = _pull(stake);
        record.stake = arrived;
        record.flags = REGISTERED;
        record.nodeKey = nodeKey;
        record.region = region;
        record.metadataHash = metadataHash;
        emit ProviderRegistered(msg.sender, arrived, nodeKey, region, metadataHash);
    }

    /// @inheritdoc IProviders
    function addStake(uint96 amount) external nonReentrant {
        Record storage record = _registered();
        uint96 arrived = _pull(amount);
        uint96 stake = record.stake + arrived;
        record.stake = stake;
        emit StakeAdded(msg.sender, arrived, stake);
    }

    /// @inheritdoc IProviders
    function update(bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external {
        Record storage record = _registered();
        require(nodeKey != bytes32(0), EmptyNodeKey());
        record.nodeKey = nodeKey;
        record.region = region;
        record.metadataHash = metadataHash;
        emit ProviderUpdated(msg.sender, nodeKey, region, metadataHash);
    }

    /// @inheritdoc IProviders
    function requestUnstake(uint96 amount) external nonReentrant {
        Record storage record = _registered();
        require(amount != 0, ZeroAmount());
        uint96 stake = record.stake;
        require(amount <= stake, InsufficientStake(stake, amount));
        uint96 leaving = record.leaving + amount;
        // All that is leaving waits for the newest request: work done under the newly asked part is covered in full.
        uint40 availableAt = (block.timestamp + unstakeDelay).toUint40();
        record.stake = stake - amount;
        record.leaving = leaving;
        record.availableAt = availableAt;
        emit UnstakeRequested(msg.sender, amount, leaving, availableAt);
    }

    /// @inheritdoc IProviders
    function completeUnstake() external nonReentrant returns (uint96 amount) {
        Record storage record = _registered();
        amount = record.leaving;
        require(amount != 0, NothingLeaving());
        require(block.timestamp >= record.availableAt, TooEarly(record.availableAt));
        record.leaving = 0;
        record.availableAt = 0;
        emit UnstakeCompleted(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IProviders
    function providerOf(address provider) external view returns (Provider memory) {
        Record storage record = _records[provider];
        return Provider({
            stake: record.stake,
            nodeKey: record.nodeKey,
            region: record.region,
            metadataHash: record.metadataHash,
            active: record.flags & REGISTERED != 0 && record.stake != 0
        });
    }

    /// @inheritdoc IProviders
    function unstakingOf(address provider) external view returns (uint96 amount, uint40 availableAt) {
        Record storage record = _records[provider];
        return (record.leaving, record.availableAt);
    }

    function _registered() private view returns (Record storage record) {
        record = _records[msg.sender];
        require(record.flags & REGISTERED != 0, NotRegistered());
    }

    /// @dev Counts what arrived, not what was sent: a token may keep a fee.
    function _pull(uint96 amount) private returns (uint96 arrived) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        arrived = (token.balanceOf(address(this)) - before).toUint96();
        require(arrived != 0, ZeroAmount());
    }
}
