//! Where a kernel's files are: `/`, or a folder that looks like it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Longest file that is read; `/proc/cpuinfo` of 512 cores is shorter.
const MAX_BYTES: u64 = 4 << 20;

/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 4_096;

/// The folder that holds `proc` and `sys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    folder: PathBuf,
}

impl Root {
    /// This machine's.
    pub fn system() -> Self {
        Self::at("/")
    }

    /// Another folder with `proc` and `sys` in it.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Whether this is the machine itself, which can be asked more than its files tell.
    pub(crate) fn is_system(&self) -> bool {
        self.folder == Path::new("/")
    }

    /// The full path of a file, for people.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// A file's text, cut at four megabytes.
    pub(crate) fn text(&self, relative: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(relative))?;
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file that holds one line, without its end; `None` when there is none or it is empty.
    pub(crate) fn line(&self, relative: &str) -> Option<String> {
        let text = self.text(relative).ok()?;
        let line = text.trim_matches(['\n', '\0', ' ']);
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// A file that holds one number.
    pub(crate) fn number(&self, relative: &str) -> Option<u64> {
        self.line(relative)?.parse().ok()
    }

    /// A file that holds one hexadecimal number, such as a PCI id: `0x1002`.
    pub(crate) fn hex(&self, relative: &str) -> Option<u32> {
        let line = self.line(relative)?;
        u32::from_str_radix(line.strip_prefix("0x").unwrap_or(&line), 16).ok()
    }

    /// The names in a folder, sorted; none when it is not there.
    pub(crate) fn names(&self, relative: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(relative)) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(MAX_ENTRIES).collect();
        names.sort();
        names
    }
}
