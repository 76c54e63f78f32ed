//! Ids. Each has a type of its own, so that a channel is never taken for a model.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not the hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes as hexadecimal (0x…)")]
pub struct ParseIdError {
    expected: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl Default for $name {
            fn default() -> Self {
                Self([0; $len])
            }
        }

        impl $name {
            /// The bytes in big-endian order, as they are hashed and put on chain.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Whether every byte is zero.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; $len]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0u8; $len];
                let digits = text.strip_prefix("0x").unwrap_or(text);
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseIdError { expected: $len })?;
                Ok(Self(bytes))
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serde::Serialize::serialize(&hex_free::Bytes(self.0), serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    hex_free::Bytes::<$len>::deserialize(deserializer).map(|bytes| Self(bytes.0))
                }
            }
        }
    };
}

id!(
    /// An EVM account: the last 20 bytes of the keccak-256 of its public key.
    Address, 20
);
id!(
    /// A payment channel: see [`crate::ChannelParams::id`].
    ChannelId, 32
);
id!(
    /// A model on its publisher's terms: `keccak256(abi.encode(publisher, manifest hash))`, also its NFT's token id.
    ModelId, 32
);
id!(
    /// keccak-256 of a manifest's canonical bytes.
    ManifestHash, 32
);
id!(
    /// One request, chosen at random by the buyer.
    RequestId, 32
);
id!(
    /// An ed25519 public key by which a node is dialled.
    NodeKey, 32
);
id!(
    /// A running hash over the receipts of a channel; zero before the first.
    ReceiptsHead, 32
);
id!(
    /// A 32-byte hash of something that has no type of its own.
    Digest, 32
);
id!(
    /// A region in ASCII, padded with zero bytes, for example `eu-west`.
    Region, 8
);

impl Region {
    /// A region from at most eight printable ASCII characters.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut bytes = [0u8; 8];
        if name.len() > bytes.len() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// The name without its padding; bytes that are not printable ASCII are left out.
    pub fn name(&self) -> String {
        self.0
            .iter()
            .filter(|byte| byte.is_ascii_graphic())
            .map(|byte| char::from(*byte))
            .collect()
    }
}

/// Fixed-size byte arrays as serde tuples: compact in binary formats, for any length.
mod hex_free {
    use serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{Error, SeqAccess, Visitor},
        ser::SerializeTuple,
    };

    pub(super) struct Bytes<const N: usize>(pub(super) [u8; N]);

    impl<const N: usize> Serialize for Bytes<N> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut tuple = serializer.serialize_tuple(N)?;
            for byte in &self.0 {
                tuple.serialize_element(byte)?;
            }
            tuple.end()
        }
    }

    struct BytesVisitor<const N: usize>;

    impl<'de, const N: usize> Visitor<'de> for BytesVisitor<N> {
        type Value = Bytes<N>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{N} bytes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut bytes = [0u8; N];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = seq
                    .next_element()?
                    .ok_or_else(|| A::Error::invalid_length(index, &self))?;
            }
            Ok(Bytes(bytes))
        }
    }

    impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_tuple(N, BytesVisitor::<N>)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_binary() {
        let id = ChannelId([7; 32]);
        assert_eq!(id.to_string().parse::<ChannelId>().unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(postcard::from_bytes::<ChannelId>(&bytes).unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<ChannelId>(&json).unwrap(), id);
    }

    #[test]
    fn text_of_the_wrong_length_is_refused() {
        assert!("0x1234".parse::<Address>().is_err());
        assert!("zz".repeat(20).parse::<Address>().is_err());
    }

    #[test]
    fn a_region_is_at_most_eight_printable_characters() {
        assert_eq!(Region::from_name("eu-west").unwrap().name(), "eu-west");
        assert!(Region::from_name("far-too-long").is_none());
        assert!(Region::from_name("a b").is_none());
    }
}
