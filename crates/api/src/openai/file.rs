//! Files: what batches are read from and written to.

use serde::{Deserialize, Serialize};

use crate::BadRequest;

/// Longest name of a file that is kept, in bytes.
pub const MAX_FILE_NAME: usize = 255;

/// Seconds after its creation at which a file may be asked to expire.
pub const FILE_LIFETIMES: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;

/// A file as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileObject {
    /// `file-…`.
    pub id: String,
    /// Always `file`.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970; after that it is gone.
    pub expires_at: Option<u64>,
    /// What its owner calls it.
    pub filename: String,
    /// `batch` or `batch_output`.
    pub purpose: String,
    /// Always `processed`; clients expect it.
    pub status: String,
}

/// `GET /v1/files` and `GET /v1/batches`: a page of a list, and whether there is more after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Always `list`.
    pub object: String,
    /// The objects.
    pub data: Vec<T>,
    /// The id of the first of them.
    pub first_id: Option<String>,
    /// The id of the last of them, which the next page is asked for with.
    pub last_id: Option<String>,
    /// Whether there are more.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// A page of these objects; `id` tells an object's id.
    pub fn new(data: Vec<T>, has_more: bool, id: impl Fn(&T) -> &str) -> Self {
        Self {
            object: "list".into(),
            first_id: data.first().map(|one| id(one).to_owned()),
            last_id: data.last().map(|one| id(one).to_owned()),
            data,
            has_more,
        }
    }
}

/// `DELETE /v1/files/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDeleted {
    /// The file that was.
    pub id: String,
    /// Always `file`.
    pub object: String,
    /// Always true.
    pub deleted: bool,
}

/// When a file shall be gone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpiresAfter {
    /// From when on it is counted: always `created_at`.
    pub anchor: String,
    /// Seconds; within [`FILE_LIFETIMES`].
    pub seconds: u64,
}

impl ExpiresAfter {
    /// The seconds, if both parts are acceptable. `at` names the field.
    pub fn checked(&self, at: &str) -> Result<u64, BadRequest> {
        if self.anchor != "created_at" {
            return Err(BadRequest::value(format!("{at}.anchor"), "must be 'created_at'"));
        }
        if !FILE_LIFETIMES.contains(&self.seconds) {
            let reason = "must be between 3600 (an hour) and 2592000 (30 days)";
            return Err(BadRequest::value(format!("{at}.seconds"), reason));
        }
        Ok(self.seconds)
    }
}

/// A client's name for a file, without what could hurt where it is shown: control characters, and folders.
pub fn file_name(told: &str) -> String {
    let last = told.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible = last.chars().filter(|one| !one.is_control());
    let mut name = String::new();
    for one in visible {
        if name.len() + one.len_utf8() > MAX_FILE_NAME {
            break;
        }
        name.push(one);
    }
    if name.is_empty() { "file".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_no_folder_and_nothing_invisible() {
        let cases = [
            ("batch.jsonl", "batch.jsonl"),
            ("../../etc/passwd", "passwd"),
            ("C:\\a\\b.jsonl", "b.jsonl"),
            ("a\r\nb\u{0}", "ab"),
            ("", "file"),
            ("/", "file"),
        ];
        for (told, kept) in cases {
            assert_eq!(file_name(told), kept);
        }
        assert!(file_name(&"é".repeat(500)).len() <= MAX_FILE_NAME);
    }

    #[test]
    fn a_lifetime_has_bounds() {
        let after = |anchor: &str, seconds| ExpiresAfter {
            anchor: anchor.into(),
            seconds,
        };
        assert_eq!(after("created_at", 3_600).checked("x"), Ok(3_600));
        assert!(after("created_at", 3_599).checked("x").is_err());
        let fault = after("now", 3_600).checked("expires_after").unwrap_err();
        assert_eq!(fault.param.as_deref(), Some("expires_after.anchor"));
    }
}
