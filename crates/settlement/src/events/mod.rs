//! What the escrow did, as it is logged on chain.

mod decode;
mod registry;

use alloy::{
    rpc::types::{Filter, Log},
    sol_types::SolEvent,
};
use rialto_protocol::{Address, ChannelId, ChannelParams, Digest, MicroDollars};

pub(crate) use self::decode::kind;
use crate::{Chain, Error, abi, bindings::Escrow, rpc::Failure};

/// Blocks that one question to the node covers, unless it refuses so many.
const BLOCKS_PER_QUESTION: u64 = 1_000;

/// Blocks that one call of [`Chain::events`] covers at most.
pub const MAX_EVENT_BLOCKS: u64 = 10 * BLOCKS_PER_QUESTION;

/// Questions that are answered before the next one is wider again.
const ANSWERS_TO_WIDEN: u32 = 16;

/// Something that the escrow did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEvent {
    /// The block.
    pub block: u64,
    /// The position of the log in its block.
    pub index: u64,
    /// The transaction's hash.
    pub transaction: Digest,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A payer's free balance grew.
    Deposited {
        /// Whose.
        payer: Address,
        /// By this much.
        amount: MicroDollars,
    },
    /// A payer took money out of its free balance.
    Withdrawn {
        /// Who.
        payer: Address,
        /// This much.
        amount: MicroDollars,
    },
    /// A channel was opened with an amount.
    Opened {
        /// Its id is [`ChannelParams::id`].
        params: ChannelParams,
        /// What it holds.
        amount: MicroDollars,
        /// Whether that came out of the payer's free balance, and not from its account.
        from_balance: bool,
    },
    /// A channel got more.
    ToppedUp {
        /// Which.
        channel: ChannelId,
        /// Its provider.
        provider: Address,
        /// What was added.
        amount: MicroDollars,
        /// What it holds now, with what was paid out.
        funded: MicroDollars,
    },
    /// A payer asked to close; the provider has until then to redeem.
    CloseRequested {
        /// Which.
        channel: ChannelId,
        /// Its provider.
        provider: Address,
        /// Seconds since 1970, by the chain's clock.
        closes_at: u64,
    },
    /// The request was taken back.
    CloseCancelled {
        /// Which.
        channel: ChannelId,
        /// Its provider.
        provider: Address,
    },
    /// A channel was closed.
    Closed {
        /// Which.
        channel: ChannelId,
        /// Whose money it was.
        payer: Address,
        /// Its provider.
        provider: Address,
        /// What went back to the payer's free balance.
        remainder: MicroDollars,
    },
    /// A provider was paid.
    Redeemed {
        /// Who.
        provider: Address,
        /// What it received.
        amount: MicroDollars,
        /// What holders of models were credited in all.
        royalty: MicroDollars,
        /// What the protocol was credited.
        fee: MicroDollars,
        /// Channels, and what each has paid in all since it was opened.
        channels: Vec<(ChannelId, MicroDollars)>,
        /// Holders, and what each was credited; one may appear several times.
        royalties: Vec<(Address, MicroDollars)>,
        /// Beside which holders the fee was credited. Zero stands for the fee recipient: nobody holds that model.
        fees: Vec<(Address, MicroDollars)>,
    },
    /// Somebody was sent its royalties, all of them.
    CreditClaimed {
        /// Who.
        account: Address,
        /// This much.
        amount: MicroDollars,
    },
    /// The fee recipient was sent the fees that were credited beside these holders, all of them.
    FeesClaimed {
        /// The fee recipient.
        recipient: Address,
        /// This much.
        amount: MicroDollars,
        /// The holders, as whoever sent the transaction named them: some may have had none, or be named twice.
        holders: Vec<Address>,
    },
    /// The guardian refused deposits and opens for a while.
    Paused {
        /// Seconds since 1970, by the chain's clock.
        until: u64,
    },
    /// The guardian ended that.
    Unpaused,
}

impl EventKind {
    /// What a log of an escrow says, wherever it was found: in a receipt, or in an EVM of this process. `token` is the
    /// escrow's stablecoin, which channels' ids are made of.
    pub fn of_log(log: &alloy::primitives::Log, token: Address) -> Result<Self, Error> {
        let inner = log.clone();
        kind(
            &Log {
                inner,
                ..Log::default()
            },
            token,
        )
    }
}

/// Reads events; see [`Chain::events`].
pub(crate) async fn read(chain: &Chain, from_block: u64) -> Result<(Vec<ChainEvent>, u64), Error> {
    let head = chain.block_number().await?;
    let end = head.min(from_block.saturating_add(MAX_EVENT_BLOCKS - 1));
    let events = read_range(chain, from_block, end).await?;
    Ok((events, from_block.max(end.saturating_add(1))))
}

impl Chain {
    /// Whether the escrow logged that a channel was opened in these blocks, both included.
    pub async fn was_opened(&self, params: &ChannelParams, first: u64, last: u64) -> Result<bool, Error> {
        let filter = Filter::new()
            .address(abi::to_evm(self.contracts().escrow))
            .event_signature(vec![
                Escrow::Opened::SIGNATURE_HASH,
                Escrow::DepositedAndOpened::SIGNATURE_HASH,
            ])
            .topic1(abi::to_evm(params.payer).into_word())
            .topic2(abi::to_evm(params.provider).into_word());
        let events = questions(self, &filter, first, last).await?;
        Ok(events
            .iter()
            .any(|event| matches!(&event.kind, EventKind::Opened { params: opened, .. } if opened == params)))
    }
}

/// The events of these blocks, both included, in order.
pub(crate) async fn read_range(chain: &Chain, from_block: u64, end: u64) -> Result<Vec<ChainEvent>, Error> {
    let filter = Filter::new()
        .address(abi::to_evm(chain.contracts().escrow))
        .event_signature(vec![
            Escrow::Deposited::SIGNATURE_HASH,
            Escrow::Withdrawn::SIGNATURE_HASH,
            Escrow::Opened::SIGNATURE_HASH,
            Escrow::DepositedAndOpened::SIGNATURE_HASH,
            Escrow::ToppedUp::SIGNATURE_HASH,
            Escrow::CloseRequested::SIGNATURE_HASH,
            Escrow::CloseCancelled::SIGNATURE_HASH,
            Escrow::Closed::SIGNATURE_HASH,
            Escrow::Redeemed::SIGNATURE_HASH,
            Escrow::CreditClaimed::SIGNATURE_HASH,
            Escrow::FeesClaimed::SIGNATURE_HASH,
            Escrow::Paused::SIGNATURE_HASH,
            Escrow::Unpaused::SIGNATURE_HASH,
        ]);
    questions(chain, &filter, from_block, end).await
}

async fn questions(chain: &Chain, filter: &Filter, from_block: u64, end: u64) -> Result<Vec<ChainEvent>, Error> {
    let logs = logs(chain, filter, from_block, end).await?;
    let mut events = logs
        .iter()
        .map(|log| event(chain, log))
        .collect::<Result<Vec<_>, _>>()?;
    events.sort_by_key(|event| (event.block, event.index));
    Ok(events)
}

/// The logs of these blocks, both included, asked for in as many questions as the node wants. What else a log says is not
/// checked.
async fn logs(chain: &Chain, filter: &Filter, from_block: u64, end: u64) -> Result<Vec<Log>, Error> {
    let mut span = Span::default();
    let mut all = Vec::new();
    let mut first = from_block;
    while first <= end {
        let last = end.min(first.saturating_add(span.blocks - 1));
        let asked = filter.clone().from_block(first).to_block(last);
        let logs: Vec<Log> = match chain.link.rpc.request("eth_getLogs", (asked,)).await {
            Ok(logs) => logs,
            Err(failure) if span.is_too_wide(&failure, first, last) => continue,
            Err(failure) => return Err(failure.into()),
        };
        let asked_for = |log: &Log| log.block_number.is_some_and(|block| (first..=last).contains(&block));
        if !logs.iter().all(asked_for) {
            return Err(Error::corrupt("a log from a block that was not asked for"));
        }
        all.extend(logs);
        span.answered();
        first = last.saturating_add(1);
    }
    Ok(all)
}

/// How many blocks the next question covers. Nodes have limits of their own, in blocks, logs or bytes, and words of
/// their own for them.
#[derive(Debug)]
struct Span {
    blocks: u64,
    /// Answers since it was changed.
    answers: u32,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            blocks: BLOCKS_PER_QUESTION,
            answers: 0,
        }
    }
}

impl Span {
    /// Halves it after a refusal; `false` if it was none, or if not even one block is answered for.
    fn is_too_wide(&mut self, failure: &Failure, first: u64, last: u64) -> bool {
        // Corrupt is what an answer of too many bytes is.
        let refused = matches!(failure, Failure::Refused { .. } | Failure::Corrupt(_));
        let halve = refused && last > first;
        if halve {
            self.blocks = ((last - first).saturating_add(1) / 2).max(1);
            self.answers = 0;
        }
        halve
    }

    /// Widens it again after a while: one crowded block must not make all that follow slow.
    fn answered(&mut self) {
        self.answers += 1;
        if self.answers >= ANSWERS_TO_WIDEN {
            self.blocks = self.blocks.saturating_mul(2).min(BLOCKS_PER_QUESTION);
            self.answers = 0;
        }
    }
}

fn event(chain: &Chain, log: &Log) -> Result<ChainEvent, Error> {
    let (Some(block), Some(index), Some(transaction)) = (log.block_number, log.log_index, log.transaction_hash) else {
        return Err(Error::corrupt("a log that is in no block"));
    };
    if log.removed || log.address() != abi::to_evm(chain.contracts().escrow) {
        return Err(Error::corrupt("a log that was not asked for"));
    }
    Ok(ChainEvent {
        block,
        index,
        transaction: abi::digest(transaction),
        kind: kind(log, chain.contracts().token)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for blocks as [`questions`] does; gives the answered spans, or `None` when it fails.
    fn ask(end: u64, most: impl Fn(u64, u64) -> bool) -> Option<(Vec<(u64, u64)>, usize)> {
        let refusal = Failure::Refused {
            code: -32_000,
            message: "query returned more than 10000 results".into(),
            data: None,
        };
        let (mut span, mut first, mut answered, mut refused) = (Span::default(), 0, Vec::new(), 0);
        while first <= end {
            let last = end.min(first + span.blocks - 1);
            if most(first, last) {
                span.answered();
                answered.push((first, last));
                first = last + 1;
            } else if span.is_too_wide(&refusal, first, last) {
                refused += 1;
            } else {
                return None;
            }
        }
        Some((answered, refused))
    }

    #[test]
    fn a_node_that_refuses_wide_questions_is_asked_narrower_ones_down_to_a_block() {
        let (all, refused) = ask(9_999, |_, _| true).unwrap();
        assert_eq!((all.len(), refused), (10, 0));
        for limit in [1, 10, 500] {
            let (all, refused) = ask(9_999, |first, last| last - first < limit).unwrap();
            assert!(
                all.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0),
                "none is left out"
            );
            assert_eq!((all[0].0, all[all.len() - 1].1), (0, 9_999));
            assert!(refused <= 10 + all.len() / 16, "{limit}: {refused} of {}", all.len());
        }
        // One crowded block does not make the rest slow.
        let (all, _) = ask(9_999, |first, last| first == last || !(first..=last).contains(&77)).unwrap();
        assert!(all.len() < 250, "{}", all.len());
        assert!(
            ask(9_999, |_, last| last < 5_000).is_none(),
            "a block is refused for good"
        );
        let silence = Failure::NoAnswer(String::new());
        assert!(!Span::default().is_too_wide(&silence, 0, 9), "the chain is away");
    }
}
