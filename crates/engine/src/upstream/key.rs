//! The server's key: read from a file that only its owner can read, kept in memory that is wiped, never printed.

use std::{fmt, fs::File, io::Read, path::Path};

use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::Error;

/// Longest key.
const MAX_BYTES: u64 = 4_096;

/// A key, as the header that carries it.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Reads a key. Fails if others can read it too.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::Model(format!("the key file {}: {reason}", path.display()));
        let file = File::open(path).map_err(|error| bad(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| bad(error.to_string()))?;
        if !metadata.is_file() {
            return Err(bad("not a regular file".into()));
        }
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 != 0 {
            return Err(bad("others can read it: `chmod 600` it".into()));
        }
        let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES.try_into().unwrap_or(0)));
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
        let length = read.map_err(|_| bad("not text".into()))?;
        if u64::try_from(length).is_ok_and(|length| length > MAX_BYTES) {
            return Err(bad(format!("longer than {MAX_BYTES} bytes")));
        }
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("not a key: letters, digits and signs in one line".into()));
        }
        Ok(Self(Zeroizing::new(format!("Bearer {key}"))))
    }

    /// The value of the header; it is not shown when headers are logged.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused_and_none_is_ever_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "sk-secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = ApiKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let key = ApiKey::read(&path).unwrap();
        assert_eq!(key.header().unwrap(), "Bearer sk-secret");
        assert!(!format!("{key:?} {:?}", key.header()).contains("secret"));
        for bad in ["", "two words", "a\nb", &"x".repeat(5_000)] {
            fs::write(&path, bad).unwrap();
            assert!(ApiKey::read(&path).is_err(), "{bad}");
        }
    }
}
