//! What a log of the escrow says: the only place that knows how its events are laid out.

use alloy::{
    primitives::{Address as EvmAddress, B256},
    rpc::types::Log,
    sol_types::SolEventInterface,
};
use rialto_protocol::{Address, ChannelId, ChannelParams, MicroDollars, ModelId};

use super::EventKind;
use crate::{
    Error, abi,
    bindings::Escrow::{self, EscrowEvents},
};

/// Bytes of one channel in a `Redeemed` event: its id and what it has paid in all.
const CHANNEL_BYTES: usize = 44;
/// Bytes before a group's channels: the holder, its royalty, the fee beside it, and the number of channels.
const GROUP_BYTES: usize = 48;

/// What a log of the escrow says.
pub(crate) fn kind(log: &Log, token: Address) -> Result<EventKind, Error> {
    let event = EscrowEvents::decode_log(&log.inner).map_err(|_| Error::corrupt("a log of the escrow"))?;
    Ok(match event.data {
        EscrowEvents::Opened(event) => EventKind::Opened {
            params: opened(event.payer, event.provider, event.modelId, event.signerAndSalt, token),
            amount: abi::micro96(event.amount)?,
            from_balance: true,
        },
        EscrowEvents::DepositedAndOpened(event) => EventKind::Opened {
            params: opened(event.payer, event.provider, event.modelId, event.signerAndSalt, token),
            amount: abi::micro96(event.amount)?,
            from_balance: false,
        },
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
        EscrowEvents::FeesClaimed(event) => EventKind::FeesClaimed {
            recipient: abi::from_evm(event.feeRecipient),
            amount: abi::micro(event.amount, "fees")?,
            holders: event.holders.into_iter().map(abi::from_evm).collect(),
        },
        EscrowEvents::Paused(event) => EventKind::Paused {
            until: abi::seconds(event.until),
        },
        EscrowEvents::Unpaused(_) => EventKind::Unpaused,
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

/// A channel's parts; the signer and the salt are packed into one word.
fn opened(payer: EvmAddress, provider: EvmAddress, model: B256, packed: B256, token: Address) -> ChannelParams {
    let (signer, salt) = packed.split_at(20);
    ChannelParams {
        payer: abi::from_evm(payer),
        signer: abi::from_evm(EvmAddress::from_slice(signer)),
        provider: abi::from_evm(provider),
        model: ModelId(model.0),
        token,
        salt: salt.iter().fold(0, |salt, byte| salt << 8 | u128::from(*byte)),
    }
}

/// What one group of a redeem paid.
struct Paid {
    holder: Address,
    royalty: MicroDollars,
    fee: MicroDollars,
    channels: Vec<(ChannelId, MicroDollars)>,
}

/// Takes a group off the front of the packed ones; `None` if it is cut off, or paid nothing.
fn next_group(packed: &mut &[u8]) -> Option<Paid> {
    let (head, rest) = packed.split_at_checked(GROUP_BYTES)?;
    let (holder, amounts) = head.split_first_chunk::<20>()?;
    let (royalty, amounts) = amounts.split_at_checked(12)?;
    let (fee, count) = amounts.split_at_checked(12)?;
    let count = u32::from_be_bytes(count.try_into().ok()?);
    let length = usize::try_from(count).ok()?.checked_mul(CHANNEL_BYTES)?;
    let (channels, rest) = rest.split_at_checked(length)?;
    let channels = channels.chunks(CHANNEL_BYTES).map(|entry| {
        let (id, total) = entry.split_first_chunk::<32>()?;
        Some((ChannelId(*id), abi::micro12(total)?))
    });
    *packed = rest;
    Some(Paid {
        holder: Address(*holder),
        royalty: abi::micro12(royalty)?,
        fee: abi::micro12(fee)?,
        channels: channels.collect::<Option<Vec<_>>>().filter(|paid| !paid.is_empty())?,
    })
}

fn redeemed(event: &Escrow::Redeemed) -> Result<EventKind, Error> {
    let bad = || Error::corrupt("a redeem's log");
    let mut packed: &[u8] = &event.groups;
    let (mut royalty, mut fee) = (MicroDollars::ZERO, MicroDollars::ZERO);
    let (mut channels, mut royalties, mut fees) = (Vec::new(), Vec::new(), Vec::new());
    while !packed.is_empty() {
        let group = next_group(&mut packed).ok_or_else(bad)?;
        royalty = royalty.checked_add(group.royalty).ok_or_else(bad)?;
        fee = fee.checked_add(group.fee).ok_or_else(bad)?;
        channels.extend(group.channels);
        royalties.push((group.holder, group.royalty));
        fees.push((group.holder, group.fee));
    }
    let paid = |(_, amount): &(Address, MicroDollars)| *amount > MicroDollars::ZERO;
    royalties.retain(paid);
    fees.retain(paid);
    Ok(EventKind::Redeemed {
        provider: abi::from_evm(event.provider),
        amount: abi::micro(event.providerAmount, "a payment")?,
        royalty,
        fee,
        channels,
        royalties,
        fees,
    })
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Bytes, U256};

    use super::*;

    fn event(groups: Vec<u8>, amount: U256) -> Escrow::Redeemed {
        Escrow::Redeemed {
            provider: EvmAddress::repeat_byte(1),
            providerAmount: amount,
            groups: Bytes::from(groups),
        }
    }

    fn amount12(amount: u8) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[11] = amount;
        bytes
    }

    /// A group that credits 5 and 3, and whose channels have paid 7 each.
    fn group(holder: u8, channels: &[u8]) -> Vec<u8> {
        let count = u32::try_from(channels.len()).unwrap().to_be_bytes();
        let mut packed = [&[holder; 20][..], &amount12(5), &amount12(3), &count].concat();
        for channel in channels {
            packed.extend([&[*channel; 32][..], &amount12(7)].concat());
        }
        packed
    }

    #[test]
    fn a_redeems_groups_are_read_or_refused_whole() {
        let packed = [group(8, &[1, 2]), group(9, &[3])].concat();
        let read = redeemed(&event(packed.clone(), U256::from(2))).unwrap();
        let (five, three, seven) = (MicroDollars::new(5), MicroDollars::new(3), MicroDollars::new(7));
        let holders = [Address([8; 20]), Address([9; 20])];
        let expected = EventKind::Redeemed {
            provider: Address([1; 20]),
            amount: MicroDollars::new(2),
            royalty: MicroDollars::new(10),
            fee: MicroDollars::new(6),
            channels: [1, 2, 3].map(|id| (ChannelId([id; 32]), seven)).into(),
            royalties: holders.map(|holder| (holder, five)).into(),
            fees: holders.map(|holder| (holder, three)).into(),
        };
        assert_eq!(read, expected);
        let whole = [0, group(8, &[1, 2]).len(), packed.len()];
        for length in 0..packed.len() {
            let cut = redeemed(&event(packed[..length].to_vec(), U256::from(2)));
            assert_eq!(cut.is_ok(), whole.contains(&length), "{length}");
        }
        for bad in [
            [packed, vec![0]].concat(),
            group(8, &[]),
            [vec![0xff; 48], vec![0; 44]].concat(),
        ] {
            assert!(matches!(
                redeemed(&event(bad, U256::from(2))),
                Err(Error::Corrupt { .. })
            ));
        }
    }

    #[test]
    fn amounts_beyond_96_bits_are_corrupt() {
        let huge = event(Vec::new(), U256::from(1) << 96);
        assert!(matches!(redeemed(&huge), Err(Error::Corrupt { .. })));
        let mut most = group(8, &[1]);
        most[20..32].fill(0xff);
        let overflowing = event([most.clone(), most].concat(), U256::ZERO);
        assert!(matches!(redeemed(&overflowing), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_channels_signer_and_salt_share_a_word() {
        let mut packed = [0xaa; 32];
        packed[20..].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3]);
        let (payer, provider) = (EvmAddress::repeat_byte(1), EvmAddress::repeat_byte(2));
        let params = opened(payer, provider, B256::repeat_byte(3), packed.into(), Address([4; 20]));
        assert_eq!(params.signer, Address([0xaa; 20]));
        assert_eq!(params.salt, (1 << 88) + 0x203);
    }
}
