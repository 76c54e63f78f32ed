// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IProviders} from "./interfaces/IProviders.sol";
import {Receipt, Receipts} from "./Receipts.sol";

/// @title Providers and their stake
/// @notice Nobody owns this contract. Stake is taken from a provider in two ways only: by the dispute contract, at most a
/// tenth for each offence, and by anybody who shows two receipts that it signed for one number.
contract Providers is IProviders, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice How long after a receipt evidence against it may be brought.
    uint40 public constant EVIDENCE_WINDOW = 72 hours;
    /// @notice Time left over after the last possible dispute, so that stake never leaves in the same moment.
    uint40 public constant MARGIN = 48 hours;
    /// @notice The longest dispute window; keeps every date within its 40 bits.
    uint40 public constant MAX_DISPUTE_WINDOW = 30 days;
    /// @notice How long a freeze lasts.
    uint40 public constant FREEZE_PERIOD = 30 days;
    /// @notice How long a provider is left in peace after a freeze.
    uint40 public constant FREEZE_GAP = 7 days;
    /// @notice The most that is taken for one offence, in basis points of all stake.
    uint16 public constant MAX_SLASH_BPS = 1_000;
    /// @notice The reporter's part of what is taken, in basis points. So small that who reports itself loses 95%.
    uint16 public constant REWARD_BPS = 500;

    uint24 private constant REGISTERED = 1;
    uint24 private constant CONVICTED = 2;
    uint256 private constant BPS = 10_000;
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// @dev The first slot holds all money and its date, the last one what freezing needs.
    struct Record {
        uint96 stake;
        uint96 leaving;
        uint40 availableAt;
        uint24 flags;
        bytes32 nodeKey;
        bytes32 metadataHash;
        bytes8 region;
        uint40 frozenUntil;
        uint40 freezableFrom;
    }

    /// @notice The stablecoin that is staked.
    IERC20 public immutable token;
    /// @inheritdoc IProviders
    address public immutable escrow;
    /// @inheritdoc IProviders
    address public immutable disputes;
    /// @inheritdoc IProviders
    address public immutable slashRecipient;
    /// @inheritdoc IProviders
    uint40 public immutable unstakeDelay;

    mapping(address provider => Record) private _records;
    mapping(bytes32 offence => bool) private _judged;
    mapping(address account => uint256) private _credits;
    /// @inheritdoc IProviders
    uint256 public totalCredit;

    modifier onlyDisputes() {
        require(msg.sender == disputes, NotDisputes());
        _;
    }

    /// @param token_ stablecoin that is staked
    /// @param escrow_ escrow in whose EIP-712 domain receipts are signed
    /// @param disputes_ who may freeze and slash; zero for nobody, ever
    /// @param slashRecipient_ who is credited what is taken; must not be controlled by a provider
    /// @param disputeWindow seconds a dispute may take, at most {MAX_DISPUTE_WINDOW}
    constructor(IERC20 token_, address escrow_, address disputes_, address slashRecipient_, uint40 disputeWindow) {
        require(disputeWindow <= MAX_DISPUTE_WINDOW, DisputeWindowOutOfBounds(disputeWindow));
        require(address(token_) != address(0), BadAddress());
        require(slashRecipient_ != address(0) && slashRecipient_ != address(this), BadAddress());
        token = token_;
        escrow = escrow_;
        disputes = disputes_;
        slashRecipient = slashRecipient_;
        unstakeDelay = _delay(disputeWindow);
        // An address that is not the market's escrow would leave every equivocation unpunished.
        require(IEscrow(escrow_).domainSeparator() == _domainSeparator(escrow_), WrongEscrow());
    }

    // ---- providers ---------------------------------------------------------------------------------------------

    /// @inheritdoc IProviders
    function register(uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external nonReentrant {
        Record storage record = _records[msg.sender];
        require(record.flags & REGISTERED == 0, AlreadyRegistered());
        require(msg.sender != slashRecipient, RecipientCannotStake());
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
        require(record.flags & CONVICTED == 0, ProviderConvicted());
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
        uint40 availableAt = _availableAt(record.availableAt);
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
        require(block.timestamp >= record.frozenUntil, Frozen(record.frozenUntil));
        record.leaving = 0;
        record.availableAt = 0;
        emit UnstakeCompleted(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // ---- freezing and slashing ---------------------------------------------------------------------------------

    /// @inheritdoc IProviders
    function freeze(address provider, bytes32 caseHash) external onlyDisputes {
        Record storage record = _records[provider];
        require(record.flags & REGISTERED != 0, NotRegistered());
        require(block.timestamp >= record.freezableFrom, FrozenLately(record.freezableFrom));
        uint40 until = (block.timestamp + FREEZE_PERIOD).toUint40();
        record.frozenUntil = until;
        record.freezableFrom = until + FREEZE_GAP;
        emit ProviderFrozen(provider, until, caseHash);
    }

    /// @inheritdoc IProviders
    function unfreeze(address provider) external onlyDisputes {
        Record storage record = _records[provider];
        require(block.timestamp < record.frozenUntil, NotFrozen());
        record.frozenUntil = block.timestamp.toUint40();
        record.freezableFrom = (block.timestamp + FREEZE_GAP).toUint40();
        emit ProviderUnfrozen(provider);
    }

    /// @inheritdoc IProviders
    function slash(address provider, uint96 amount, bytes32 offence, address reporter)
        external
        onlyDisputes
        nonReentrant
        returns (uint96 taken)
    {
        if (_judged[offence]) return 0;
        _judged[offence] = true;
        Record storage record = _records[provider];
        uint256 all = uint256(record.stake) + record.leaving;
        uint256 ceiling = all * MAX_SLASH_BPS / BPS;
        taken = _take(provider, record, Math.min(amount, ceiling), offence, reporter);
    }

    /// @inheritdoc IProviders
    function proveEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external nonReentrant returns (uint96 taken) {
        require(first.channelId == second.channelId && first.sequence == second.sequence, NoEquivocation());
        bytes32 firstHash = Receipts.structHash(first);
        bytes32 secondHash = Receipts.structHash(second);
        require(firstHash != secondHash, NoEquivocation());
        bytes32 domain = _domainSeparator(escrow);
        address provider = ECDSA.recover(MessageHashUtils.toTypedDataHash(domain, firstHash), firstSignature);
        address other = ECDSA.recover(MessageHashUtils.toTypedDataHash(domain, secondHash), secondSignature);
        require(provider == other, DifferentSigners(provider, other));

        Record storage record = _records[provider];
        require(record.flags & REGISTERED != 0, NotRegistered());
        require(record.flags & CONVICTED == 0, ProviderConvicted());
        record.flags |= CONVICTED;
        emit EquivocationProven(provider, first.channelId, first.sequence, firstHash, secondHash);
        taken = _take(provider, record, uint256(record.stake) + record.leaving, bytes32(0), msg.sender);
    }

    /// @inheritdoc IProviders
    function claimCredit() external nonReentrant returns (uint256 amount) {
        amount = _credits[msg.sender];
        require(amount != 0, ZeroAmount());
        _credits[msg.sender] = 0;
        totalCredit -= amount;
        emit CreditClaimed(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // ---- views -------------------------------------------------------------------------------------------------

    /// @inheritdoc IProviders
    function providerOf(address provider) external view returns (Provider memory) {
        Record storage record = _records[provider];
        bool working = record.flags == REGISTERED && block.timestamp >= record.frozenUntil;
        return Provider({
            stake: record.stake,
            nodeKey: record.nodeKey,
            region: record.region,
            metadataHash: record.metadataHash,
            active: working && record.stake != 0,
            convicted: record.flags & CONVICTED != 0,
            frozenUntil: record.frozenUntil
        });
    }

    /// @inheritdoc IProviders
    function unstakingOf(address provider) external view returns (uint96 amount, uint40 availableAt) {
        Record storage record = _records[provider];
        return (record.leaving, record.availableAt);
    }

    /// @inheritdoc IProviders
    function freezableFrom(address provider) external view returns (uint40) {
        return _records[provider].freezableFrom;
    }

    /// @inheritdoc IProviders
    function isJudged(bytes32 offence) external view returns (bool) {
        return _judged[offence];
    }

    /// @inheritdoc IProviders
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
    }

    // ---- rules, each in a function of its own so that a test can show what goes wrong without it -------------------

    /// @dev Seconds between asking for stake and getting it.
    function _delay(uint40 disputeWindow) internal pure virtual returns (uint40) {
        return EVIDENCE_WINDOW + disputeWindow + MARGIN;
    }

    /// @dev When all that is leaving may go, after a request made now; `before` is the date of what was leaving already.
    /// All of it waits for the newest request: work done under the newly asked part is covered in full.
    function _availableAt(uint40 before) internal view virtual returns (uint40) {
        before;
        return (block.timestamp + unstakeDelay).toUint40();
    }

    /// @dev What of a loss is taken from stake that is leaving, and what from stake that stands. What is leaving goes
    /// first: nobody escapes by asking for its stake. Takes less where there is less.
    function _split(uint96 stake, uint96 leaving, uint256 amount)
        internal
        pure
        virtual
        returns (uint96 fromStake, uint96 fromLeaving)
    {
        fromLeaving = uint96(Math.min(amount, leaving));
        fromStake = uint96(Math.min(amount - fromLeaving, stake));
    }

    /// @dev The reporter's part of what was taken.
    function _reward(uint96 taken) internal pure virtual returns (uint96) {
        return uint96(uint256(taken) * REWARD_BPS / BPS);
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    /// @dev Moves stake to credits; nothing is sent.
    function _take(address provider, Record storage record, uint256 amount, bytes32 offence, address reporter)
        private
        returns (uint96 taken)
    {
        (uint96 stake, uint96 leaving) = (record.stake, record.leaving);
        (uint96 fromStake, uint96 fromLeaving) = _split(stake, leaving, amount);
        stake -= fromStake;
        leaving -= fromLeaving;
        record.stake = stake;
        record.leaving = leaving;
        if (leaving == 0) record.availableAt = 0;
        taken = fromStake + fromLeaving;

        uint96 reward = reporter == address(0) || reporter == provider ? 0 : _reward(taken);
        if (reward != 0) _credits[reporter] += reward;
        _credits[slashRecipient] += taken - reward;
        totalCredit += taken;
        emit ProviderSlashed(provider, offence, taken, stake, leaving, reporter, reward);
    }

    function _registered() private view returns (Record storage record) {
        record = _records[msg.sender];
        require(record.flags & REGISTERED != 0, NotRegistered());
    }

    /// @dev Of the escrow, on the chain this runs on now: after a fork, what was signed for the other chain proves nothing.
    function _domainSeparator(address escrow_) private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, keccak256("Rialto"), keccak256("1"), block.chainid, escrow_));
    }

    /// @dev Counts what arrived, not what was sent: a token may keep a fee.
    function _pull(uint96 amount) private returns (uint96 arrived) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        arrived = (token.balanceOf(address(this)) - before).toUint96();
        require(arrived != 0, ZeroAmount());
    }
}
