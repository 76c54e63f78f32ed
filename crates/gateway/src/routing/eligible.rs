//! Who may be asked at all.

use super::{choose::Wish, pool::Seller};

/// What a buyer's preferences say about an offer. Those that are not [`Self::Fine`] exclude it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Fine,
    /// Its offer has expired.
    Expired,
    /// It asks for more than the buyer pays, in price or in what is paid ahead.
    TooExpensive,
    /// It cheated.
    Distrusted,
    /// The buyer named others, or not this one.
    NotWanted,
    /// It is somewhere else, or does not say where.
    OtherRegion,
    /// It keeps data, or passes them on.
    KeepsData,
    /// It takes more energy, or does not say how much.
    TooMuchEnergy,
    /// Its engine does not give what the buyer wants to be able to check.
    NoAssurance,
}

impl Verdict {
    /// For people and programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fine => "eligible",
            Self::Expired => "expired",
            Self::TooExpensive => "too_expensive",
            Self::Distrusted => "distrusted",
            Self::NotWanted => "not_wanted",
            Self::OtherRegion => "other_region",
            Self::KeepsData => "keeps_data",
            Self::TooMuchEnergy => "too_much_energy",
            Self::NoAssurance => "no_assurance",
        }
    }
}

/// Judges an offer by the buyer's preferences. What an offer leaves open counts against it.
pub(crate) fn judge(seller: &Seller, wish: &Wish<'_>) -> Verdict {
    let (offer, wanted) = (&seller.offer, wish.preferences);
    let provider = &offer.provider;
    if offer.expires_at <= wish.now {
        Verdict::Expired
    } else if !offer.price.within(&wanted.max_price) || offer.chunk > wanted.max_chunk {
        Verdict::TooExpensive
    } else if seller.record.standing.is_distrusted() {
        Verdict::Distrusted
    } else if !wanted.names(provider) {
        Verdict::NotWanted
    } else if !wanted.regions.is_empty() && !wanted.regions.contains(&offer.region) {
        Verdict::OtherRegion
    } else if wanted.private && offer.retains_data {
        Verdict::KeepsData
    } else if wanted
        .max_energy
        .is_some_and(|most| !(1..=most).contains(&offer.energy_millijoules))
    {
        Verdict::TooMuchEnergy
    } else if wanted.exact && !offer.engine.split(' ').any(|word| word == "exact") {
        Verdict::NoAssurance
    } else {
        Verdict::Fine
    }
}
