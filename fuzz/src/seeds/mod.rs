//! The beginnings of the corpora, made of our own types: small and valid, so that a fuzzer starts behind the first
//! checks. `cargo run --release -p rialto-fuzz --bin seeds` writes them; they are made again when a type changes.

mod files;
pub(crate) mod market;
mod requests;

use rialto_protocol::{Digest, SigningKey, signature::SignatureError};

/// A file of a corpus.
pub struct Seed {
    /// Of which target.
    pub target: &'static str,
    /// The file's name.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// All of them. Each is accepted by its target.
///
/// Fails if a key of sevens were no secret key, which it is.
pub fn all() -> Result<Vec<Seed>, SignatureError> {
    let signature = SigningKey::from_bytes(&[7; 32])?.sign(&Digest([7; 32]));
    let parts = [files::seeds(), market::seeds(signature), requests::seeds()];
    Ok(parts.into_iter().flatten().collect())
}

fn seed(target: &'static str, name: &'static str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed {
        target,
        name,
        bytes: bytes.into(),
    }
}
