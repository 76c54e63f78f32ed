//! What a log of the escrow says: the only place that knows how its events are laid out.

use alloy::{rpc::types::Log, sol_types::SolEventInterface};
use rialto_protocol::{Address, ChannelId, ChannelParams, ModelId};

use super::EventKind;
use crate::{
    Error, abi,
    bindings::Escrow::{self, EscrowEvents},
};

/// Bytes of one channel in a `Redeemed` event: its id and what it has paid in all.
const CHANNEL_BYTES: usize = 44;
/// Bytes of one royalty in a `Redeemed` event: the holder and the amount.
const ROYALTY_BYTES: usize = 32;

/// What a log of the escrow says.
pub(crate) fn kind(log: &Log, token: Address) -> Result<EventKind, Error> {
    let event = EscrowEvents::decode_log(&log.inner).map_err(|_| Error::corrupt("a log of the escrow"))?;
    Ok(match event.data {
        EscrowEvents::Opened(opened) => return self::opened(&opened, token),
        EscrowEvents::Redeemed(redeemed) => return self::redeemed(&redeemed),
        EscrowEvents::Deposited(event) => EventKind::Deposited {
            payer: abi::from_evm(event.payer),
            amount: abi::micro(event.amount, "a deposit")?,
        },
        EscrowEvents::Withdrawn(event) => EventKind::Withdrawn {
            payer: abi::from_evm(event.payer),
            amount: abi::micro(event.amount, "a withdrawal")?,
        },
        EscrowEvents::CreditClaimed(event) => EventKind::CreditClaimed {
            account: abi::from_evm(event.account),
            amount: abi::micro(event.amount, "a credit")?,
        },
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
        from_balance: event.fromBalance,
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
    use rialto_protocol::MicroDollars;

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
