// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ChannelSlot, ChannelSlots} from "../src/ChannelSlot.sol";
import {Claims} from "../src/Claims.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IModels} from "../src/interfaces/IModels.sol";

/// @notice The cheatcodes of the prover.
interface Prover {
    function assume(bool condition) external pure;
    function prank(address sender) external;
    function enableSymbolicStorage(address account) external;
    function createUint256(string calldata name) external returns (uint256);
    function createCalldata(string calldata contractName) external returns (bytes memory);
}

/// @notice A token that says yes and remembers what it was told to send. Its balances are any numbers, at each call others.
contract AnyToken {
    Prover internal constant SVM = Prover(address(uint160(uint256(keccak256("svm cheat code")))));

    uint256 public sent;
    uint256 public transfers;
    address public receiver;

    function transfer(address to, uint256 amount) external returns (bool) {
        sent += amount;
        ++transfers;
        receiver = to;
        return true;
    }

    function transferFrom(address, address, uint256) external pure returns (bool) {
        return true;
    }

    function balanceOf(address) external returns (uint256) {
        return SVM.createUint256("balance");
    }
}

/// @notice A model of any holder and any rate.
contract AnyModel {
    address public holder;
    uint16 public rate;

    function set(address holder_, uint16 rate_) external {
        holder = holder_;
        rate = rate_;
    }

    function royaltyOf(bytes32) external view returns (address, uint16) {
        return (holder, rate);
    }
}

/// @notice What holds for every state, caller and input, proved by symbolic execution: see assurance/README.md.
/// Nothing here is a test of forge, which knows neither `check_` nor the prover's cheatcodes; halmos.sh puts it beside src/.
contract ProofsOfEscrow {
    Prover internal constant vm = Prover(address(uint160(uint256(keccak256("hevm cheat code")))));
    Prover internal constant svm = Prover(address(uint160(uint256(keccak256("svm cheat code")))));
    address internal constant TREASURY = address(0x7777);

    /// @dev A packed claim, unpacked.
    struct Claim {
        address payer;
        address signer;
        uint96 salt;
        uint96 cumulative;
        uint96 amount;
        bytes32 head;
        bytes32 r;
        bytes32 vs;
    }

    AnyToken internal token;
    AnyModel internal models;
    Escrow internal escrow;

    function setUp() public {
        token = new AnyToken();
        models = new AnyModel();
        escrow = new Escrow(IERC20(address(token)), IModels(address(models)), address(0x6666), TREASURY, 0, 1 days);
    }

    /// @notice Invariants 2, 3 and 5 for one claim of any content on a channel in any state, by any caller.
    function check_redeem_one(Claim calldata claim, address provider, bytes32 modelId, address holder)
        external
    {
        svm.enableSymbolicStorage(address(escrow));
        models.set(holder, 0);
        bytes32 id = _id(claim, provider, modelId);
        IEscrow.Channel memory before = escrow.channel(id);
        vm.assume(_isSound(before));
        address share = holder == address(0) ? TREASURY : holder;
        uint256 royalties = escrow.creditOf(share);
        uint256 fees = escrow.feesOf(share);
        // More than any token's supply; beyond it the halves of a credit would run into each other.
        vm.assume(royalties < 1 << 120 && fees < 1 << 120);

        IEscrow.Group[] memory groups = new IEscrow.Group[](1);
        groups[0] = IEscrow.Group(modelId, _pack(claim));
        vm.prank(provider);
        uint256 paid = escrow.redeem(groups);

        IEscrow.Channel memory later = escrow.channel(id);
        assert(later.redeemed >= before.redeemed && _isSound(later));
        assert(later.funded == before.funded && later.closeAt == before.closeAt && later.flags == before.flags);
        uint256 delta = later.redeemed - before.redeemed;
        assert(paid == delta);
        if (delta != 0) {
            assert(before.flags == 1);
            assert(later.redeemed <= claim.cumulative && later.redeemed <= claim.amount);
            assert(_signer(claim, id) == claim.signer && claim.signer != address(0));
        }
        uint256 royalty = escrow.creditOf(share) - royalties;
        uint256 fee = escrow.feesOf(share) - fees;
        assert(token.sent() + royalty + fee == delta);
    }

    /// @notice To be refuted: without a counterexample the proof above would be of calls that never pay.
    function refute_redeem_never_pays(Claim calldata claim, address provider, bytes32 modelId) external {
        svm.enableSymbolicStorage(address(escrow));
        models.set(address(1), 0);
        vm.assume(_isSound(escrow.channel(_id(claim, provider, modelId))));
        IEscrow.Group[] memory groups = new IEscrow.Group[](1);
        groups[0] = IEscrow.Group(modelId, _pack(claim));
        vm.prank(provider);
        assert(escrow.redeem(groups) == 0);
    }

    /// @notice A claim changes no channel but the one it names.
    function check_redeem_touches_no_other(
        Claim calldata claim,
        address provider,
        bytes32 modelId,
        bytes32 other
    ) external {
        svm.enableSymbolicStorage(address(escrow));
        vm.assume(other != _id(claim, provider, modelId));
        bytes32 before = keccak256(abi.encode(escrow.channel(other)));
        IEscrow.Group[] memory groups = new IEscrow.Group[](1);
        groups[0] = IEscrow.Group(modelId, _pack(claim));
        vm.prank(provider);
        escrow.redeem(groups);
        assert(before == keccak256(abi.encode(escrow.channel(other))));
    }

    /// @notice Invariant 2 for each other function, any caller and any arguments: what a channel has paid out changes by
    /// {redeem} alone, a closed channel stays as it is for ever, and a channel is always in one of its three shapes.
    function check_any_other_call(bytes32 id, address caller) external {
        svm.enableSymbolicStorage(address(escrow));
        IEscrow.Channel memory before = escrow.channel(id);
        vm.assume(_isSound(before));
        bytes memory data = svm.createCalldata("IEscrow");
        vm.assume(bytes4(data) != IEscrow.redeem.selector);
        vm.prank(caller);
        (bool done,) = address(escrow).call(data);
        vm.assume(done);
        IEscrow.Channel memory later = escrow.channel(id);
        assert(_isSound(later));
        assert(later.redeemed == before.redeemed);
        assert(later.flags >= before.flags);
        if (before.flags == 3) assert(later.funded == before.funded && later.closeAt == 0);
    }

    function _isSound(IEscrow.Channel memory channel) internal pure returns (bool) {
        if (channel.flags == 0) return channel.funded == 0 && channel.redeemed == 0 && channel.closeAt == 0;
        if (channel.flags == 3) return channel.funded == channel.redeemed && channel.closeAt == 0;
        return channel.flags == 1 && channel.redeemed <= channel.funded;
    }

    function _id(Claim calldata claim, address provider, bytes32 modelId) internal view returns (bytes32) {
        return escrow.channelIdOf(claim.payer, claim.signer, provider, modelId, claim.salt);
    }

    function _signer(Claim calldata claim, bytes32 id) internal view returns (address) {
        bytes32 digest = escrow.voucherHash(id, claim.cumulative, claim.head);
        bytes32 s = bytes32(uint256(claim.vs) << 1 >> 1);
        return ecrecover(digest, uint8(27 + (uint256(claim.vs) >> 255)), claim.r, s);
    }

    function _pack(Claim calldata claim) internal pure returns (bytes memory) {
        bytes memory terms = abi.encodePacked(claim.payer, claim.signer, claim.salt, claim.cumulative, claim.amount);
        return abi.encodePacked(terms, claim.head, claim.r, claim.vs);
    }
}

/// @notice The split in assembly is the split in arithmetic, for all totals and all rates; split.py proves the rest of it.
contract ProofsOfSplit {
    function check_add_is_the_formula(uint96 from, uint96 to, uint16 royaltyBps, uint16 feeBps) external pure {
        if (feeBps > 1_000 || royaltyBps > 1_000) return;
        Claims.prepare(address(0), bytes32(0));
        Claims.setGroup(address(0), bytes32(0), royaltyBps, feeBps);
        Claims.add(from, to);
        (uint256 paid, uint256 royalty, uint256 fee) = Claims.totals();
        unchecked {
            uint256 rest = 10_000 - uint256(feeBps);
            uint256 feeFrom = uint256(from) * feeBps / 10_000;
            uint256 feeTo = uint256(to) * feeBps / 10_000;
            assert(paid == uint256(to) - from);
            assert(fee == feeTo - feeFrom);
            assert(royalty == (to - feeTo) * royaltyBps / rest - (from - feeFrom) * royaltyBps / rest);
        }
    }

    /// @notice What two claims add is the sum of what each adds.
    function check_add_twice_is_the_sum(uint96[4] calldata totals, uint16 royaltyBps, uint16 feeBps) external pure {
        Claims.prepare(address(0), bytes32(0));
        Claims.setGroup(address(0), bytes32(0), royaltyBps, feeBps);
        Claims.add(totals[0], totals[1]);
        (uint256 paid, uint256 royalty, uint256 fee) = Claims.totals();
        Claims.add(totals[2], totals[3]);
        (uint256 paidBoth, uint256 royaltyBoth, uint256 feeBoth) = Claims.totals();
        Claims.setGroup(address(0), bytes32(0), royaltyBps, feeBps);
        Claims.add(totals[2], totals[3]);
        (uint256 paidLater, uint256 royaltyLater, uint256 feeLater) = Claims.totals();
        unchecked {
            assert(paidBoth == paid + paidLater);
            assert(royaltyBoth == royalty + royaltyLater);
            assert(feeBoth == fee + feeLater);
        }
    }
}

/// @notice Each function of a channel's slot, for every slot and every value that its callers allow.
contract ProofsOfSlot {
    function check_plus_redeemed(uint256 word, uint96 amount) external pure {
        ChannelSlot slot = ChannelSlot.wrap(word);
        if (slot.redeemed() + amount > slot.funded()) return;
        ChannelSlot next = slot.plusRedeemed(amount);
        assert(next.redeemed() == slot.redeemed() + amount);
        assert(next.funded() == slot.funded() && next.closeAt() == slot.closeAt() && next.flags() == slot.flags());
        assert(next.isOpen() == slot.isOpen() && next.isIdle() == slot.isIdle());
    }

    function check_with_funded(uint256 word, uint96 value) external pure {
        ChannelSlot slot = ChannelSlot.wrap(word);
        ChannelSlot next = slot.withFunded(value);
        assert(next.funded() == value);
        assert(next.redeemed() == slot.redeemed() && next.closeAt() == slot.closeAt() && next.flags() == slot.flags());
    }

    function check_closing_at(uint256 word, uint40 value) external pure {
        ChannelSlot slot = ChannelSlot.wrap(word);
        if (!slot.isIdle()) return;
        ChannelSlot next = slot.closingAt(value);
        assert(next.closeAt() == value && next.isOpen() && next.flags() == 1);
        assert(next.funded() == slot.funded() && next.redeemed() == slot.redeemed());
        assert(ChannelSlot.unwrap(next.idle()) == word);
    }

    function check_idle(uint256 word) external pure {
        ChannelSlot slot = ChannelSlot.wrap(word);
        ChannelSlot next = slot.idle();
        assert(next.closeAt() == 0 && next.flags() == slot.flags());
        assert(next.funded() == slot.funded() && next.redeemed() == slot.redeemed());
        assert(next.isIdle() == slot.isOpen());
    }

    function check_opened(uint96 funded) external pure {
        ChannelSlot slot = ChannelSlots.opened(funded);
        assert(slot.funded() == funded && slot.redeemed() == 0 && slot.closeAt() == 0 && slot.flags() == 1);
        assert(slot.isOpen() && slot.isIdle() && !slot.isNew());
    }

    function check_closed(uint256 word) external pure {
        ChannelSlot slot = ChannelSlot.wrap(word);
        ChannelSlot next = slot.closed();
        assert(next.funded() == slot.redeemed() && next.redeemed() == slot.redeemed());
        assert(next.closeAt() == 0 && next.flags() == 3 && !next.isOpen() && !next.isIdle() && !next.isNew());
    }

    function check_fields_are_the_word(uint256 word) external pure {
        ChannelSlot slot = ChannelSlot.wrap(word);
        uint256 whole = uint256(slot.flags()) << 232 | slot.closeAt() << 192 | slot.redeemed() << 96 | slot.funded();
        assert(whole == word);
        assert(slot.isOpen() == (slot.flags() == 1) && slot.isNew() == (word == 0));
        assert(slot.isIdle() == (slot.flags() == 1 && slot.closeAt() == 0));
    }
}
