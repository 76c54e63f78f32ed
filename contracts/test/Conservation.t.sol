// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Escrow} from "../src/Escrow.sol";
import {Models} from "../src/Models.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Test} from "./Test.sol";
import {FeeOnTransfer, Mintable, Reentrant} from "./tokens/Hostile.sol";

/// @notice Eleven actors who do anything the escrow offers, in any order. What each may expect is kept here as well, in the
/// plainest form, and compared after each call. No call may revert: an action that is not possible is not tried.
contract Actors is Test {
    bytes32 private constant OPEN_TYPEHASH = keccak256(
        "Open(address payer,address signer,address provider,bytes32 modelId,uint96 salt,uint96 amount,uint256 deadline)"
    );
    bytes32 private constant WITHDRAW_TYPEHASH =
        keccak256("Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)");

    uint256 internal constant PAYERS = 5;
    uint256 internal constant PROVIDERS = 2;
    uint256 internal constant MODELS = 2;
    uint256 internal constant MAX_CHANNELS = 24;

    struct Known {
        IEscrow.ChannelParams params;
        bytes32 id;
        uint256 key;
        uint256 highestSigned;
        uint256 redeemed;
    }

    Mintable public token;
    Models public models = new Models();
    Escrow public escrow;
    address[PAYERS] public payers;
    address[PROVIDERS] public providers;
    address[MODELS] public publishers;
    bytes32[MODELS] public modelIds;
    address public treasury = vm.addr(uint256(keccak256("treasury")));
    address public guardian = vm.addr(uint256(keccak256("guardian")));
    address public relayer = vm.addr(uint256(keccak256("relayer")));

    Known[] internal known;
    uint256 public donated;
    /// @notice What each payer put in, less what it took out and what its vouchers paid.
    mapping(address => uint256) public due;
    /// @notice How often each action was possible.
    mapping(string => uint256) public calls;

    constructor(Mintable token_) {
        vm.warp(1_700_000_000);
        token = token_;
        // Odd rates, so that every split has something to round.
        escrow = new Escrow(IERC20(address(token_)), models, guardian, treasury, 77, 15 minutes);
        for (uint256 i; i < PAYERS; ++i) {
            payers[i] = vm.addr(_payerKey(i));
            vm.prank(payers[i]);
            token.approve(address(escrow), type(uint256).max);
        }
        for (uint256 i; i < PROVIDERS; ++i) {
            providers[i] = vm.addr(uint256(keccak256(abi.encode("provider", i))));
        }
        for (uint256 i; i < MODELS; ++i) {
            publishers[i] = vm.addr(uint256(keccak256(abi.encode("publisher", i))));
            vm.prank(publishers[i]);
            modelIds[i] = models.register(keccak256("weights"), "Q8_0", "MIT", i == 0 ? 333 : 1_000);
        }
    }

    // ---- actions -----------------------------------------------------------------------------------------------

    function deposit(uint256 who, uint96 amount) external {
        if (_paused()) return;
        address payer = payers[who % PAYERS];
        amount = _mint(payer, amount);
        uint256 before = escrow.balanceOf(payer);
        vm.prank(payer);
        escrow.deposit(amount);
        due[payer] += escrow.balanceOf(payer) - before;
        ++calls["deposit"];
    }

    /// @dev `how` 0 pulls the money, 1 takes it from the free balance, 2 the same by a signature that somebody else sends.
    function open(uint256 who, uint256 with, uint96 salt, uint96 amount, uint8 how) external {
        if (known.length == MAX_CHANNELS || _paused()) return;
        uint256 key = uint256(keccak256(abi.encode("session", known.length)));
        IEscrow.ChannelParams memory params = IEscrow.ChannelParams(
            payers[who % PAYERS], vm.addr(key), providers[with % PROVIDERS], modelIds[(with >> 8) % MODELS], salt
        );
        uint256 balance = escrow.balanceOf(params.payer);
        bytes32 opened;
        if (how % 3 == 0) {
            amount = _mint(params.payer, amount);
            vm.prank(params.payer);
            opened = escrow.depositAndOpen(params.signer, params.provider, params.modelId, salt, amount);
            due[params.payer] += escrow.channel(opened).funded;
        } else if (balance == 0) {
            return;
        } else {
            amount = uint96(bound(amount, 1, balance));
            opened = how % 3 == 1 ? _openItself(params, amount) : _openBySignature(who % PAYERS, params, amount);
        }
        eq(opened, _idOf(params), "id");
        known.push(Known(params, opened, key, 0, 0));
        ++calls["open"];
    }

    function _openItself(IEscrow.ChannelParams memory params, uint96 amount) private returns (bytes32) {
        vm.prank(params.payer);
        return escrow.open(params.signer, params.provider, params.modelId, params.salt, amount);
    }

    function _openBySignature(uint256 who, IEscrow.ChannelParams memory params, uint96 amount)
        private
        returns (bytes32)
    {
        bytes32 structHash = keccak256(abi.encode(OPEN_TYPEHASH, params, amount, block.timestamp));
        bytes memory signature = _sign(_payerKey(who), structHash);
        vm.prank(relayer);
        ++calls["openWithSig"];
        return escrow.openWithSig(params, amount, signature, block.timestamp);
    }

    function topUp(uint256 which, uint96 amount) external {
        if (known.length == 0) return;
        IEscrow.ChannelParams memory params = known[which % known.length].params;
        IEscrow.Channel memory channel = escrow.channel(known[which % known.length].id);
        uint256 balance = escrow.balanceOf(params.payer);
        if (channel.flags != 1 || channel.closeAt != 0 || balance == 0) return;
        vm.prank(params.payer);
        escrow.topUp(params.signer, params.provider, params.modelId, params.salt, uint96(bound(amount, 1, balance)));
        ++calls["topUp"];
    }

    /// @dev Up to four claims of one provider in one or two groups: good, stale, too high, badly signed, closed.
    function redeem(uint256 with, uint256[4] calldata picks, uint96[4] calldata totals, uint8 faults) external {
        if (known.length == 0) return;
        address provider = providers[with % PROVIDERS];
        IEscrow.Group[] memory groups = new IEscrow.Group[](MODELS);
        for (uint256 i; i < MODELS; ++i) {
            groups[i].modelId = modelIds[i];
        }
        for (uint256 i; i < picks.length; ++i) {
            Known storage channel = known[picks[i] % known.length];
            uint256 group = channel.params.modelId == modelIds[0] ? 0 : 1;
            bytes memory claim = _claim(channel, totals[i], (faults >> (2 * i)) % 4);
            groups[group].claims = abi.encodePacked(groups[group].claims, claim);
        }
        uint256 heldBefore = _held(provider);
        vm.prank(provider);
        uint256 paid = escrow.redeem(groups);
        eq(_books(provider), paid, "the books of the channels say what was paid");
        eq(_held(provider), heldBefore + paid, "provider + royalty + fee = what was paid");
        if (paid != 0) ++calls["redeem"];
    }

    function requestClose(uint256 which) external {
        (bool found, IEscrow.ChannelParams memory params,) = _find(which, false);
        if (!found) return;
        vm.prank(params.payer);
        escrow.requestClose(params.signer, params.provider, params.modelId, params.salt);
        ++calls["requestClose"];
    }

    function cancelClose(uint256 which) external {
        (bool found, IEscrow.ChannelParams memory params,) = _find(which, true);
        // Not each time, so that some requests live on until somebody finalises them.
        if (!found || which % 2 != 0) return;
        vm.prank(params.payer);
        escrow.cancelClose(params.signer, params.provider, params.modelId, params.salt);
        ++calls["cancelClose"];
    }

    function finalizeClose(uint256 which) external {
        (bool found, IEscrow.ChannelParams memory params, uint40 closeAt) = _find(which, true);
        if (!found) return;
        if (block.timestamp < closeAt) vm.warp(closeAt);
        escrow.finalizeClose(params);
        ++calls["finalizeClose"];
    }

    function closeByProvider(uint256 which) external {
        (bool found, IEscrow.ChannelParams memory params,) = _find(which, which % 2 == 0);
        // Not each time: channels should live long enough for everything else to happen to them.
        if (!found || which % 8 > 1) return;
        vm.prank(params.provider);
        escrow.closeByProvider(params);
        ++calls["closeByProvider"];
    }

    function withdraw(uint256 who, uint96 amount) external {
        address payer = payers[who % PAYERS];
        uint256 balance = escrow.balanceOf(payer);
        if (balance == 0) return;
        amount = uint96(bound(amount, 1, balance));
        if ((who >> 8) % 2 == 0) {
            vm.prank(payer);
            escrow.withdraw(amount);
        } else {
            bytes32 structHash =
                keccak256(abi.encode(WITHDRAW_TYPEHASH, payer, amount, escrow.nonces(payer), block.timestamp));
            bytes memory signature = _sign(_payerKey(who % PAYERS), structHash);
            vm.prank(relayer);
            escrow.withdrawWithSig(payer, amount, signature, block.timestamp);
        }
        due[payer] -= amount;
        ++calls["withdraw"];
    }

    function claimCredit(uint256 who) external {
        address account = publishers[who % 2];
        uint256 credit = escrow.creditOf(account);
        if (credit == 0) return;
        eq(escrow.claimCredit(account), credit, "all of it");
        ++calls["claimCredit"];
    }

    function claimFees(uint256 which) external {
        address[] memory holders = new address[](1 + which % 2);
        uint256 fees;
        for (uint256 i; i < holders.length; ++i) {
            holders[i] = publishers[i];
            fees += escrow.feesOf(publishers[i]);
        }
        if (fees == 0) return;
        eq(escrow.claimFees(holders), fees, "all of it");
        ++calls["claimFees"];
    }

    function pause(bool end) external {
        (, uint40 next) = escrow.pauses();
        if (!end && block.timestamp < next) return;
        vm.prank(guardian);
        if (end) escrow.endPause();
        else escrow.pause();
        ++calls["pause"];
    }

    function donate(uint64 amount) external {
        token.mint(address(escrow), amount);
        donated += amount;
    }

    function sellModel(uint256 which, uint256 to) external {
        uint256 i = which % MODELS;
        address holder = models.ownerOf(uint256(modelIds[i]));
        vm.prank(holder);
        // Only among publishers, so that every credit has an account that is counted.
        models.transferFrom(holder, publishers[to % MODELS], uint256(modelIds[i]));
    }

    // ---- what must hold ----------------------------------------------------------------------------------------

    function channels() external view returns (uint256) {
        return known.length;
    }

    function id(uint256 i) public view returns (bytes32) {
        return known[i].id;
    }

    function highestSigned(uint256 i) external view returns (uint256) {
        return known[i].highestSigned;
    }

    function redeemedBefore(uint256 i) external view returns (uint256) {
        return known[i].redeemed;
    }

    function payerOf(uint256 i) external view returns (address) {
        return known[i].params.payer;
    }

    /// @notice All that the escrow owes to anybody.
    function owed() external view returns (uint256 sum) {
        for (uint256 i; i < PAYERS; ++i) {
            sum += escrow.balanceOf(payers[i]);
        }
        for (uint256 i; i < MODELS; ++i) {
            sum += escrow.creditOf(publishers[i]) + escrow.feesOf(publishers[i]);
        }
        for (uint256 i; i < known.length; ++i) {
            IEscrow.Channel memory channel = escrow.channel(id(i));
            sum += channel.funded - channel.redeemed;
        }
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    function _payerKey(uint256 i) private pure returns (uint256) {
        return uint256(keccak256(abi.encode("payer", i)));
    }

    function _sign(uint256 key, bytes32 structHash) private view returns (bytes memory) {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), structHash));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _paused() private view returns (bool) {
        (uint40 until,) = escrow.pauses();
        return block.timestamp < until;
    }

    function _idOf(IEscrow.ChannelParams memory params) private view returns (bytes32) {
        return escrow.channelIdOf(params.payer, params.signer, params.provider, params.modelId, params.salt);
    }

    /// @dev Money of about a dollar, sometimes of a few units: small sums are where rounding shows.
    function _mint(address to, uint96 amount) private returns (uint96) {
        amount = uint96(bound(amount, 40, amount % 2 == 0 ? 2_000_000 : 100));
        token.mint(to, amount);
        return amount;
    }

    /// @dev `fault` 1 signs with a wrong key, 2 claims more than was signed, 3 claims a part, 0 all.
    function _claim(Known storage channel, uint96 total, uint256 fault) private returns (bytes memory) {
        IEscrow.ChannelParams memory params = channel.params;
        uint96 signed = uint96(bound(total, 0, 3_000_000));
        uint96 amount = fault == 2 ? signed + 1 : fault == 3 ? signed / 2 : signed;
        if (fault != 1 && signed > channel.highestSigned) channel.highestSigned = signed;
        bytes memory terms = abi.encodePacked(params.payer, params.signer, params.salt, signed, amount);
        bytes32 digest = escrow.voucherHash(channel.id, signed, bytes32("head"));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(fault == 1 ? channel.key + 1 : channel.key, digest);
        return abi.encodePacked(terms, bytes32("head"), r, s | bytes32(uint256(v - 27) << 255));
    }

    /// @dev What the provider, all publishers and the treasury hold or are credited; a token's own fee is added back.
    function _held(address provider) private view returns (uint256 sum) {
        sum = token.balanceOf(provider);
        for (uint256 i; i < MODELS; ++i) {
            sum += escrow.creditOf(publishers[i]) + escrow.feesOf(publishers[i]);
        }
        sum += _kept(provider);
    }

    /// @dev What a token with a fee kept of transfers to this provider; zero for an honest token.
    function _kept(address) internal view virtual returns (uint256) {
        return 0;
    }

    /// @dev Takes over what channels have redeemed, and returns by how much that grew on this provider's channels.
    function _books(address provider) private returns (uint256 grown) {
        for (uint256 i; i < known.length; ++i) {
            uint256 redeemed = escrow.channel(id(i)).redeemed;
            uint256 delta = redeemed - known[i].redeemed;
            if (known[i].params.provider == provider) grown += delta;
            else eq(delta, 0, "another provider's channel");
            due[known[i].params.payer] -= delta;
            known[i].redeemed = redeemed;
        }
    }

    /// @dev The first open channel from `which` on for which a close was requested, or was not.
    function _find(uint256 which, bool closing)
        private
        view
        returns (bool found, IEscrow.ChannelParams memory params, uint40 closeAt)
    {
        for (uint256 i; i < known.length; ++i) {
            Known storage one = known[addmod(which, i, known.length)];
            params = one.params;
            IEscrow.Channel memory channel = escrow.channel(one.id);
            if (channel.flags == 1 && (channel.closeAt != 0) == closing) return (true, params, channel.closeAt);
        }
    }
}

/// @notice The dollar, in the form that {Actors} mint.
contract Dollar is Mintable {}

/// @notice The invariants of SPEC.md, after any sequence of calls, with an honest token.
contract ConservationTest is Test {
    Actors internal actors;

    function setUp() public virtual {
        actors = new Actors(new Dollar());
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actors);
    }

    /// @dev The actors skip what is not possible; this shows that enough is left, so that no invariant holds idly.
    function test_every_action_happens() public {
        for (uint256 i; i < 400; ++i) {
            _act(uint256(keccak256(abi.encode(i))));
        }
        string[12] memory names = [
            "deposit",
            "open",
            "openWithSig",
            "pause",
            "claimFees",
            "topUp",
            "redeem",
            "requestClose",
            "cancelClose",
            "finalizeClose",
            "closeByProvider",
            "withdraw"
        ];
        for (uint256 i; i < names.length; ++i) {
            yes(actors.calls(names[i]) >= 3, names[i]);
        }
        yes(actors.calls("claimCredit") >= 3, "claimCredit");
        this.invariant_the_books_are_true();
    }

    /// @dev All invariants in one: a campaign each would make the same calls several times over.
    function invariant_the_books_are_true() external view {
        _holds_what_it_owes();
        _redeemed_is_bounded_and_never_falls();
        _a_payers_money_moves_by_voucher_or_by_itself();
    }

    function _act(uint256 r) private {
        uint256 kind = r % 12;
        uint256 x = r >> 8;
        if (kind == 0) actors.deposit(x, uint96(x));
        if (kind <= 2) actors.open(x, x >> 16, uint96(x), uint96(x >> 32), uint8(kind + (x >> 128)));
        if (kind == 3) actors.topUp(x, uint96(x >> 8));
        if (kind >= 4 && kind <= 6) {
            actors.redeem(
                x,
                [x >> 8, x >> 16, x >> 24, x >> 32],
                [uint96(x >> 40), uint96(x >> 60), uint96(x >> 80), uint96(x >> 100)],
                uint8(x >> 200)
            );
        }
        if (kind == 7) actors.requestClose(x);
        if (kind == 8) actors.cancelClose(x);
        if (kind == 9) actors.finalizeClose(x);
        if (kind == 10) actors.closeByProvider(x);
        if (kind == 11) actors.withdraw(x, uint96(x));
        if (x % 5 == 0) actors.claimCredit(x);
        if (x % 7 == 0) actors.claimFees(x);
        if (x % 11 == 0) actors.pause(x % 2 == 0);
    }

    /// @dev Invariant 1: the escrow holds what it owes, and more only if somebody gave it.
    function _holds_what_it_owes() private view {
        eq(actors.token().balanceOf(address(actors.escrow())), actors.owed() + actors.donated(), "held");
    }

    /// @dev Invariants 2 and 3.
    function _redeemed_is_bounded_and_never_falls() private view {
        for (uint256 i; i < actors.channels(); ++i) {
            IEscrow.Channel memory channel = actors.escrow().channel(actors.id(i));
            yes(channel.redeemed <= channel.funded, "2: redeemed <= funded");
            eq(channel.redeemed, actors.redeemedBefore(i), "2: changes by a redemption alone");
            yes(channel.redeemed <= actors.highestSigned(i), "3: redeemed <= signed");
            yes(channel.flags == 1 || (channel.flags == 3 && channel.funded == channel.redeemed), "open or empty");
        }
    }

    /// @dev Invariant 4: what a payer has left is what it put in, less what it took out and what its vouchers paid.
    function _a_payers_money_moves_by_voucher_or_by_itself() private view {
        for (uint256 p; p < 5; ++p) {
            address payer = actors.payers(p);
            uint256 has = actors.escrow().balanceOf(payer);
            for (uint256 i; i < actors.channels(); ++i) {
                if (actors.payerOf(i) != payer) continue;
                IEscrow.Channel memory channel = actors.escrow().channel(actors.id(i));
                has += channel.funded - channel.redeemed;
            }
            eq(has, actors.due(payer), "4: a payer's money");
        }
    }
}

/// @notice Actors with a token that keeps a part of each transfer.
contract ActorsWithFee is Actors {
    constructor(FeeOnTransfer token_) Actors(token_) {}

    function _kept(address provider) internal view override returns (uint256) {
        return FeeOnTransfer(address(token)).keptOn(provider);
    }
}

/// @notice The same with a token that takes a fee: less arrives, and the books say so.
contract ConservationWithFeeTest is ConservationTest {
    function setUp() public override {
        actors = new ActorsWithFee(new FeeOnTransfer());
    }
}

/// @notice The same with a token that, in the middle of each transfer, calls what anybody may call and what moves money.
contract ConservationWithReentrancyTest is ConservationTest {
    function setUp() public override {
        Reentrant hostile = new Reentrant();
        actors = new Actors(hostile);
        address[] memory holders = new address[](2);
        (holders[0], holders[1]) = (actors.publishers(0), actors.publishers(1));
        hostile.arm(address(actors.escrow()), abi.encodeCall(Escrow.claimFees, (holders)));
    }
}
