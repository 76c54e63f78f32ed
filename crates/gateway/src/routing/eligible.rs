//! Who may be asked at all: the owner's ceilings on price and on what is paid ahead.

use rialto_protocol::{Price, offer::Offer};

/// The owner's ceilings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceiling {
    pub(crate) price: Price,
    pub(crate) chunk: u64,
}

/// What the ceilings say about an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    TooExpensive,
}

impl Ceiling {
    /// Judges an offer.
    pub(crate) fn judge(&self, offer: &Offer) -> Verdict {
        if offer.price.within(&self.price) && offer.chunk <= self.chunk {
            Verdict::Fine
        } else {
            Verdict::TooExpensive
        }
    }
}
