//! Names for what happened, and what a run of traces must have seen to be worth anything.

use alloy::sol_types::SolError;

use crate::{
    abi::{Escrow, Models, Token},
    evm::Outcome,
    model::token::{ECDSAInvalidSignature, ECDSAInvalidSignatureS},
    ops::Op,
    trace::Tally,
};

macro_rules! names {
    ($data:expr, $($error:ty),+ $(,)?) => {
        match $data.get(..4) {
            $(Some(selector) if selector == <$error>::SELECTOR => <$error>::SIGNATURE.split('(').next().unwrap_or(""),)+
            _ => "an unknown error",
        }
    };
}

/// `ok`, or the name of the error.
pub(crate) fn name(outcome: &Outcome) -> String {
    let data = match outcome {
        Outcome::Returned(_) => return "ok".to_owned(),
        Outcome::Refused(data) => data,
    };
    let name = names!(
        data,
        Escrow::ZeroAmount,
        Escrow::InsufficientBalance,
        Escrow::ChannelExists,
        Escrow::ChannelNotOpen,
        Escrow::CloseAlreadyRequested,
        Escrow::CloseNotRequested,
        Escrow::TooEarly,
        Escrow::NotPayer,
        Escrow::NotProvider,
        Escrow::Expired,
        Escrow::WrongSignature,
        Escrow::MalformedClaims,
        Escrow::PausedNow,
        Escrow::PausedLately,
        Escrow::NotGuardian,
        Escrow::SafeCastOverflowedUintDowncast,
        Token::ERC20InsufficientBalance,
        Token::ERC20InsufficientAllowance,
        Token::ERC3009InvalidSignature,
        Token::ERC3009InvalidAuthorizationTime,
        Token::ERC3009UsedAuthorization,
        ECDSAInvalidSignature,
        ECDSAInvalidSignatureS,
        Models::NotHolder,
        Models::RoyaltyTooHigh,
        Models::ERC721NonexistentToken,
        Models::ERC721InsufficientApproval,
    );
    name.to_owned()
}

/// The name of an operation.
pub(crate) fn operation(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

/// What has to have happened in ten thousand steps: every operation with success, and every refusal that an escrow knows.
const SEEN: [(&str, &str); 51] = [
    ("Approve", "ok"),
    ("Deposit", "ok"),
    ("Deposit", "PausedNow"),
    ("Deposit", "ZeroAmount"),
    ("Deposit", "ERC20InsufficientAllowance"),
    ("Deposit", "ERC20InsufficientBalance"),
    ("DepositWithPermit", "ok"),
    ("DepositWithPermit", "NotPayer"),
    ("DepositWithAuthorization", "ok"),
    ("DepositWithAuthorization", "ERC3009InvalidSignature"),
    ("DepositWithAuthorization", "ERC3009InvalidAuthorizationTime"),
    ("DepositWithAuthorization", "ERC3009UsedAuthorization"),
    ("Open", "ok"),
    ("Open", "InsufficientBalance"),
    ("Open", "ChannelExists"),
    ("Open", "PausedNow"),
    ("OpenWithSig", "ok"),
    ("OpenWithSig", "Expired"),
    ("OpenWithSig", "WrongSignature"),
    ("DepositAndOpen", "ok"),
    ("DepositAndOpen", "ChannelExists"),
    ("DepositAndOpen", "PausedNow"),
    ("DepositAndOpenWithAuthorization", "ok"),
    ("DepositAndOpenWithAuthorization", "ERC3009InvalidSignature"),
    ("TopUp", "ok"),
    ("TopUp", "InsufficientBalance"),
    ("TopUp", "ChannelNotOpen"),
    ("TopUp", "CloseAlreadyRequested"),
    ("Redeem", "paid"),
    ("Redeem", "ok"),
    ("Redeem", "MalformedClaims"),
    ("CloseByProvider", "ok"),
    ("CloseByProvider", "NotProvider"),
    ("CloseByProvider", "ChannelNotOpen"),
    ("RequestClose", "ok"),
    ("RequestClose", "CloseAlreadyRequested"),
    ("RequestCloseWithSig", "ok"),
    ("RequestCloseWithSig", "WrongSignature"),
    ("CancelClose", "ok"),
    ("CancelClose", "CloseNotRequested"),
    ("FinalizeClose", "ok"),
    ("FinalizeClose", "TooEarly"),
    ("Withdraw", "ok"),
    ("Withdraw", "ZeroAmount"),
    ("WithdrawWithSig", "ok"),
    ("WithdrawWithSig", "WrongSignature"),
    ("ClaimCredit", "ok"),
    ("ClaimFees", "ok"),
    ("Pause", "PausedLately"),
    ("SetRoyalty", "ok"),
    ("SellModel", "ok"),
];

/// What a long run should have seen and did not.
pub(crate) fn missing(tally: &Tally) -> Vec<String> {
    let unseen = SEEN
        .iter()
        .filter(|(op, ended)| !tally.contains_key(&((*op).to_owned(), (*ended).to_owned())));
    unseen.map(|(op, ended)| format!("{op}: {ended}")).collect()
}
