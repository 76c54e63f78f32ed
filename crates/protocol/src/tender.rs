//! The reverse auction for work that can wait: a buyer sends a tender to several sellers, each answers with a bid below its
//! posted price or declines, and the buyer asks for work at the prices that were bid.
//!
//! The auction is sealed, and the lowest bid is paid what it bid (first price). Sellers cannot see each other's bids, since
//! each answers on its own stream. A second-price auction would let the buyer, which alone sees all bids, make up the
//! second one; a first-price auction leaves it nothing to lie about, because a seller is held to its own words alone and
//! checks each request against the bid that it keeps.
//!
//! A bid promises a price, not a place: a seller that is busy refuses as busy, and nothing is used up.

use serde::{Deserialize, Serialize};

use crate::{
    Address, Digest, ModelId, Price, Signature, SigningKey, Usage, bounded, hash::keccak256, signature::SignatureError,
};

/// Domain separation of the hashes.
const TENDER: &[u8] = b"rialto tender v1";
const BID: &[u8] = b"rialto bid v1";

/// Most ids under which the weights of one tender may be sold.
pub const MAX_MODELS: usize = 16;

/// Most seconds that a tender may be answered for.
pub const MAX_TENDER_LIFETIME: u64 = 120;

/// Most seconds that a bid may be valid for.
pub const MAX_BID_LIFETIME: u64 = 24 * 3_600;

/// Most units of input, and of output, that one tender may ask for.
pub const MAX_UNITS: u64 = 1 << 40;

/// Work that can wait, and what it may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tender {
    /// The session key that will ask for the work: bids are for channels whose vouchers it signs.
    pub buyer: Address,
    /// The ids under which the weights are sold; between 1 and [`MAX_MODELS`]. A bid is for one of them.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_MODELS>")]
    pub models: Vec<ModelId>,
    /// Units that the buyer expects to need; a bid may be for fewer.
    pub usage: Usage,
    /// Seconds since 1970 by which the work is to be done.
    pub deadline: u64,
    /// A bid above this in any part is not looked at. It is the lowest posted price that the buyer knows, which is public,
    /// or less: what the work is worth to the buyer is not told.
    pub ceiling: Price,
    /// Chosen at random: the same tender gets the same bid.
    pub salt: Digest,
    /// Seconds since 1970 after which the tender is not answered any more.
    pub expires_at: u64,
}

/// A tender with its buyer's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTender {
    /// What is wanted.
    pub tender: Tender,
    /// By the session key that the tender names.
    pub signature: Signature,
}

/// What a seller promises to one buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// The account that is paid; it signs the bid.
    pub provider: Address,
    /// [`Tender::digest`].
    pub tender: Digest,
    /// The session key that the bid is for.
    pub buyer: Address,
    /// The model, under the id that the seller sells.
    pub model: ModelId,
    /// The price of a unit: requests of the buyer that name it are served at it.
    pub price: Price,
    /// Most units that are sold at this price.
    pub usage: Usage,
    /// Seconds since 1970 after which nothing more begins at this price.
    pub expires_at: u64,
}

/// A bid with its seller's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBid {
    /// What is promised.
    pub bid: Bid,
    /// By the provider that the bid names.
    pub signature: Signature,
}

/// Why a tender or a bid counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenderError {
    /// Not signed by whom it names.
    #[error("the signature: {0}")]
    Signature(#[from] SignatureError),
    /// Too old, or valid for too long.
    #[error("it has expired, or is valid for too long")]
    Expired,
    /// A number or list is out of bounds.
    #[error("the field `{0}` is out of bounds")]
    Field(&'static str),
    /// The bid is for another tender, buyer or model, or of another provider.
    #[error("the bid's `{0}` is not what was asked for")]
    Other(&'static str),
    /// The bid is above the ceiling.
    #[error("the bid is above the ceiling")]
    TooHigh,
}

impl Tender {
    /// The digest that the buyer signs, and by which bids name the tender.
    pub fn digest(&self) -> Digest {
        Digest(keccak256(&[TENDER, &postcard::to_stdvec(self).unwrap_or_default()]))
    }

    /// Signs with the session key.
    pub fn sign(self, key: &SigningKey) -> SignedTender {
        SignedTender {
            signature: key.sign(&self.digest()),
            tender: self,
        }
    }
}

impl SignedTender {
    /// Checks everything but whether the work is wanted; `now` in seconds since 1970.
    pub fn check(&self, now: u64) -> Result<(), TenderError> {
        let tender = &self.tender;
        if tender.expires_at <= now || tender.expires_at > now.saturating_add(MAX_TENDER_LIFETIME) {
            return Err(TenderError::Expired);
        }
        if tender.deadline <= now {
            return Err(TenderError::Expired);
        }
        if tender.models.is_empty() || tender.models.len() > MAX_MODELS {
            return Err(TenderError::Field("models"));
        }
        if !is_bounded(tender.usage) {
            return Err(TenderError::Field("usage"));
        }
        let signer = self.signature.recover(&tender.digest())?;
        if signer.address() != tender.buyer {
            return Err(SignatureError::WrongSigner.into());
        }
        Ok(())
    }
}

impl Bid {
    /// The digest that the provider signs, which also is the bid's id.
    pub fn digest(&self) -> Digest {
        Digest(keccak256(&[BID, &postcard::to_stdvec(self).unwrap_or_default()]))
    }

    /// Signs with the provider's key.
    pub fn sign(self, key: &SigningKey) -> SignedBid {
        SignedBid {
            signature: key.sign(&self.digest()),
            bid: self,
        }
    }
}

impl SignedBid {
    /// Checks a bid against the tender that it answers and the provider that was asked; `now` in seconds since 1970.
    pub fn check(&self, tender: &Tender, provider: Address, now: u64) -> Result<(), TenderError> {
        let bid = &self.bid;
        let same = [
            ("provider", bid.provider == provider),
            ("tender", bid.tender == tender.digest()),
            ("buyer", bid.buyer == tender.buyer),
            ("model", tender.models.contains(&bid.model)),
        ];
        if let Some((field, _)) = same.iter().find(|(_, same)| !same) {
            return Err(TenderError::Other(field));
        }
        if bid.expires_at <= now || bid.expires_at > now.saturating_add(MAX_BID_LIFETIME) {
            return Err(TenderError::Expired);
        }
        if !is_bounded(bid.usage) {
            return Err(TenderError::Field("usage"));
        }
        if !bid.price.within(&tender.ceiling) {
            return Err(TenderError::TooHigh);
        }
        let signer = self.signature.recover(&bid.digest())?;
        if signer.address() != bid.provider {
            return Err(SignatureError::WrongSigner.into());
        }
        Ok(())
    }
}

/// Some units, and not so many that sums of them could overflow.
fn is_bounded(usage: Usage) -> bool {
    usage.input.max(usage.output) > 0 && usage.input <= MAX_UNITS && usage.output <= MAX_UNITS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32]).unwrap()
    }

    fn tender() -> Tender {
        Tender {
            buyer: key(1).address(),
            models: vec![ModelId([7; 32]), ModelId([8; 32])],
            usage: Usage {
                input: 500,
                output: 1_000,
            },
            deadline: NOW + 3_600,
            ceiling: Price {
                input: 10,
                output: 40,
                request: 0,
            },
            salt: Digest([3; 32]),
            expires_at: NOW + 30,
        }
    }

    fn bid() -> Bid {
        Bid {
            provider: key(2).address(),
            tender: tender().digest(),
            buyer: key(1).address(),
            model: ModelId([8; 32]),
            price: Price {
                input: 5,
                output: 20,
                request: 0,
            },
            usage: tender().usage,
            expires_at: NOW + 600,
        }
    }

    /// What is wrong with a bid, if anything is.
    fn fault(bid: Bid, signer: u8) -> Option<TenderError> {
        let checked = bid.sign(&key(signer)).check(&tender(), key(2).address(), NOW);
        checked.err()
    }

    #[test]
    fn a_tender_is_its_buyers_alone_and_bounded() {
        tender().sign(&key(1)).check(NOW).unwrap();
        let wrong = [
            (tender(), 2, SignatureError::WrongSigner.into()),
            (
                Tender {
                    expires_at: NOW,
                    ..tender()
                },
                1,
                TenderError::Expired,
            ),
            (
                Tender {
                    expires_at: NOW + MAX_TENDER_LIFETIME + 1,
                    ..tender()
                },
                1,
                TenderError::Expired,
            ),
            (
                Tender {
                    models: Vec::new(),
                    ..tender()
                },
                1,
                TenderError::Field("models"),
            ),
            (
                Tender {
                    usage: Usage {
                        input: 0,
                        output: u64::MAX,
                    },
                    ..tender()
                },
                1,
                TenderError::Field("usage"),
            ),
        ];
        for (tender, signer, error) in wrong {
            assert_eq!(tender.sign(&key(signer)).check(NOW), Err(error));
        }
        let mut changed = tender().sign(&key(1));
        changed.tender.usage.output += 1;
        assert!(changed.check(NOW).is_err());
    }

    #[test]
    fn a_bid_answers_this_tender_of_this_provider_and_stays_below_the_ceiling() {
        assert_eq!(fault(bid(), 2), None);
        let change = |change: fn(&mut Bid)| {
            let mut bid = bid();
            change(&mut bid);
            fault(bid, 2)
        };
        assert_eq!(fault(bid(), 3), Some(SignatureError::WrongSigner.into()));
        let other = |field| Some(TenderError::Other(field));
        assert_eq!(change(|bid| bid.provider = Address([9; 20])), other("provider"));
        assert_eq!(change(|bid| bid.tender = Digest([9; 32])), other("tender"));
        assert_eq!(change(|bid| bid.buyer = Address([9; 20])), other("buyer"));
        assert_eq!(change(|bid| bid.model = ModelId([9; 32])), other("model"));
        assert_eq!(change(|bid| bid.price.output = 41), Some(TenderError::TooHigh));
        assert_eq!(change(|bid| bid.expires_at = NOW), Some(TenderError::Expired));
        assert_eq!(
            change(|bid| bid.expires_at += MAX_BID_LIFETIME),
            Some(TenderError::Expired)
        );
        assert_eq!(
            change(|bid| bid.usage.output = u64::MAX),
            Some(TenderError::Field("usage"))
        );
    }
}
