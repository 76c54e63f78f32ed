//! What an owner can set about batches.

use serde::{Deserialize, Serialize};

/// Limits of files and batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchPolicy {
    /// Requests of batches that are worked on at a time. They begin only while half of the gateway's places are free.
    pub concurrency: usize,
    /// Sellers that are asked for a bid; zero buys at posted prices.
    pub bidders: usize,
    /// Largest file, in bytes.
    pub max_file_bytes: u64,
    /// Most bytes of all files that one API key has uploaded.
    pub max_key_bytes: u64,
    /// Unfinished batches of one API key.
    pub max_of_key: u32,
    /// Unfinished batches in all.
    pub max_in_all: u32,
    /// Seconds after which no further request of a batch begins.
    pub window_seconds: u64,
    /// Seconds after which a file is gone, unless its owner said otherwise.
    pub file_seconds: u64,
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self {
            concurrency: 16,
            bidders: 16,
            max_file_bytes: 200 << 20,
            max_key_bytes: 2 << 30,
            max_of_key: 32,
            max_in_all: 512,
            window_seconds: 24 * 3_600,
            file_seconds: 30 * 24 * 3_600,
        }
    }
}
