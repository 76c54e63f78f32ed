//! Keys in files: Web3 Secret Storage version 3, which `cast wallet` and every Ethereum client read.
//!
//! The key is encrypted with AES-128-CTR under a key that scrypt derives from the password. Files are for their owner
//! alone and are written whole or not at all; an existing file is never replaced. Deriving takes tens of milliseconds of
//! CPU: in async code call it from a blocking task.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use ctr::cipher::{KeyIvInit, StreamCipher};
use rialto_protocol::{SigningKey, hash::keccak256};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

type Cipher = ctr::Ctr128BE<aes::Aes128>;

const CIPHER: &str = "aes-128-ctr";
const KDF: &str = "scrypt";
/// Cost of new files: 2^15 rounds of 1 KiB, four times what `cast` uses.
const LOG_N: u8 = 15;
/// Most memory that deriving may take for a file that others wrote: 512 MiB.
const MAX_MEMORY: u64 = 512 << 20;
const MAX_PARALLEL: u32 = 16;
/// Most bytes of a file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why a key could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("key file {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a file of this format, or damaged.
    #[error("key file {path} is not a version 3 key file: {reason}", path = path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The password does not fit, or the file was changed.
    #[error("the password does not open key file {path}", path = path.display())]
    WrongPassword {
        /// Which.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Keystore {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    crypto: Crypto,
    id: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    #[serde(with = "hex::serde")]
    ciphertext: Vec<u8>,
    kdf: String,
    kdfparams: KdfParams,
    #[serde(with = "hex::serde")]
    mac: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    #[serde(with = "hex::serde")]
    iv: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct KdfParams {
    dklen: u32,
    n: u32,
    p: u32,
    r: u32,
    #[serde(with = "hex::serde")]
    salt: Vec<u8>,
}

/// The key of a file; if there is no file, a new random key is made and written.
pub fn load_or_create(path: &Path, password: &[u8]) -> Result<SigningKey, Error> {
    match load(path, password) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(path, password),
        other => other,
    }
}

/// Makes a new random key and writes it. If another process was quicker, the result is the other's key.
pub fn create(path: &Path, password: &[u8]) -> Result<SigningKey, Error> {
    let key = loop {
        let mut secret = Zeroizing::new([0u8; 32]);
        rand::fill(&mut secret[..]);
        if let Ok(key) = SigningKey::from_bytes(&secret) {
            break key;
        }
    };
    match store(path, password, &key) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => load(path, password),
        other => other.map(|()| key),
    }
}

/// Reads a key.
pub fn load(path: &Path, password: &[u8]) -> Result<SigningKey, Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let malformed = |reason| Error::Malformed {
        path: path.to_owned(),
        reason,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(malformed("it is too large"));
    }
    let keystore: Keystore = serde_json::from_slice(&text).map_err(|_| malformed("it is not the expected JSON"))?;
    let secret = decrypt(&keystore, password).map_err(|reason| match reason {
        Some(reason) => malformed(reason),
        None => Error::WrongPassword { path: path.to_owned() },
    })?;
    SigningKey::from_bytes(&secret).map_err(|_| malformed("its content is not a key"))
}

/// Writes a key to a file that must not exist yet.
pub fn store(path: &Path, password: &[u8], key: &SigningKey) -> Result<(), Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let text = encrypt(key, password).ok_or_else(|| failed(io::Error::other("the key cannot be encrypted")))?;
    write_new(path, &text).map_err(failed)
}

fn derive(password: &[u8], params: &KdfParams) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let memory = 128 * u64::from(params.n).saturating_mul(u64::from(params.r));
    if !params.n.is_power_of_two() || memory > MAX_MEMORY || params.p > MAX_PARALLEL || params.dklen != 32 {
        return Err("its scrypt parameters are out of bounds");
    }
    let log_n = u8::try_from(params.n.trailing_zeros()).unwrap_or(u8::MAX);
    let bad = "its scrypt parameters are not valid";
    let cost = scrypt::Params::new(log_n, params.r, params.p).map_err(|_| bad)?;
    let mut derived = Zeroizing::new([0u8; 32]);
    scrypt::scrypt(password, &params.salt, &cost, &mut derived[..]).map_err(|_| bad)?;
    Ok(derived)
}

/// The two halves of a derived key: for the cipher and for the checksum.
fn halves(derived: &[u8; 32]) -> ([u8; 16], [u8; 16]) {
    let (mut first, mut second) = ([0u8; 16], [0u8; 16]);
    for (to, from) in first.iter_mut().chain(second.iter_mut()).zip(derived) {
        *to = *from;
    }
    (first, second)
}

/// The secret; `Err(None)` for a wrong password.
fn decrypt(keystore: &Keystore, password: &[u8]) -> Result<Zeroizing<[u8; 32]>, Option<&'static str>> {
    let crypto = &keystore.crypto;
    if keystore.version != 3 || crypto.cipher != CIPHER || crypto.kdf != KDF {
        return Err(Some("another version, cipher or derivation"));
    }
    let iv: [u8; 16] = crypto
        .cipherparams
        .iv
        .as_slice()
        .try_into()
        .map_err(|_| Some("its iv has another length"))?;
    let ciphertext: [u8; 32] = crypto
        .ciphertext
        .as_slice()
        .try_into()
        .map_err(|_| Some("its key has another length"))?;
    let derived = derive(password, &crypto.kdfparams).map_err(Some)?;
    let (cipher_key, mac_key) = halves(&derived);
    let (cipher_key, mac_key) = (Zeroizing::new(cipher_key), Zeroizing::new(mac_key));
    let mac = keccak256(&[&mac_key[..], &ciphertext]);
    if !bool::from(mac.as_slice().ct_eq(&crypto.mac)) {
        return Err(None);
    }
    let mut secret = Zeroizing::new(ciphertext);
    Cipher::new(&(*cipher_key).into(), &iv.into()).apply_keystream(&mut secret[..]);
    Ok(secret)
}

fn encrypt(key: &SigningKey, password: &[u8]) -> Option<Vec<u8>> {
    let (salt, iv, id): ([u8; 32], [u8; 16], u128) = rand::random();
    let kdfparams = KdfParams {
        dklen: 32,
        n: 1 << LOG_N,
        p: 1,
        r: 8,
        salt: salt.to_vec(),
    };
    let derived = derive(password, &kdfparams).ok()?;
    let (cipher_key, mac_key) = halves(&derived);
    let (cipher_key, mac_key) = (Zeroizing::new(cipher_key), Zeroizing::new(mac_key));
    let mut ciphertext = key.to_bytes();
    Cipher::new(&(*cipher_key).into(), &iv.into()).apply_keystream(&mut ciphertext[..]);
    let keystore = Keystore {
        address: Some(hex::encode(key.address().0)),
        version: 3,
        id: uuid(id),
        crypto: Crypto {
            cipher: CIPHER.into(),
            cipherparams: CipherParams { iv: iv.to_vec() },
            mac: keccak256(&[&mac_key[..], &ciphertext[..]]).to_vec(),
            ciphertext: ciphertext.to_vec(),
            kdf: KDF.into(),
            kdfparams,
        },
    };
    serde_json::to_vec(&keystore).ok()
}

/// A random UUID (version 4) as text.
fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// Writes a file that does not exist yet, for its owner alone: whole and on disk, or not at all.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    create_private_folder(folder)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = write_private(&temporary, content).and_then(|()| {
        // A link, unlike a renaming, fails when the file exists: a key is never replaced.
        fs::hard_link(&temporary, path)
    });
    let removed = fs::remove_file(&temporary);
    written?;
    removed?;
    File::open(folder)?.sync_all()
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = folder();
        let path = folder.path().join("keys/provider.json");
        let made = load_or_create(&path, b"password").unwrap();
        let found = load_or_create(&path, b"password").unwrap();
        assert_eq!(*made.to_bytes(), *found.to_bytes());
        assert!(matches!(load(&path, b"other"), Err(Error::WrongPassword { .. })));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_for_its_owner_alone_and_is_never_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder();
        let path = folder.path().join("key.json");
        let first = create(&path, b"password").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = SigningKey::from_bytes(&[7; 32]).unwrap();
        assert!(store(&path, b"password", &other).is_err());
        assert_eq!(create(&path, b"password").unwrap().address(), first.address());
    }

    /// Made with OpenSSL's scrypt and AES, with the cost that other clients call light.
    #[test]
    fn a_file_of_another_implementation_is_read() {
        let folder = folder();
        let path = folder.path().join("vector.json");
        let text = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"000102030405060708090a0b0c0d0e0f"},
            "ciphertext":"d312b521df497259e56a87af75553cb12d4fb321b03f9f34838e4e14ab7dc37e","kdf":"scrypt",
            "kdfparams":{"dklen":32,"n":4096,"r":8,"p":6,
            "salt":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
            "mac":"1c1b338cf51a7d42ad800a5e28a6dd8e37a295a29f942a3014bb346ead39e6f1"},
            "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
        fs::write(&path, text).unwrap();
        let key = load(&path, b"testpassword").unwrap();
        let expected = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
        assert_eq!(hex::encode(*key.to_bytes()), expected);
    }

    #[test]
    fn hostile_files_are_refused_without_work() {
        let folder = folder();
        let path = folder.path().join("key.json");
        create(&path, b"password").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"n\":32768", "\"n\":1073741824"),
            ("\"n\":32768", "\"n\":32767"),
            ("\"p\":1", "\"p\":4000000000"),
            ("\"dklen\":32", "\"dklen\":64"),
            ("\"version\":3", "\"version\":4"),
            ("scrypt", "pbkdf2"),
        ] {
            assert!(text.contains(from), "{from}");
            let bad = folder.path().join("bad.json");
            fs::write(&bad, text.replace(from, to)).unwrap();
            assert!(matches!(load(&bad, b"password"), Err(Error::Malformed { .. })), "{to}");
        }
    }

    #[test]
    fn an_id_is_a_version_4_uuid() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
