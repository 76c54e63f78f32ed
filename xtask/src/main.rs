//! Chores of the repository, as a program.
//!
//! - `tidy` checks the house rules over every tracked file and prints one line for each place that breaks one;
//! - `licences` checks that every dependency comes from the registry and under a licence that `deny.toml` allows;
//! - `docs` lists the tested commands of the documentation, `docs NAME` prints one of them.
//!
//! All of them read only; a failed check ends with exit code 1, a wrong command line with 2.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line chore: its findings are its output"
)]

mod docs;
mod exceptions;
mod finding;
mod licences;
mod repo;
mod rules;
mod rust_text;

use std::process::ExitCode;

use anyhow::Result;

use crate::exceptions::Exceptions;
use crate::finding::Finding;
use crate::repo::Repo;

const USAGE: &str = "usage: cargo run --release -p xtask -- (tidy | licences | docs [NAME])";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["tidy"] => tidy(),
        ["licences"] => licences(),
        ["docs"] => list_docs(),
        ["docs", name] => print_doc(name),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every house rule; true when nothing was found that no exception covers.
fn tidy() -> Result<bool> {
    let repo = Repo::open()?;
    let exceptions = Exceptions::read(&repo, exceptions::today()?)?;
    let findings = exceptions.apply(rules::check_all(&repo)?);
    report(&findings, "tidy");
    Ok(findings.is_empty())
}

/// Checks where every dependency comes from and under which licence.
fn licences() -> Result<bool> {
    let repo = Repo::open()?;
    let findings = licences::check(&repo)?;
    report(&findings, "licences");
    Ok(findings.is_empty())
}

fn list_docs() -> Result<bool> {
    let repo = Repo::open()?;
    for block in docs::tested_blocks(&repo)? {
        println!("{}", block.name);
    }
    Ok(true)
}

fn print_doc(name: &str) -> Result<bool> {
    let repo = Repo::open()?;
    let blocks = docs::tested_blocks(&repo)?;
    match blocks.iter().find(|block| block.name == name) {
        Some(block) => print!("{}", block.script),
        None => anyhow::bail!("no block of the documentation is marked `<!-- test: {name} -->`"),
    }
    Ok(true)
}

fn report(findings: &[Finding], what: &str) {
    for finding in findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("{what}: nothing to say"),
        count => println!("{what}: {count} to mend"),
    }
}
