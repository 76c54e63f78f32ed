// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Claims} from "../src/Claims.sol";
import {Escrow} from "../src/Escrow.sol";
import {Models} from "../src/Models.sol";
import {Receipt, Receipts} from "../src/Receipts.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IModels} from "../src/interfaces/IModels.sol";
import {Probe} from "./Probe.sol";
import {Test} from "./Test.sol";

/// @notice The vectors shared with Rust. The committed file must be what Solidity says; `WRITE_VECTORS=true` writes it.
contract VectorsTest is Test {
    string private constant PATH = "vectors/eip712.json";
    uint256 private constant CHAIN_ID = 31_337;
    address private constant ESCROW = address(uint160(0x00E5C0000000000000000000000000000000000001));
    address private constant TOKEN = address(uint160(0x00d011A20000000000000000000000000000000002));

    Escrow private escrow = Escrow(ESCROW);
    Models private models = new Models();
    Probe private probe = _probe();
    bytes32[] private modelIds;
    bytes32[] private channelIds;

    function setUp() public {
        vm.chainId(CHAIN_ID);
        Escrow built = new Escrow(IERC20(TOKEN), IModels(models), address(0), address(this), 100, 1 days);
        // At a fixed address the vectors do not depend on who deploys; the domain is derived from where the code runs.
        vm.etch(ESCROW, address(built).code);
    }

    function test_the_committed_vectors_are_what_solidity_says() public {
        string memory json = string.concat("{\n", _domain(), ",\n", _section("models", _models()));
        json = string.concat(json, ",\n", _section("channels", _channels()));
        json = string.concat(json, ",\n", _section("vouchers", _vouchers()));
        json = string.concat(json, ",\n", _section("receipts", _receipts()));
        json = string.concat(json, ",\n", _section("claims", _claims()), "\n}\n");
        if (vm.envOr("WRITE_VECTORS", false)) {
            vm.writeFile(PATH, json);
        } else {
            eq(keccak256(bytes(vm.readFile(PATH))), keccak256(bytes(json)), "vectors are stale: see SPEC.md");
        }
    }

    // ---- sections ----------------------------------------------------------------------------------------------

    function _domain() private view returns (string memory) {
        return string.concat(
            ' "domain": {',
            _field("name", "Rialto"),
            _field("version", "1"),
            _field("chainId", vm.toString(CHAIN_ID)),
            _field("verifyingContract", vm.toString(ESCROW)),
            _last("separator", vm.toString(escrow.domainSeparator())),
            _typeHashes()
        );
    }

    function _typeHashes() private pure returns (string memory) {
        return string.concat(
            '},\n "typeHashes": {',
            _field("voucher", vm.toString(Claims.VOUCHER_TYPEHASH)),
            _last("receipt", vm.toString(Receipts.TYPEHASH)),
            "}"
        );
    }

    function _models() private returns (string memory list) {
        for (uint256 i; i < 3; ++i) {
            address publisher = i == 2 ? address(type(uint160).max) : vm.addr(_key("publisher", i));
            bytes32 manifestHash = keccak256(abi.encode("manifest", i));
            bytes32 modelId = models.modelIdOf(publisher, manifestHash);
            modelIds.push(modelId);
            list = _append(
                list,
                string.concat(
                    _field("publisher", vm.toString(publisher)),
                    _field("manifestHash", vm.toString(manifestHash)),
                    _last("modelId", vm.toString(modelId))
                )
            );
        }
    }

    function _id(IEscrow.ChannelParams memory params) private view returns (bytes32) {
        return escrow.channelIdOf(params.payer, params.signer, params.provider, params.modelId, params.salt);
    }

    function _channels() private returns (string memory list) {
        uint96[4] memory salts = [0, 1, type(uint96).max, 0x0102030405060708090a0b0c];
        for (uint256 i; i < 4; ++i) {
            IEscrow.ChannelParams memory params = _params(i, salts[i]);
            bytes32 channelId = _id(params);
            channelIds.push(channelId);
            list = _append(list, string.concat(_parties(params), _last("channelId", vm.toString(channelId))));
        }
    }

    function _vouchers() private view returns (string memory list) {
        uint96[5] memory totals = [0, 1, 1_000_000, 123_456_789_012, type(uint96).max];
        for (uint256 i; i < 5; ++i) {
            bytes32 channelId = channelIds[i % 4];
            bytes32 head = i == 0 ? bytes32(0) : keccak256(abi.encode("head", i));
            list = _append(
                list,
                string.concat(
                    _field("channelId", vm.toString(channelId)),
                    _field("cumulative", vm.toString(uint256(totals[i]))),
                    _field("receiptsHead", vm.toString(head)),
                    _field(
                        "structHash",
                        vm.toString(keccak256(abi.encode(Claims.VOUCHER_TYPEHASH, channelId, totals[i], head)))
                    ),
                    _signed(_key("signer", i % 4), escrow.voucherHash(channelId, totals[i], head))
                )
            );
        }
    }

    /// @dev Four receipts of one channel in a row, the third and fourth at the limits of every field.
    function _receipts() private view returns (string memory list) {
        bytes32 head;
        for (uint256 i; i < 4; ++i) {
            Receipt memory receipt = _receipt(i, head);
            bytes32 structHash = escrow.receiptStructHash(receipt);
            head = probe.nextHead(head, structHash);
            list = _append(
                list,
                string.concat(
                    _receiptFields(receipt),
                    _field("structHash", vm.toString(structHash)),
                    _field("head", vm.toString(head)),
                    _signed(_key("provider", 0), escrow.receiptHash(receipt))
                )
            );
        }
    }

    function _claims() private view returns (string memory list) {
        for (uint256 i; i < 3; ++i) {
            uint96 cumulative = i == 2 ? type(uint96).max : uint96(5_000_000 * (i + 1));
            uint96 amount = i == 1 ? cumulative - 1 : cumulative;
            list = _append(list, _claim(_params(i, uint96(i)), i, cumulative, amount));
        }
    }

    // ---- parts -------------------------------------------------------------------------------------------------

    function _params(uint256 i, uint96 salt) private view returns (IEscrow.ChannelParams memory) {
        return IEscrow.ChannelParams({
            payer: vm.addr(_key("payer", i)),
            signer: vm.addr(_key("signer", i)),
            provider: vm.addr(_key("provider", i)),
            modelId: modelIds[i % 3],
            salt: salt
        });
    }

    function _parties(IEscrow.ChannelParams memory params) private pure returns (string memory) {
        return string.concat(
            _field("payer", vm.toString(params.payer)),
            _field("signer", vm.toString(params.signer)),
            _field("provider", vm.toString(params.provider)),
            _field("modelId", vm.toString(params.modelId)),
            _field("token", vm.toString(TOKEN)),
            _field("salt", vm.toString(uint256(params.salt)))
        );
    }

    function _claim(IEscrow.ChannelParams memory params, uint256 i, uint96 cumulative, uint96 amount)
        private
        view
        returns (string memory)
    {
        bytes32 head = keccak256(abi.encode("claim head", i));
        string memory fields = string.concat(
            _parties(params),
            _field("cumulative", vm.toString(uint256(cumulative))),
            _field("amount", vm.toString(uint256(amount))),
            _field("receiptsHead", vm.toString(head)),
            _field("key", vm.toString(bytes32(_key("signer", i))))
        );
        bytes32 digest = escrow.voucherHash(_id(params), cumulative, head);
        return string.concat(fields, _last("packed", vm.toString(_packed(params, i, cumulative, amount, head, digest))));
    }

    function _packed(
        IEscrow.ChannelParams memory params,
        uint256 i,
        uint96 cumulative,
        uint96 amount,
        bytes32 head,
        bytes32 digest
    ) private pure returns (bytes memory packed) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_key("signer", i), digest);
        bytes32 vs = s | bytes32(uint256(v - 27) << 255);
        packed = abi.encodePacked(params.payer, params.signer, params.salt, cumulative, amount);
        packed = abi.encodePacked(packed, head, r, vs);
        eq(packed.length, Claims.CLAIM_BYTES, "size of a claim");
    }

    function _receipt(uint256 i, bytes32 head) private view returns (Receipt memory) {
        bool extreme = i == 2;
        bool empty = i == 3;
        return Receipt({
            channelId: channelIds[0],
            sequence: uint64(i + 1),
            requestId: keccak256(abi.encode("request id", i)),
            modelId: modelIds[0],
            requestHash: keccak256(abi.encode("request", i)),
            responseHash: empty ? bytes32(0) : keccak256(abi.encode("response", i)),
            inputUnits: extreme ? type(uint64).max : empty ? 0 : uint64(17 + i),
            outputUnits: extreme ? type(uint64).max : empty ? 0 : uint64(64 + i),
            costNano: extreme ? type(uint128).max : empty ? 0 : uint128(1_500 + i),
            totalNano: extreme || empty ? type(uint128).max : uint128(1_500 * (i + 1) + i),
            status: extreme ? type(uint8).max : uint8(i),
            finishedAt: extreme ? type(uint64).max : uint64(1_700_000_000 + i),
            region: empty ? bytes8(0) : extreme ? bytes8("antarcti") : bytes8("eu-west"),
            energyMillijoules: extreme ? type(uint64).max : empty ? 0 : uint64(9_000 + i),
            fingerprintRoot: i == 0 ? bytes32(0) : keccak256(abi.encode("fingerprint", i)),
            previousHead: head
        });
    }

    function _receiptFields(Receipt memory receipt) private pure returns (string memory) {
        string memory one = string.concat(
            _field("channelId", vm.toString(receipt.channelId)),
            _field("sequence", vm.toString(uint256(receipt.sequence))),
            _field("requestId", vm.toString(receipt.requestId)),
            _field("modelId", vm.toString(receipt.modelId)),
            _field("requestHash", vm.toString(receipt.requestHash))
        );
        string memory two = string.concat(
            _field("responseHash", vm.toString(receipt.responseHash)),
            _field("inputUnits", vm.toString(uint256(receipt.inputUnits))),
            _field("outputUnits", vm.toString(uint256(receipt.outputUnits)))
        );
        string memory three = string.concat(
            _field("costNano", vm.toString(uint256(receipt.costNano))),
            _field("totalNano", vm.toString(uint256(receipt.totalNano))),
            _field("status", vm.toString(uint256(receipt.status))),
            _field("finishedAt", vm.toString(uint256(receipt.finishedAt)))
        );
        return string.concat(
            string.concat(one, two, three),
            _field("region", vm.toString(abi.encodePacked(receipt.region))),
            _field("energyMillijoules", vm.toString(uint256(receipt.energyMillijoules))),
            _field("fingerprintRoot", vm.toString(receipt.fingerprintRoot)),
            _field("previousHead", vm.toString(receipt.previousHead))
        );
    }

    /// @dev The digest, who signed it with which key, and the signature in both forms.
    function _signed(uint256 key, bytes32 digest) private pure returns (string memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return string.concat(
            _field("digest", vm.toString(digest)),
            _field("key", vm.toString(bytes32(key))),
            _field("signedBy", vm.toString(vm.addr(key))),
            _field("signature", vm.toString(abi.encodePacked(r, s, v))),
            _last("compact", vm.toString(abi.encodePacked(r, s | bytes32(uint256(v - 27) << 255))))
        );
    }

    /// @dev Keys that anybody can derive: they sign test vectors and nothing else.
    function _key(string memory role, uint256 i) private pure returns (uint256) {
        return uint256(keccak256(abi.encode("rialto test vector key", role, i)));
    }

    function _field(string memory name, string memory value) private pure returns (string memory) {
        return string.concat(_last(name, value), ", ");
    }

    function _last(string memory name, string memory value) private pure returns (string memory) {
        return string.concat('"', name, '": "', value, '"');
    }

    function _append(string memory list, string memory entry) private pure returns (string memory) {
        return string.concat(list, bytes(list).length == 0 ? "\n  {" : ",\n  {", entry, "}");
    }

    function _section(string memory name, string memory list) private pure returns (string memory) {
        return string.concat(' "', name, '": [', list, "\n ]");
    }
}
