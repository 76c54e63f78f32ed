//! What is called of the contracts, and why they refuse. Declared by hand: a signature that is not the contract's is
//! found at the first step.

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

    struct Group {
        bytes32 modelId;
        bytes claims;
    }

    interface Escrow {
        constructor(address token, address models, address guardian, address feeRecipient, uint16 feeBps, uint40 challengePeriod);

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

        function channel(bytes32 channelId) external view returns (Channel memory);
        function channelIdOf(address payer, address signer, address provider, bytes32 modelId, uint96 salt) external view returns (bytes32 channelId);
        function balanceOf(address payer) external view returns (uint256);
        function creditOf(address account) external view returns (uint256);
        function feesOf(address holder) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);
        function pauses() external view returns (uint40 pausedUntil, uint40 nextPauseAt);
        function voucherHash(bytes32 channelId, uint96 cumulative, bytes32 receiptsHead) external view returns (bytes32 digest);

        error ZeroAmount();
        error InsufficientBalance(uint256 balance, uint256 asked);
        error ChannelExists(bytes32 channelId);
        error ChannelNotOpen(bytes32 channelId);
        error CloseAlreadyRequested(uint40 closeAt);
        error CloseNotRequested();
        error TooEarly(uint40 closeAt);
        error NotPayer();
        error NotProvider();
        error Expired(uint256 deadline);
        error WrongSignature();
        error MalformedClaims(uint256 length);
        error PausedNow(uint40 until);
        error PausedLately(uint40 nextPauseAt);
        error NotGuardian();
        error SafeCastOverflowedUintDowncast(uint8 bits, uint256 value);
    }

    interface Token {
        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 value) external returns (bool);
        function balanceOf(address account) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);

        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
        error ERC3009InvalidSignature();
        error ERC3009InvalidAuthorizationTime(uint256 validAfter, uint256 validBefore);
        error ERC3009UsedAuthorization(address authorizer, bytes32 nonce);
    }

    interface Models {
        function register(bytes32 manifestHash, string calldata quantisation, string calldata licence, uint16 royaltyBps) external returns (bytes32 modelId);
        function setRoyalty(bytes32 modelId, uint16 royaltyBps) external;
        function transferFrom(address from, address to, uint256 tokenId) external;
        function royaltyOf(bytes32 modelId) external view returns (address holder, uint16 royaltyBps);

        error NotHolder(bytes32 modelId);
        error RoyaltyTooHigh(uint16 royaltyBps);
        error ERC721NonexistentToken(uint256 tokenId);
        error ERC721InsufficientApproval(address operator, uint256 tokenId);
    }
}
