// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Escrow} from "../src/Escrow.sol";
import {Providers} from "../src/Providers.sol";
import {Receipt, Receipts} from "../src/Receipts.sol";
import {IProviders} from "../src/interfaces/IProviders.sol";
import {Market} from "./Market.sol";
import {Test} from "./Test.sol";
import {FeeOnTransfer, Mintable, Reverts} from "./tokens/Hostile.sol";

/// @notice Eight providers, three reporters and a dispute contract who do anything the registry offers, in any order.
/// Everything may be tried at any time; what must not happen is checked where it does. The books are kept here as well.
contract Stakers is Test {
    uint256 internal constant PROVIDERS = 8;
    uint256 internal constant REPORTERS = 3;

    Mintable public token;
    Escrow public escrow;
    Providers public registry;
    address public disputes = vm.addr(uint256(keccak256("disputes")));
    address public recipient = vm.addr(uint256(keccak256("recipient")));
    address[PROVIDERS] public providers;
    address[REPORTERS] public reporters;

    uint256 public donated;
    /// @notice What arrived as stake, left as stake, was taken, and was claimed.
    uint256 public arrived;
    uint256 public left;
    uint256 public taken;
    uint256 public claimed;
    /// @notice When each provider asked for stake last, and whether it was convicted.
    mapping(address => uint256) public askedAt;
    mapping(address => bool) public convicted;
    /// @notice How often each action happened.
    mapping(string => uint256) public calls;

    constructor(Mintable token_, Escrow escrow_) {
        vm.warp(1_700_000_000);
        token = token_;
        escrow = escrow_;
        registry = new Providers(IERC20(address(token_)), address(escrow_), disputes, recipient, 3 days);
        for (uint256 i; i < PROVIDERS; ++i) {
            providers[i] = vm.addr(_key(i));
            vm.prank(providers[i]);
            token.approve(address(registry), type(uint256).max);
            token.mint(providers[i], 1e18);
        }
        for (uint256 i; i < REPORTERS; ++i) {
            reporters[i] = vm.addr(uint256(keccak256(abi.encode("reporter", i))));
        }
    }

    // ---- actions -----------------------------------------------------------------------------------------------

    function stake(uint256 who, uint96 amount) external {
        address provider = providers[who % PROVIDERS];
        amount = uint96(bound(amount, 40, amount % 2 == 0 ? 2_000_000 : 100));
        uint256 before = _all(provider);
        bool known = registry.providerOf(provider).nodeKey != 0;
        vm.prank(provider);
        if (known) {
            try registry.addStake(amount) {
                yes(!convicted[provider], "a convicted provider never stakes again");
                ++calls["addStake"];
            } catch {}
        } else {
            try registry.register(amount, keccak256("node"), "eu-west", 0) {
                ++calls["register"];
            } catch {}
        }
        arrived += _all(provider) - before;
    }

    function requestUnstake(uint256 who, uint96 amount) external {
        address provider = providers[who % PROVIDERS];
        uint96 standing = registry.providerOf(provider).stake;
        uint256 before = _all(provider);
        vm.prank(provider);
        try registry.requestUnstake(uint96(bound(amount, 1, uint256(standing) + 1))) {
            askedAt[provider] = block.timestamp;
            ++calls["requestUnstake"];
        } catch {}
        eq(_all(provider), before, "asking moves nothing out");
    }

    function completeUnstake(uint256 who) external {
        address provider = providers[who % PROVIDERS];
        uint256 before = _all(provider);
        vm.prank(provider);
        try registry.completeUnstake() returns (uint96 amount) {
            // Invariant 8: all that left waited for the whole delay, and nobody was frozen.
            yes(block.timestamp >= askedAt[provider] + registry.unstakeDelay(), "the delay has passed");
            yes(block.timestamp >= registry.providerOf(provider).frozenUntil, "not frozen");
            yes(!convicted[provider], "not convicted");
            eq(before - _all(provider), amount, "the books say what was paid");
            left += amount;
            ++calls["completeUnstake"];
        } catch {}
    }

    function freeze(uint256 who, bool on) external {
        address provider = providers[who % PROVIDERS];
        uint256 ended = registry.providerOf(provider).frozenUntil;
        vm.prank(disputes);
        if (on) {
            try registry.freeze(provider, bytes32(who)) {
                yes(ended == 0 || block.timestamp >= ended + registry.FREEZE_GAP(), "left in peace between freezes");
                ++calls["freeze"];
            } catch {}
        } else {
            try registry.unfreeze(provider) {
                ++calls["unfreeze"];
            } catch {}
        }
        uint256 until = registry.providerOf(provider).frozenUntil;
        yes(until <= block.timestamp + registry.FREEZE_PERIOD(), "a freeze is bounded");
    }

    /// @dev Never in a try: a slash by the dispute contract does not revert, whatever the provider and the token do.
    function slash(uint256 who, uint96 amount, uint8 offence, uint256 by) external {
        address provider = providers[who % PROVIDERS];
        address reporter = by % 4 == 3 ? address(0) : reporters[by % 4];
        bytes32 id = bytes32(uint256(offence));
        bool judged = registry.isJudged(id);
        uint256 before = _all(provider);
        uint256 credits = registry.creditOf(reporter) + registry.creditOf(recipient);
        uint256 rewarded = registry.creditOf(reporter);
        vm.prank(disputes);
        uint256 loss = registry.slash(provider, uint96(bound(amount, 0, 3_000_000)), id, reporter);
        eq(before - _all(provider), loss, "what the provider lost");
        eq(registry.creditOf(reporter) + registry.creditOf(recipient) - credits, loss, "reward + recipient = taken");
        yes(loss <= before / 10, "a tenth at most");
        yes(registry.creditOf(reporter) - rewarded <= loss / 20, "a small reward");
        yes(!judged || loss == 0, "an offence counts once");
        taken += loss;
        if (loss != 0) ++calls["slash"];
    }

    function prove(uint256 who, uint256 by, bytes32 answer) external {
        // Seldom, so that providers live long enough for everything else to happen to them.
        if (who % 8 != 0) return;
        uint256 i = (who >> 8) % PROVIDERS;
        Receipt memory first;
        first.responseHash = answer;
        Receipt memory second;
        second.responseHash = keccak256(abi.encode(answer));
        uint256 before = _all(providers[i]);
        (bytes memory a, bytes memory b) = (_signed(i, first), _signed(i, second));
        vm.prank(reporters[by % REPORTERS]);
        try registry.proveEquivocation(first, a, second, b) returns (uint96 loss) {
            eq(loss, before, "all of it");
            eq(_all(providers[i]), 0, "nothing is left");
            convicted[providers[i]] = true;
            taken += loss;
            ++calls["prove"];
        } catch {}
    }

    function claimCredit(uint256 who) external {
        address account = who % 4 == 3 ? recipient : reporters[who % 4];
        vm.prank(account);
        try registry.claimCredit() returns (uint256 amount) {
            claimed += amount;
            ++calls["claimCredit"];
        } catch {}
    }

    function wait_(uint256 time) external {
        vm.warp(block.timestamp + bound(time, 1 hours, 5 days));
    }

    function donate(uint64 amount) external {
        try token.mint(address(registry), amount) {
            donated += amount;
        } catch {}
    }

    // ---- what must hold ----------------------------------------------------------------------------------------

    /// @notice All stake, standing and leaving, and whether everybody convicted has none.
    function stakes() external view returns (uint256 sum, bool none) {
        none = true;
        for (uint256 i; i < PROVIDERS; ++i) {
            uint256 all = _all(providers[i]);
            sum += all;
            if (convicted[providers[i]] && all != 0) none = false;
        }
    }

    function credits() external view returns (uint256 sum) {
        sum = registry.creditOf(recipient);
        for (uint256 i; i < REPORTERS; ++i) {
            sum += registry.creditOf(reporters[i]);
        }
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    function _key(uint256 i) private pure returns (uint256) {
        return uint256(keccak256(abi.encode("staker", i)));
    }

    function _all(address provider) private view returns (uint256) {
        (uint96 leaving,) = registry.unstakingOf(provider);
        return uint256(registry.providerOf(provider).stake) + leaving;
    }

    function _signed(uint256 i, Receipt memory receipt) private view returns (bytes memory) {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), Receipts.structHash(receipt)));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_key(i), digest);
        return abi.encodePacked(r, s, v);
    }
}

/// @notice As {Stakers}, with a token that refuses all transfers for a while.
contract RefusedStakers is Stakers {
    constructor(Mintable token_, Escrow escrow_) Stakers(token_, escrow_) {}

    function refuse(uint256 dice) external {
        Reverts(address(token)).refuse(dice % 3 == 0);
    }
}

/// @notice The dollar, in the form that {Stakers} mint.
contract StakedDollar is Mintable {}

/// @notice What holds of stake after any sequence of calls, with an honest token.
contract StakesTest is Market {
    Stakers internal stakers;

    function setUp() public virtual override {
        super.setUp();
        stakers = new Stakers(new StakedDollar(), escrow);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(stakers);
    }

    /// @dev One campaign for all: forge would play every invariant a game of its own.
    function invariant_8_stake_is_held_conserved_and_lost_by_the_convicted() public view {
        (uint256 stakes, bool none) = stakers.stakes();
        Providers registry = stakers.registry();
        // The registry holds what it owes, and more only if somebody gave it.
        uint256 owed = stakes + registry.totalCredit();
        eq(stakers.token().balanceOf(address(registry)), owed + stakers.donated(), "held");
        // Nothing is made or lost between stake, credits and what was paid out.
        eq(stakers.arrived(), stakes + stakers.left() + stakers.taken(), "stake");
        eq(stakers.taken(), stakers.credits() + stakers.claimed(), "credits");
        eq(registry.totalCredit(), stakers.credits(), "their sum");
        yes(none, "a convicted provider has no stake, for ever");
    }

    /// @dev Nothing above holds idly: each action happens.
    function test_every_action_happens() public {
        for (uint256 i; i < 600; ++i) {
            _act(uint256(keccak256(abi.encode(i))));
        }
        string[8] memory names =
            ["addStake", "requestUnstake", "completeUnstake", "freeze", "unfreeze", "slash", "prove", "claimCredit"];
        for (uint256 i; i < names.length; ++i) {
            yes(stakers.calls(names[i]) >= 3, names[i]);
        }
        yes(stakers.calls("register") >= 3, "register");
        invariant_8_stake_is_held_conserved_and_lost_by_the_convicted();
    }

    function _act(uint256 r) internal virtual {
        uint256 kind = r % 11;
        uint256 x = r >> 8;
        if (kind <= 2) stakers.stake(x, uint96(x >> 8));
        if (kind == 3 || kind == 4) stakers.requestUnstake(x, uint96(x >> 8));
        if (kind == 5) stakers.completeUnstake(x);
        if (kind == 6) stakers.freeze(x, x % 3 != 0);
        if (kind == 7) stakers.slash(x, uint96(x >> 8), uint8(x >> 16), x >> 24);
        if (kind == 8) stakers.prove(x << 1, x >> 16, bytes32(x));
        if (kind == 9) stakers.claimCredit(x);
        if (kind == 10) stakers.wait_(x);
    }
}

/// @notice The same with a token that keeps a part of each transfer.
contract StakesWithAFeeTest is StakesTest {
    function setUp() public override {
        super.setUp();
        stakers = new Stakers(new FeeOnTransfer(), escrow);
    }
}

/// @notice The same with a token that refuses to move for a while.
contract StakesRefusedTest is StakesTest {
    function setUp() public override {
        super.setUp();
        stakers = new RefusedStakers(new Reverts(), escrow);
    }
}
