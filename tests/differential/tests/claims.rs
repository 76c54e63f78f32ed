//! Batches of claims: what an honest provider sends, and everything that somebody else might.

use rialto_protocol::{
    MicroDollars, ModelId,
    claim::{CLAIM_LENGTH, Claim},
};

use crate::{
    parties::{Parties, Trade},
    rng::Rng,
};

/// What a batch is made of.
pub(crate) struct Batch {
    /// Groups as they are sent.
    pub(crate) groups: Vec<(ModelId, Vec<u8>)>,
    /// Channels, by their place, with the total that an honest claim in the right group asks for.
    pub(crate) honest: Vec<(usize, MicroDollars)>,
}

/// Makes a batch of up to a dozen claims for one provider.
pub(crate) fn batch(
    trades: &mut [Trade],
    parties: &Parties,
    domain: &rialto_protocol::Domain,
    rng: &mut Rng,
) -> Option<(rialto_protocol::Address, Batch)> {
    let provider = trades.get(rng.index(trades.len()))?.params.provider;
    let mut groups: Vec<(ModelId, Vec<u8>)> = Vec::new();
    let mut honest = Vec::new();
    for _ in 0..rng.below(13) {
        let mut index = rng.index(trades.len());
        for _ in 0..4 {
            if trades[index].params.provider != provider {
                index = rng.index(trades.len());
            }
        }
        let trade = &mut trades[index];
        // Some belong to another provider: they have to be skipped.
        if trade.params.provider != provider && !rng.once_in(8) {
            continue;
        }
        let mut model = trade.params.model;
        let mut bytes = match rng.below(10) {
            0..4 => match trade.seller.claim() {
                Some(claim) if trade.params.provider == provider => {
                    honest.push((index, claim.amount));
                    claim.pack()
                }
                Some(claim) => claim.pack(),
                None => continue,
            },
            4 => foolish(trade, parties, domain, rng),
            5 => stale(trade, rng)?,
            kind => {
                let mut bytes = trade
                    .seller
                    .claim()
                    .map_or_else(|| stale(trade, rng), |claim| Some(claim.pack()))?;
                match kind {
                    6 => corrupt(&mut bytes, rng),
                    7 => bytes[64..76].fill(0xff),
                    8 => model = ModelId(rng.bytes()),
                    _ => bytes[40..52].copy_from_slice(&rng.bytes()[..12]),
                }
                bytes
            }
        };
        if rng.once_in(40) {
            bytes[140..].fill(0);
        }
        let times = 1 + usize::from(rng.once_in(6));
        let group = match groups.iter().position(|(other, _)| *other == model) {
            Some(place) if !rng.once_in(8) => place,
            _ => {
                groups.push((model, Vec::new()));
                groups.len() - 1
            }
        };
        if bytes[140..] == [0; 32] {
            honest.retain(|(place, _)| *place != index);
        }
        for _ in 0..times {
            groups[group].1.extend(bytes);
        }
    }
    if rng.once_in(50) {
        groups.push((ModelId(rng.bytes()), vec![0; CLAIM_LENGTH - 1]));
        honest.clear();
    }
    Some((provider, Batch { groups, honest }))
}

/// Signed by the session key over more than was earned, perhaps more than is there.
fn foolish(
    trade: &mut Trade,
    parties: &Parties,
    domain: &rialto_protocol::Domain,
    rng: &mut Rng,
) -> [u8; CLAIM_LENGTH] {
    let funded = trade.seller.funded().get();
    let total = match rng.below(12) {
        0 => u128::MAX >> 32,
        1 => funded + 1,
        2 => funded,
        _ => funded * u128::from(rng.below(100)) / 100,
    };
    let total = MicroDollars::try_from(total).unwrap_or(MicroDollars::MAX);
    let voucher = trade.sign(parties, domain, total, rng);
    let amount = if rng.once_in(3) {
        MicroDollars::new(rng.below(1_000_000))
    } else {
        total
    };
    Claim {
        channel: trade.params,
        voucher,
        amount,
    }
    .pack()
}

/// A voucher from before, for all of it or a part.
fn stale(trade: &Trade, rng: &mut Rng) -> Option<[u8; CLAIM_LENGTH]> {
    let voucher = *trade.signed.get(rng.index(trade.signed.len()))?;
    let whole = voucher.voucher.cumulative.get();
    let part = if rng.once_in(2) {
        whole
    } else {
        whole * u128::from(rng.below(100)) / 100
    };
    let amount = MicroDollars::try_from(part).unwrap_or(MicroDollars::MAX);
    let channel = trade.params;
    Some(
        Claim {
            channel,
            voucher,
            amount,
        }
        .pack(),
    )
}

/// One bit is not what it was.
fn corrupt(bytes: &mut [u8; CLAIM_LENGTH], rng: &mut Rng) {
    let bit = rng.index(CLAIM_LENGTH * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}
