//! The parts of the contracts' interfaces that are used here; `contracts/src/interfaces` documents them. A test
//! compares every signature with the compiled artifacts.

alloy::sol! {
    #[derive(Debug)]
    struct ChannelParams {
        address payer;
        address signer;
        address provider;
        bytes32 modelId;
        uint96 salt;
    }

    #[derive(Debug)]
    struct Channel {
        uint96 funded;
        uint96 redeemed;
        uint40 closeAt;
        uint24 flags;
    }

    #[derive(Debug)]
    struct Group {
        bytes32 modelId;
        bytes claims;
    }

    #[derive(Debug)]
    struct Terms {
        address token;
        address models;
        address guardian;
        address feeRecipient;
        uint16 feeBps;
        uint40 challengePeriod;
    }

    interface Escrow {
        event Deposited(address indexed payer, uint256 amount);
        event Withdrawn(address indexed payer, uint256 amount);
        event Opened(address indexed payer, address indexed provider, bytes32 modelId, bytes32 signerAndSalt, uint96 amount);
        event DepositedAndOpened(address indexed payer, address indexed provider, bytes32 modelId, bytes32 signerAndSalt, uint96 amount);
        event ToppedUp(bytes32 indexed channelId, address indexed provider, uint96 amount, uint96 funded);
        event Redeemed(address indexed provider, uint256 providerAmount, bytes groups);
        event CloseRequested(bytes32 indexed channelId, address indexed provider, uint40 closeAt);
        event CloseCancelled(bytes32 indexed channelId, address indexed provider);
        event Closed(bytes32 indexed channelId, address indexed payer, address indexed provider, uint96 remainder);
        event CreditClaimed(address indexed account, uint256 amount);
        event FeesClaimed(address indexed feeRecipient, uint256 amount, address[] holders);
        event Paused(uint40 until);
        event Unpaused();

        function deposit(uint96 amount) external;
        function depositWithPermit(address payer, uint96 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
        function depositWithAuthorization(address payer, uint96 amount, uint256 validAfter, uint256 validBefore, bytes32 salt, uint8 v, bytes32 r, bytes32 s) external;
        function open(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount) external returns (bytes32 channelId);
        function openWithSig(ChannelParams calldata params, uint96 amount, bytes calldata signature, uint256 deadline) external returns (bytes32 channelId);
        function depositAndOpen(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount) external returns (bytes32 channelId);
        function depositAndOpenWithAuthorization(ChannelParams calldata params, uint96 amount, uint256 validAfter, uint256 validBefore, uint8 v, bytes32 r, bytes32 s) external returns (bytes32 channelId);
        function topUp(address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount) external;
        function redeem(Group[] calldata groups) external returns (uint256 paid);
        function closeByProvider(ChannelParams calldata params) external;
        function requestClose(address signer, address provider, bytes32 modelId, uint96 salt) external;
        function requestCloseWithSig(ChannelParams calldata params, bytes calldata signature, uint256 deadline) external;
        function cancelClose(address signer, address provider, bytes32 modelId, uint96 salt) external;
        function finalizeClose(ChannelParams calldata params) external;
        function withdraw(uint96 amount) external;
        function withdrawWithSig(address payer, uint96 amount, bytes calldata signature, uint256 deadline) external;
        function claimCredit(address account) external returns (uint256 amount);
        function claimFees(address[] calldata holders) external returns (uint256 amount);
        function pause() external;
        function endPause() external;
        function pauses() external view returns (uint40 pausedUntil, uint40 nextPauseAt);
        function channel(bytes32 channelId) external view returns (Channel memory);
        function terms() external view returns (Terms memory);
        function balanceOf(address payer) external view returns (uint256);
        function creditOf(address account) external view returns (uint256);
        function feesOf(address holder) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);
        function voucherHash(bytes32 channelId, uint96 cumulative, bytes32 receiptsHead) external view returns (bytes32 digest);
    }

    #[derive(Debug)]
    struct Model {
        address publisher;
        uint16 royaltyBps;
        bytes32 manifestHash;
        string quantisation;
        string licence;
    }

    interface Models {
        function register(bytes32 manifestHash, string calldata quantisation, string calldata licence, uint16 royaltyBps) external returns (bytes32 modelId);
        function exists(bytes32 modelId) external view returns (bool);
        function royaltyOf(bytes32 modelId) external view returns (address holder, uint16 royaltyBps);
        function modelOf(bytes32 modelId) external view returns (Model memory);
        function setRoyalty(bytes32 modelId, uint16 royaltyBps) external;
        function pendingRoyaltyOf(bytes32 modelId) external view returns (uint16 royaltyBps, uint40 from);
    }

    #[derive(Debug)]
    struct Provider {
        uint96 stake;
        bytes32 nodeKey;
        bytes8 region;
        bytes32 metadataHash;
        bool active;
        bool convicted;
        uint40 frozenUntil;
    }

    #[derive(Debug)]
    struct Receipt {
        bytes32 channelId;
        uint64 sequence;
        bytes32 requestId;
        bytes32 modelId;
        bytes32 requestHash;
        bytes32 responseHash;
        uint64 inputUnits;
        uint64 outputUnits;
        uint128 costNano;
        uint128 totalNano;
        uint8 status;
        uint64 finishedAt;
        bytes8 region;
        uint64 energyMillijoules;
        bytes32 fingerprintRoot;
        bytes32 previousHead;
    }

    interface Providers {
        function register(uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external;
        function update(bytes32 nodeKey, bytes8 region, bytes32 metadataHash) external;
        function addStake(uint96 amount) external;
        function requestUnstake(uint96 amount) external;
        function completeUnstake() external returns (uint96 amount);
        function freeze(address provider, bytes32 caseHash) external;
        function unfreeze(address provider) external;
        function slash(address provider, uint96 amount, bytes32 offence, address reporter) external returns (uint96 taken);
        function proveEquivocation(Receipt calldata first, bytes calldata firstSignature, Receipt calldata second, bytes calldata secondSignature) external returns (uint96 taken);
        function claimCredit() external returns (uint256 amount);
        function providerOf(address provider) external view returns (Provider memory);
        function unstakingOf(address provider) external view returns (uint96 amount, uint40 availableAt);
        function freezableFrom(address provider) external view returns (uint40);
        function isJudged(bytes32 offence) external view returns (bool);
        function creditOf(address account) external view returns (uint256);
        function token() external view returns (address);
        function escrow() external view returns (address);
        function disputes() external view returns (address);
        function slashRecipient() external view returns (address);
        function unstakeDelay() external view returns (uint40);
        event ProviderRegistered(address indexed provider, uint96 stake, bytes32 nodeKey, bytes8 region, bytes32 metadataHash);
        event ProviderUpdated(address indexed provider, bytes32 nodeKey, bytes8 region, bytes32 metadataHash);
    }

    /// What older stablecoins have in place of `eip712Domain`.
    interface Versioned {
        function version() external view returns (string memory);
    }

    interface TestDollar {
        function balanceOf(address account) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function approve(address spender, uint256 value) external returns (bool);
        function mint(address to, uint256 amount) external;
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function name() external view returns (string memory);
        function eip712Domain() external view returns (bytes1 fields, string memory name, string memory version, uint256 chainId, address verifyingContract, bytes32 salt, uint256[] memory extensions);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy::{
        json_abi::JsonAbi,
        sol_types::{SolEventInterface, SolInterface},
    };

    use super::*;
    use crate::deploy::ARTIFACTS;

    fn abi(artifact: &str) -> JsonAbi {
        let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
        serde_json::from_value(artifact["abi"].clone()).unwrap()
    }

    fn check<C: SolInterface>(artifact: &str) {
        let functions: BTreeSet<_> = abi(artifact)
            .functions()
            .map(|function| function.selector().0)
            .collect();
        for selector in C::selectors() {
            assert!(functions.contains(&selector), "{} has no {selector:02x?}", C::NAME);
        }
        assert!(C::COUNT > 0);
    }

    #[test]
    fn every_function_and_event_is_one_of_the_compiled_contracts() {
        let [escrow, models, providers, token] = ARTIFACTS;
        check::<Escrow::EscrowCalls>(escrow);
        check::<Models::ModelsCalls>(models);
        check::<Providers::ProvidersCalls>(providers);
        check::<TestDollar::TestDollarCalls>(token);
        let events: BTreeSet<_> = abi(escrow).events().map(|event| event.selector().0).collect();
        for selector in Escrow::EscrowEvents::SELECTORS {
            assert!(events.contains(selector), "{selector:02x?}");
        }
        assert_eq!(Escrow::EscrowEvents::COUNT, 13);
        let events: BTreeSet<_> = abi(providers).events().map(|event| event.selector().0).collect();
        for selector in Providers::ProvidersEvents::SELECTORS {
            assert!(events.contains(selector), "{selector:02x?}");
        }
    }
}
