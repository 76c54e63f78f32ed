//! What is printed: data to standard output, talk and progress to standard error.

use std::{fmt::Display, io::Write, process::ExitCode, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// Starts the log on standard error.
pub(crate) fn start_logging(verbose: u8, json: bool) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if json {
        log.json().try_init()
    } else {
        log.with_target(false).try_init()
    };
    // Only a second start fails, and the first is as good.
    drop(started);
}

/// Prints an error on one line of standard error, causes included.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    say(format_args!("error: {error:#}"));
    ExitCode::FAILURE
}

/// A line of data on standard output. A closed pipe is not an error of ours.
pub(crate) fn line(text: impl Display) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Text on standard output without a line end, at once.
pub(crate) fn piece(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(write!(out, "{text}").and_then(|()| out.flush()));
}

/// A line of talk on standard error.
pub(crate) fn say(text: impl Display) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// One JSON object on a line of standard output.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Prints either JSON, or text made by `text`.
pub(crate) fn either(as_json: bool, value: &impl Serialize, text: impl FnOnce()) -> anyhow::Result<()> {
    if as_json {
        return json(value);
    }
    text();
    Ok(())
}

/// A table with aligned columns; nothing but the header when there are no rows.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        line(padded.join("  ").trim_end());
    };
    print(header.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// A spinner on standard error for a step that takes a while; invisible when that is no terminal.
pub(crate) fn step(text: impl Into<String>) -> Step {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    let text = text.into();
    bar.set_message(text.clone());
    bar.enable_steady_tick(Duration::from_millis(120));
    Step {
        bar,
        text,
        started: std::time::Instant::now(),
    }
}

/// A running step.
pub(crate) struct Step {
    bar: ProgressBar,
    text: String,
    started: std::time::Instant,
}

impl Step {
    /// Ends the step with a line that stays.
    pub(crate) fn done(self, what: impl Display) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        say(format_args!("  ✓ {:<34} {what} ({seconds:.1} s)", self.text));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
