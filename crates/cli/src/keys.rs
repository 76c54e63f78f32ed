//! Keys of this machine: Web3 Secret Storage files that `cast wallet` reads, and node secrets.

use std::io::Read;

use anyhow::{Context, Result};
use rialto_protocol::SigningKey;
use rialto_settlement::keystore;
use zeroize::{Zeroize, Zeroizing};

use crate::data_dir::DataDir;

/// The account of a role, made on first use. `relative` names the key file.
///
/// The password is the content of the file named by `RIALTO_PASSWORD_FILE`; without it a random one is kept beside the
/// keys, which protects copies of a key file and not the machine.
pub(crate) fn account(dir: &DataDir, relative: &str) -> Result<SigningKey> {
    let password = password(dir)?;
    if let Some(parent) = std::path::Path::new(relative)
        .parent()
        .and_then(|parent| parent.to_str())
    {
        dir.folder(parent)?;
    }
    Ok(keystore::load_or_create(&dir.path(relative), password.as_bytes())?)
}

/// The account of a role if it has one.
pub(crate) fn existing(dir: &DataDir, relative: &str) -> Result<Option<SigningKey>> {
    if !dir.path(relative).exists() {
        return Ok(None);
    }
    account(dir, relative).map(Some)
}

/// The secret of a role's node, made on first use.
pub(crate) fn node_secret(dir: &DataDir, relative: &str) -> Result<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0u8; 32]);
    if let Some(text) = dir.read(relative)? {
        let text = Zeroizing::new(text);
        hex::decode_to_slice(text.trim(), secret.as_mut())
            .with_context(|| format!("{} is damaged: restore it from a backup", dir.path(relative).display()))?;
        return Ok(secret);
    }
    *secret = rand::random();
    dir.write(relative, &Zeroizing::new(hex::encode(secret.as_ref())))?;
    Ok(secret)
}

fn password(dir: &DataDir) -> Result<Zeroizing<String>> {
    if let Some(path) = std::env::var_os("RIALTO_PASSWORD_FILE") {
        let mut text = Zeroizing::new(String::new());
        let open = || std::fs::File::open(&path);
        open()
            .and_then(|file| file.take(4_096).read_to_string(&mut text))
            .with_context(|| format!("cannot read the password file {}", path.display()))?;
        return Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if let Some(text) = dir.read("password")? {
        return Ok(Zeroizing::new(text));
    }
    let mut bytes: [u8; 32] = rand::random();
    let text = Zeroizing::new(hex::encode(bytes));
    bytes.zeroize();
    dir.write("password", &text)?;
    Ok(text)
}
