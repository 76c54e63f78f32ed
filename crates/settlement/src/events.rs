//! What the escrow did, as it is logged on chain.

use alloy::{
    rpc::types::{Filter, Log},
    sol_types::{SolEvent, SolEventInterface},
};
use rialto_protocol::{Address, ChannelId, ChannelParams, Digest, MicroDollars, ModelId};

use crate::{
    Chain, Error, abi,
    bindings::Escrow::{self, EscrowEvents},
};

/// Blocks that one question to the node covers.
const BLOCKS_PER_QUESTION: u64 = 1_000;

/// Blocks that one call of [`Chain::events`] covers at most.
pub const MAX_EVENT_BLOCKS: u64 = 10 * BLOCKS_PER_QUESTION;

/// Bytes of one channel in a `Redeemed` event: its id and what it has paid in all.
const CHANNEL_BYTES: usize = 44;
/// Bytes of one royalty in a `Redeemed` event: the holder and the amount.
const ROYALTY_BYTES: usize = 32;

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
    /// A channel was opened with an amount.
    Opened {
        /// Its id is [`ChannelParams::id`]; checked.
        params: ChannelParams,
        /// What it holds.
        amount: MicroDollars,
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
        /// Holders, and what each was credited.
        royalties: Vec<(Address, MicroDollars)>,
    },
}

/// Reads events; see [`Chain::events`].
pub(crate) async fn read(chain: &Chain, from_block: u64) -> Result<(Vec<ChainEvent>, u64), Error> {
    let head = chain.block_number().await?;
    let end = head.min(from_block.saturating_add(MAX_EVENT_BLOCKS - 1));
    let mut events = Vec::new();
    let mut first = from_block;
    while first <= end {
        let last = end.min(first.saturating_add(BLOCKS_PER_QUESTION - 1));
        question(chain, first, last, &mut events).await?;
        first = last.saturating_add(1);
    }
    events.sort_by_key(|event| (event.block, event.index));
    Ok((events, first))
}

async fn question(chain: &Chain, first: u64, last: u64, events: &mut Vec<ChainEvent>) -> Result<(), Error> {
    let filter = Filter::new()
        .address(abi::to_evm(chain.contracts().escrow))
        .event_signature(vec![
            Escrow::Opened::SIGNATURE_HASH,
            Escrow::ToppedUp::SIGNATURE_HASH,
            Escrow::CloseRequested::SIGNATURE_HASH,
            Escrow::CloseCancelled::SIGNATURE_HASH,
            Escrow::Closed::SIGNATURE_HASH,
            Escrow::Redeemed::SIGNATURE_HASH,
        ])
        .from_block(first)
        .to_block(last);
    let logs: Vec<Log> = chain.link.rpc.request("eth_getLogs", (filter,)).await?;
    for log in logs {
        let event = event(chain, &log)?;
        if !(first..=last).contains(&event.block) {
            return Err(Error::corrupt("a log from a block that was not asked for"));
        }
        events.push(event);
    }
    Ok(())
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

/// What a log of the escrow says.
pub(crate) fn kind(log: &Log, token: Address) -> Result<EventKind, Error> {
    let event = EscrowEvents::decode_log(&log.inner).map_err(|_| Error::corrupt("a log of the escrow"))?;
    Ok(match event.data {
        EscrowEvents::Opened(opened) => return self::opened(&opened, token),
        EscrowEvents::Redeemed(redeemed) => return self::redeemed(&redeemed),
        EscrowEvents::ToppedUp(event) => EventKind::ToppedUp {
            channel: ChannelId(event.channelId.0),
            provider: abi::from_evm(event.provider),
            amount: abi::micro96(event.amount)?,
            funded: abi::micro96(event.funded)?,
        },
        EscrowEvents::CloseRequested(event) => EventKind::CloseRequested {
            channel: ChannelId(event.channelId.0),
            provider: abi::from_evm(event.provider),
            closes_at: abi::seconds(event.closeAt),
        },
        EscrowEvents::CloseCancelled(event) => EventKind::CloseCancelled {
            channel: ChannelId(event.channelId.0),
            provider: abi::from_evm(event.provider),
        },
        EscrowEvents::Closed(event) => EventKind::Closed {
            channel: ChannelId(event.channelId.0),
            payer: abi::from_evm(event.payer),
            provider: abi::from_evm(event.provider),
            remainder: abi::micro96(event.remainder)?,
        },
    })
}

fn opened(event: &Escrow::Opened, token: Address) -> Result<EventKind, Error> {
    let params = ChannelParams {
        payer: abi::from_evm(event.payer),
        signer: abi::from_evm(event.signer),
        provider: abi::from_evm(event.provider),
        model: ModelId(event.modelId.0),
        token,
        salt: abi::micro96(event.salt)?.get(),
    };
    if params.id() != ChannelId(event.channelId.0) {
        return Err(Error::corrupt("an opened channel whose id is not that of its parts"));
    }
    Ok(EventKind::Opened {
        params,
        amount: abi::micro96(event.amount)?,
    })
}

fn redeemed(event: &Escrow::Redeemed) -> Result<EventKind, Error> {
    let bad = || Error::corrupt("a redeem's log");
    let channels = event.channels.chunks(CHANNEL_BYTES).map(|entry| {
        let (id, total) = entry.split_first_chunk::<32>()?;
        Some((ChannelId(*id), abi::micro12(total)?))
    });
    let royalties = event.royalties.chunks(ROYALTY_BYTES).map(|entry| {
        let (holder, amount) = entry.split_first_chunk::<20>()?;
        Some((Address(*holder), abi::micro12(amount)?))
    });
    Ok(EventKind::Redeemed {
        provider: abi::from_evm(event.provider),
        amount: abi::micro(event.providerAmount, "a payment")?,
        royalty: abi::micro(event.royaltyAmount, "a royalty")?,
        fee: abi::micro(event.feeAmount, "a fee")?,
        channels: channels.collect::<Option<_>>().ok_or_else(bad)?,
        royalties: royalties.collect::<Option<_>>().ok_or_else(bad)?,
    })
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address as EvmAddress, Bytes, U256};

    use super::*;

    fn event(channels: Vec<u8>, amount: U256) -> Escrow::Redeemed {
        Escrow::Redeemed {
            provider: EvmAddress::repeat_byte(1),
            providerAmount: amount,
            royaltyAmount: U256::ZERO,
            feeAmount: U256::ZERO,
            channels: Bytes::from(channels),
            royalties: Bytes::new(),
        }
    }

    #[test]
    fn a_redeems_channels_are_read_or_refused_whole() {
        let mut packed = vec![7u8; 32];
        packed.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let read = redeemed(&event(packed.clone(), U256::from(3))).unwrap();
        let EventKind::Redeemed { channels, amount, .. } = read else {
            panic!("another event")
        };
        assert_eq!(channels, vec![(ChannelId([7; 32]), MicroDollars::new(256))]);
        assert_eq!(amount, MicroDollars::new(3));
        packed.push(0);
        assert!(matches!(
            redeemed(&event(packed, U256::from(3))),
            Err(Error::Corrupt { .. })
        ));
    }

    #[test]
    fn amounts_beyond_96_bits_are_corrupt() {
        let huge = event(Vec::new(), U256::from(1) << 96);
        assert!(matches!(redeemed(&huge), Err(Error::Corrupt { .. })));
    }
}
