//! What the benches share: a clock of processor time, and a report.
//!
//! Run one with `cargo run --release -p rialto-benches --bin NAME`. Machines are noisy: contestants take turns in one
//! run, and the medians' ratio is the figure to quote.

pub mod buyer;
pub mod contestants;
pub mod routers;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Processor time of this process so far, all threads, in nanoseconds.
pub fn processor_nanos() -> Result<u64> {
    processor_nanos_of("")
}

/// As [`processor_nanos`], of the threads whose names begin so.
pub fn processor_nanos_of(name: &str) -> Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let path = thread?.path();
        // A thread may end while we look.
        let (Ok(text), Ok(comm)) = (
            std::fs::read_to_string(path.join("schedstat")),
            std::fs::read_to_string(path.join("comm")),
        ) else {
            continue;
        };
        if !comm.starts_with(name) {
            continue;
        }
        sum += text
            .split_whitespace()
            .next()
            .context("schedstat is empty")?
            .parse::<u64>()?;
    }
    Ok(sum)
}

/// The middle one of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds that something took.
pub fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let started = Instant::now();
    let result = work();
    (started.elapsed().as_secs_f64(), result)
}

/// A table that is printed and kept.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    rows: Vec<(String, f64, &'static str)>,
}

impl Report {
    /// An empty table.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new() }
    }

    /// Adds a figure with its unit.
    pub fn row(&mut self, what: impl Into<String>, figure: f64, unit: &'static str) {
        self.rows.push((what.into(), figure, unit));
    }

    /// Prints the table and writes it to `target/bench/NAME.json`.
    #[expect(clippy::print_stdout, reason = "a bench prints its table")]
    pub fn finish(self) -> Result<()> {
        println!("{}", self.name);
        for (what, figure, unit) in &self.rows {
            println!("  {what:<64} {figure:>12.4} {unit}");
        }
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(what, figure, unit)| json!({ "what": what, "figure": figure, "unit": unit }))
            .collect();
        let path = folder().join(format!("{}.json", self.name));
        std::fs::create_dir_all(folder())?;
        std::fs::write(
            &path,
            serde_json::to_string_pretty(&json!({ "name": self.name, "rows": rows }))?,
        )?;
        println!("  written to target/bench/{}.json", self.name);
        Ok(())
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench")
}
