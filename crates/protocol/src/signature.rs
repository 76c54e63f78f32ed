//! secp256k1 signatures: made with keys that are wiped, verified by libsecp256k1 against a known key.

use std::fmt;

use secp256k1::{
    Message, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{Address, Digest, hash::keccak256};

/// Why a signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a point on the curve, a high s, or a recovery id other than 0 and 1.
    #[error("the signature is malformed")]
    Malformed,
    /// Well formed, and made by somebody else.
    #[error("the signature is not by the expected key")]
    WrongSigner,
    /// Not a secret key of the curve.
    #[error("the secret key is not valid")]
    BadKey,
}

/// A recoverable signature: `r ‖ s ‖ recovery id`, with `s` in the lower half of the curve's order (EIP-2).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    r: crate::Digest,
    s: crate::Digest,
    y_odd: bool,
}

/// Half of the curve's order: the largest `s` that Ethereum accepts.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

impl Signature {
    /// From 65 bytes `r ‖ s ‖ v`, with v 0, 1, 27 or 28.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignatureError> {
        let (r, rest) = bytes.split_first_chunk::<32>().ok_or(SignatureError::Malformed)?;
        let (s, v) = rest.split_first_chunk::<32>().ok_or(SignatureError::Malformed)?;
        let y_odd = match v {
            [0 | 27] => false,
            [1 | 28] => true,
            _ => return Err(SignatureError::Malformed),
        };
        Self {
            r: Digest(*r),
            s: Digest(*s),
            y_odd,
        }
        .checked()
    }

    /// 65 bytes `r ‖ s ‖ v`, v being 27 or 28 as `ecrecover` expects it.
    pub fn to_bytes(&self) -> [u8; 65] {
        let mut bytes = [0u8; 65];
        let v = [27 + u8::from(self.y_odd)];
        for (to, from) in bytes.iter_mut().zip(self.r.0.iter().chain(&self.s.0).chain(&v)) {
            *to = *from;
        }
        bytes
    }

    /// 64 bytes `r ‖ yParityAndS` (EIP-2098), as a claim carries it.
    pub fn to_compact(&self) -> [u8; 64] {
        let mut bytes = [0u8; 64];
        for (to, from) in bytes.iter_mut().zip(self.r.0.iter().chain(&self.s.0)) {
            *to = *from;
        }
        if self.y_odd
            && let Some(top) = bytes.get_mut(32)
        {
            *top |= 0x80;
        }
        bytes
    }

    fn checked(self) -> Result<Self, SignatureError> {
        if self.s.0 > HALF_ORDER || self.s.is_zero() || self.r.is_zero() {
            return Err(SignatureError::Malformed);
        }
        Ok(self)
    }

    fn recoverable(&self) -> Result<RecoverableSignature, SignatureError> {
        self.checked()?;
        let id = if self.y_odd { RecoveryId::One } else { RecoveryId::Zero };
        let mut rs = [0u8; 64];
        for (to, from) in rs.iter_mut().zip(self.r.0.iter().chain(&self.s.0)) {
            *to = *from;
        }
        RecoverableSignature::from_compact(&rs, id).map_err(|_| SignatureError::Malformed)
    }

    /// The key that made this signature, as `ecrecover` finds it.
    pub fn recover(&self, digest: &Digest) -> Result<PublicKey, SignatureError> {
        let key = self
            .recoverable()?
            .recover(Message::from_digest(digest.0))
            .map_err(|_| SignatureError::Malformed)?;
        Ok(PublicKey(key))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.to_bytes()))
    }
}

/// A public key against which signatures are verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(secp256k1::PublicKey);

impl PublicKey {
    /// The account of this key.
    pub fn address(&self) -> Address {
        let point = self.0.serialize_uncompressed();
        let hash = keccak256(&[point.get(1..).unwrap_or_default()]);
        let mut address = [0u8; 20];
        for (to, from) in address.iter_mut().zip(hash.iter().skip(12)) {
            *to = *from;
        }
        Address(address)
    }

    /// Verifies that this key signed the digest, and that a contract would find the same: what `ecrecover` makes of the
    /// signature depends on its recovery id, which the equation of ECDSA says nothing about.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        match signature.recover(digest)? == *self {
            true => Ok(()),
            false => Err(SignatureError::WrongSigner),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.address())
    }
}

/// A secret key. It is wiped when dropped and is never printed.
pub struct SigningKey {
    secret: SecretKey,
    address: Address,
}

impl SigningKey {
    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        let mut copy = *bytes;
        let secret = SecretKey::from_secret_bytes(copy);
        copy.zeroize();
        let secret = secret.map_err(|_| SignatureError::BadKey)?;
        let address = PublicKey(secret.public_key()).address();
        Ok(Self { secret, address })
    }

    /// The account of this key.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.secret.public_key())
    }

    /// The secret bytes, for a signer of another library. The caller wipes them.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.secret.to_secret_bytes())
    }

    /// Signs a digest (RFC 6979 nonce, low s).
    pub fn sign(&self, digest: &Digest) -> Signature {
        let (id, rs) = RecoverableSignature::sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.secret)
            .serialize_compact();
        let (r, s) = rs.split_first_chunk::<32>().map_or(([0; 32], [0; 32]), |(r, rest)| {
            (*r, rest.first_chunk::<32>().copied().unwrap_or_default())
        });
        Signature {
            r: Digest(r),
            s: Digest(s),
            y_odd: matches!(id, RecoveryId::One | RecoveryId::Three),
        }
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32]).unwrap()
    }

    #[test]
    fn the_first_development_key_has_the_known_address() {
        let mut bytes = [0u8; 32];
        let secret = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        hex::decode_to_slice(secret, &mut bytes).unwrap();
        let address = SigningKey::from_bytes(&bytes).unwrap().address();
        assert_eq!(address.to_string(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    }

    #[test]
    fn a_signature_is_recovered_and_verified() {
        let digest = Digest(keccak256(&[b"words"]));
        let signature = key().sign(&digest);
        assert_eq!(signature.recover(&digest).unwrap().address(), key().address());
        key().public_key().verify(&digest, &signature).unwrap();
        let other = Digest(keccak256(&[b"other words"]));
        assert_eq!(
            key().public_key().verify(&other, &signature),
            Err(SignatureError::WrongSigner)
        );
        assert_eq!(Signature::from_bytes(&signature.to_bytes()).unwrap(), signature);
    }

    #[test]
    fn a_high_s_is_refused() {
        let mut bytes = key().sign(&Digest([1; 32])).to_bytes();
        bytes[32..64].copy_from_slice(&[0xfe; 32]);
        assert_eq!(Signature::from_bytes(&bytes), Err(SignatureError::Malformed));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert!(!format!("{:?}", key()).contains("0909"));
    }
}
