//! keccak-256 and the ABI words that EIP-712 hashes are made of.

use sha3::{Digest as _, Keccak256};

/// keccak-256 of the parts, one after another.
pub fn keccak256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A buffer of 32-byte ABI words, as `abi.encode` of static types makes it.
#[derive(Debug, Default)]
pub struct Words(Vec<u8>);

impl Words {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a value padded on the left (integers, addresses). At most 32 bytes count.
    #[must_use]
    pub fn left(mut self, value: &[u8]) -> Self {
        let pad = 32usize.saturating_sub(value.len());
        self.0.resize(self.0.len() + pad, 0);
        self.0.extend(value.iter().take(32));
        self
    }

    /// Appends a value padded on the right (`bytes8`, `bytes32`). At most 32 bytes count.
    #[must_use]
    pub fn right(mut self, value: &[u8]) -> Self {
        self.0.extend(value.iter().take(32));
        let pad = 32usize.saturating_sub(value.len());
        self.0.resize(self.0.len() + pad, 0);
        self
    }

    /// Appends an unsigned integer.
    #[must_use]
    pub fn uint(self, value: u128) -> Self {
        self.left(&value.to_be_bytes())
    }

    /// keccak-256 of all words.
    pub fn keccak(&self) -> [u8; 32] {
        keccak256(&[&self.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keccak_of_nothing_is_the_known_constant() {
        let expected = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(hex::encode(keccak256(&[])), expected);
    }
}
