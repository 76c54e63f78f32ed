//! Time from `rialto up` on an empty data directory to the first paid request, and to its settlement.

use anyhow::{Context, Result};
use rialto_benches::{Report, median};
use rialto_testkit::process::Up;
use serde_json::Value;

const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let (mut paid, mut settled) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let place = tempfile::tempdir()?;
        let up = Up::on_devchain(&place.path().join("market"))?;
        let trade = up.first_trade()?;
        let time = |name: &str| trade.get(name).and_then(Value::as_f64).context("no time");
        paid.push(time("paid_after_ms")? / 1e3);
        settled.push(time("settled_after_ms")? / 1e3);
        up.stop()?;
    }
    let mut report = Report::new("first_request");
    report.row("start to first paid request", median(paid), "s");
    report.row("start to its settlement", median(settled), "s");
    report.finish()
}
