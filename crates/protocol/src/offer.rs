//! Offers: what a provider sells right now, signed, and void after a short time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Address, Digest, ModelId, NodeKey, Price, Region, Signature, SigningKey, bounded,
    hash::keccak256,
    manifest::{Manifest, ManifestError},
    signature::SignatureError,
    ticket::{MAX_ADDRESS, MAX_ADDRESSES, Peer},
};

/// Domain separation of the offer's hash.
const CONTEXT: &[u8] = b"rialto offer v1";

/// Most seconds that an offer may be valid for.
pub const MAX_LIFETIME: u64 = 600;

/// The largest chunk, in units of output, that a buyer pays ahead.
pub const MAX_CHUNK: u64 = 256;

/// Most bytes of an engine's class.
pub const MAX_ENGINE: usize = 64;

/// Most bytes of a relay's URL.
pub const MAX_RELAY: usize = 256;

/// How a provider knows what energy its work takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnergySource {
    /// It does not.
    #[default]
    Unknown,
    /// From the time that processors worked and what such processors draw.
    Estimated,
    /// From counters of the machine (RAPL, NVML).
    Measured,
}

/// A provider's terms for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The account that is paid; it signs the offer and the receipts.
    pub provider: Address,
    /// The key by which the provider's node is dialled.
    pub node: NodeKey,
    /// Socket addresses at which the node may be reached; hints only.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_ADDRESSES, MAX_ADDRESS>")]
    pub addresses: Vec<String>,
    /// The URL of the relay at which the node can be reached behind a NAT; at most [`MAX_RELAY`] bytes.
    #[serde(deserialize_with = "bounded::maybe_text::<_, MAX_RELAY>")]
    pub relay: Option<String>,
    /// The model.
    pub model: ModelId,
    /// Who published it.
    pub publisher: Address,
    /// The price of a unit. Whoever asks before `expires_at` pays no more than this.
    pub price: Price,
    /// Units of output that are paid ahead of the work; at most [`MAX_CHUNK`].
    pub chunk: u64,
    /// Requests worked on at a time.
    pub capacity: u32,
    /// Requests being worked on or waiting when the offer was made.
    pub load: u32,
    /// Measured units of output a second of one request; zero when not measured yet.
    pub speed: u32,
    /// Where it computes, as it declares.
    pub region: Region,
    /// Millijoules a unit of output (of input where output is not counted); zero when not known.
    pub energy_millijoules: u64,
    /// How the provider knows it, here and in its receipts.
    pub energy_source: EnergySource,
    /// The engine and its mode, such as `llama.cpp exact` or `upstream`: what an audit may expect of the answers differs
    /// between them. At most [`MAX_ENGINE`] characters of ASCII that can be seen.
    #[serde(deserialize_with = "bounded::text::<_, MAX_ENGINE>")]
    pub engine: String,
    /// Whether prompts or answers are kept, or passed on to others who may keep them, as the provider declares.
    pub retains_data: bool,
    /// Grows with each offer of a provider for a model.
    pub sequence: u64,
    /// Seconds since 1970 after which the offer is void.
    pub expires_at: u64,
}

/// An offer with its provider's signature and the manifest that its model id hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What is sold.
    pub offer: Offer,
    /// By the offer's provider.
    pub signature: Signature,
    /// The model in full, shared by all announcements of it that a book has.
    #[serde(with = "shared")]
    pub manifest: Arc<Manifest>,
}

/// Why an announcement is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Not signed by the provider that it names.
    #[error("the offer's signature: {0}")]
    Signature(#[from] SignatureError),
    /// The manifest is not acceptable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest is not the one that the model id hashes.
    #[error("the manifest does not belong to the model id")]
    WrongModel,
    /// Too old, or valid for too long.
    #[error("the offer has expired, or is valid for too long")]
    Expired,
    /// A number or list is out of bounds.
    #[error("offer field `{0}` is out of bounds")]
    Field(&'static str),
}

impl Offer {
    /// How to reach the provider.
    pub fn peer(&self) -> Peer {
        Peer {
            node: self.node,
            addresses: self.addresses.clone(),
            relay: self.relay.clone(),
        }
    }

    /// The digest that the provider signs.
    pub fn digest(&self) -> Digest {
        Digest(keccak256(&[CONTEXT, &postcard::to_stdvec(self).unwrap_or_default()]))
    }

    /// Signs, and joins the manifest.
    pub fn announce(self, key: &SigningKey, manifest: impl Into<Arc<Manifest>>) -> Announcement {
        Announcement {
            signature: key.sign(&self.digest()),
            offer: self,
            manifest: manifest.into(),
        }
    }
}

impl Announcement {
    /// Checks everything that can be checked without the chain; `now` in seconds since 1970.
    pub fn check(&self, now: u64) -> Result<(), OfferError> {
        let offer = &self.offer;
        if offer.expires_at <= now || offer.expires_at > now.saturating_add(MAX_LIFETIME) {
            return Err(OfferError::Expired);
        }
        if offer.addresses.len() > MAX_ADDRESSES || offer.addresses.iter().any(|address| address.len() > MAX_ADDRESS) {
            return Err(OfferError::Field("addresses"));
        }
        if offer.relay.as_ref().is_some_and(|relay| relay.len() > MAX_RELAY) {
            return Err(OfferError::Field("relay"));
        }
        if offer.chunk == 0 || offer.chunk > MAX_CHUNK {
            return Err(OfferError::Field("chunk"));
        }
        if offer.capacity == 0 {
            return Err(OfferError::Field("capacity"));
        }
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if offer.engine.len() > MAX_ENGINE || !offer.engine.bytes().all(visible) {
            return Err(OfferError::Field("engine"));
        }
        self.manifest.check()?;
        if self.manifest.model_id(offer.publisher) != offer.model {
            return Err(OfferError::WrongModel);
        }
        let signer = self.signature.recover(&offer.digest())?;
        if signer.address() != offer.provider {
            return Err(SignatureError::WrongSigner.into());
        }
        Ok(())
    }
}

/// A shared value is encoded as the value itself.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}
