//! Channels without a coin for gas: the payer signs, the seller of the channel sends.
//!
//! A seller is not believed. What it was asked to do is looked up on the chain; what it refused or kept silent about may
//! still happen for as long as the order is good, so a channel whose order was given away is not forgotten.

use std::{sync::Arc, time::Duration};

use rialto_network::{Error as NetworkError, Node};
use rialto_protocol::{
    ChannelParams, Digest, MicroDollars,
    channel::ChannelState,
    order::SignedOrder,
    wire::{OffersRequest, OffersResponse},
};
use rialto_settlement::{Error as ChainError, Funds};
use tokio::time::{Instant, timeout};

use super::{Ledger, funding};
use crate::{Book, Error, config::Gas, store::now};

/// For how long an order is good, in seconds: it bounds for how long a seller can sit on it.
const GOOD_FOR: u64 = 600;

/// How long a seller is waited for. An honest one answers once its transaction is in a block.
const ANSWER: Duration = Duration::from_secs(20);

/// How long the chain is looked at for what a seller says, or should, have done; and the pause between two looks.
const LOOK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(100));

/// As [`LOOK`] when the seller refused: it may lie.
const SHORT_LOOK: Duration = Duration::from_millis(500);

/// What opening and closing a channel takes at most; an account with fewer coins cannot.
const GAS_NEEDED: u128 = 400_000;

/// Who sells, and how they are reached.
#[derive(Debug)]
pub(crate) struct Sellers {
    pub(crate) node: Node,
    pub(crate) book: Arc<Book>,
}

/// Why a transaction was not seen in a block.
pub(super) enum OpenError {
    /// It was not sent, and will not be.
    NotSent(ChainError),
    /// It may still be.
    Unknown(Error),
}

impl OpenError {
    /// For a request that needs so much in a channel.
    pub(super) fn explained(self, needed: MicroDollars) -> Error {
        match self {
            Self::NotSent(error) => funding::explain(&error, needed),
            Self::Unknown(error) => error,
        }
    }
}

impl From<ChainError> for OpenError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Timeout { transaction } => Self::Unknown(Error::Settlement(format!(
                "the outcome of transaction {transaction} is not known yet"
            ))),
            other => Self::NotSent(other),
        }
    }
}

/// Whether the sellers have to send what this payer signs.
pub(super) async fn is_needed(ledger: &Ledger) -> Result<bool, ChainError> {
    let needed = match ledger.config.gas {
        Gas::Wallet => false,
        Gas::Seller => true,
        Gas::Auto => {
            let chain = ledger.wallet.chain();
            let price = chain.gas_price().await?;
            chain.native_balance(ledger.wallet.address()).await? < price.saturating_mul(GAS_NEEDED)
        }
    };
    ledger.gasless.store(needed, std::sync::atomic::Ordering::Relaxed);
    Ok(needed)
}

/// Has a channel opened by its seller; returns the transaction that the seller named, once the channel is there.
pub(super) async fn open(
    ledger: &Ledger,
    params: &ChannelParams,
    amount: MicroDollars,
    funds: Funds,
) -> Result<Digest, OpenError> {
    let order = ledger
        .wallet
        .sign_open(params, amount, funds, soon(ledger).await?)
        .await?;
    carry_open(ledger, params, order, amount).await
}

/// As [`open`], with an order that is signed already.
pub(super) async fn carry_open(
    ledger: &Ledger,
    params: &ChannelParams,
    order: SignedOrder,
    amount: MicroDollars,
) -> Result<Digest, OpenError> {
    let is_open = move |state: &ChannelState| state.is_open() && state.funded >= amount;
    carry(ledger, params, order, is_open).await
}

/// Asks for a channel to be closed: by a transaction of this account, or through the seller.
pub(super) async fn request_close(ledger: &Ledger, params: &ChannelParams) -> Result<Digest, OpenError> {
    if !is_needed(ledger).await? {
        return Ok(ledger.wallet.request_close(params).await?.transaction);
    }
    let order = ledger.wallet.sign_request_close(params, soon(ledger).await?).await?;
    carry(ledger, params, order, |state| state.closed || state.closes_at > 0).await
}

/// Closes a channel whose challenge period has passed: by a transaction of this account, or through the seller, which
/// takes an order to close it for that.
pub(super) async fn finalize_close(ledger: &Ledger, params: &ChannelParams) -> Result<Digest, OpenError> {
    if !is_needed(ledger).await? {
        return Ok(ledger.wallet.finalize_close(params).await?.transaction);
    }
    let order = ledger.wallet.sign_request_close(params, soon(ledger).await?).await?;
    carry(ledger, params, order, |state| state.closed).await
}

pub(super) async fn soon(ledger: &Ledger) -> Result<u64, ChainError> {
    // A chain that nobody uses has an old newest block; one for tests may be ahead of this clock.
    let block_time = ledger.wallet.chain().block_time().await?;
    Ok(block_time.max(now()).saturating_add(GOOD_FOR))
}

/// Gives an order to the seller and looks on the chain whether it was carried out.
async fn carry(
    ledger: &Ledger,
    params: &ChannelParams,
    order: SignedOrder,
    done: impl Fn(&ChannelState) -> bool,
) -> Result<Digest, OpenError> {
    let Some(peer) = ledger.sellers.book.peer_of(params.provider) else {
        return Err(OpenError::NotSent(ChainError::Rejected {
            reason: format!("the seller {} is not in the book of offers", params.provider),
        }));
    };
    let request = OffersRequest::Relay(Box::new(order));
    let answer = timeout(ANSWER, ledger.sellers.node.offers(&peer, &request)).await;
    let answer = answer.unwrap_or(Err(NetworkError::Timeout));
    let (transaction, complaint, patience) = match answer {
        Ok(OffersResponse::Relayed { transaction }) => {
            let complaint = "it says that it did, and the chain does not show it".to_owned();
            (transaction, complaint, LOOK.0)
        }
        Ok(OffersResponse::NotRelayed(refusal)) => {
            // Another's words: cut, so that they cannot fill the log.
            let said: String = refusal.message.chars().take(200).collect();
            (Digest::default(), said, SHORT_LOOK)
        }
        Ok(_) => (Digest::default(), "it answered another question".to_owned(), SHORT_LOOK),
        Err(error) => (Digest::default(), error.to_string(), LOOK.0),
    };
    let started = Instant::now();
    let trouble = loop {
        let trouble = match ledger.wallet.chain().channel(params.id()).await {
            Ok(state) if done(&state) => return Ok(transaction),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() >= patience {
            break trouble;
        }
        tokio::time::sleep(LOOK.1).await;
    };
    Err(OpenError::Unknown(match trouble {
        Some(error) => funding::explain(&error, MicroDollars::ZERO),
        None => Error::Settlement(format!(
            "the seller {} did not send an order of this account, which has no coin for gas: {complaint}",
            params.provider
        )),
    }))
}
