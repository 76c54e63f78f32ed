//! What a story checks of the money: the buyer's receipts, the seller's, and the chain say the same.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use rialto_settlement::Chain;
use rialto_testkit::{PATIENCE, money::Books, process::Up};
use serde_json::Value;

/// Totals of the receipts of each channel, in nano-dollars.
pub(crate) type Totals = BTreeMap<String, u128>;

/// The buyer's receipts by channel: numbers without a gap, totals that add up.
pub(crate) fn bought(up: &Up) -> Result<Totals> {
    let rows = up.ask(&["receipts", "--limit", "10000"])?;
    let rows = rows.as_array().context("a list of receipts")?;
    for row in rows {
        ensure!(
            row.get("complaint").is_none_or(Value::is_null),
            "a receipt was not accepted: {row}"
        );
    }
    totals(rows.iter().filter_map(|row| row.pointer("/signed/receipt")))
}

/// The seller's receipts by channel.
pub(crate) fn sold(up: &Up) -> Result<Totals> {
    let value = up.ask(&["receipts", "--sold", "--limit", "10000"])?;
    let rows = value
        .get("receipts")
        .and_then(Value::as_array)
        .context("a list of receipts")?;
    totals(rows.iter().filter_map(|row| row.get("receipt")))
}

fn totals<'a>(receipts: impl Iterator<Item = &'a Value>) -> Result<Totals> {
    let mut channels: BTreeMap<String, BTreeMap<u64, (u128, u128)>> = BTreeMap::new();
    for receipt in receipts {
        let channel = receipt.get("channel").and_then(Value::as_str).context("channel")?;
        let sequence = receipt.get("sequence").and_then(Value::as_u64).context("sequence")?;
        let amount = |name: &str| -> Result<u128> { Ok(receipt.get(name).context("amount")?.to_string().parse()?) };
        let known = channels.entry(channel.to_owned()).or_default();
        let before = known.insert(sequence, (amount("cost")?, amount("total")?));
        ensure!(before.is_none(), "two receipts have number {sequence} of {channel}");
    }
    let mut totals = Totals::new();
    for (channel, receipts) in channels {
        let mut sum = 0;
        for (expected, (sequence, (cost, total))) in (1..).zip(receipts) {
            ensure!(sequence == expected, "receipt {expected} of {channel} is missing");
            sum += cost;
            ensure!(
                total == sum,
                "receipt {sequence} of {channel} says {total}, the costs add up to {sum}"
            );
        }
        totals.insert(channel, sum);
    }
    Ok(totals)
}

/// Waits until the chain has paid exactly what the receipts of both sides say, and checks that no money was made or
/// lost. `all_sold_here` says that the market's own provider was the only one.
///
/// A receipt is with its seller first, then with its buyer, and at last on the chain: while one is on its way they differ.
pub(crate) async fn settles(up: &Up, all_sold_here: bool) -> Result<Totals> {
    let chain = up.chain()?;
    let mut last = String::new();
    let wait = async {
        loop {
            let paid = paid(&chain).await?;
            let bought = bought(up).map_err(|error| format!("{error:#}"));
            let sold = if all_sold_here { sold(up)? } else { Totals::new() };
            match &bought {
                Ok(bought) if (!all_sold_here || *bought == sold) && paid == due(bought) => {
                    return anyhow::Ok(bought.clone());
                }
                _ => last = format!("bought {bought:?}, sold {sold:?}, paid {paid:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, wait).await;
    settled.with_context(|| format!("buyer, seller and chain do not come to say the same: {last}"))?
}

/// What the chain has paid on each channel, in micro-dollars.
async fn paid(chain: &Chain) -> Result<Totals> {
    let channels = Books::check(chain).await?.channels;
    let paid = channels.iter().filter(|(_, state)| state.redeemed.get() > 0);
    Ok(paid.map(|(id, state)| (id.to_string(), state.redeemed.get())).collect())
}

/// What it has to pay in the end.
fn due(receipts: &Totals) -> Totals {
    let rounded = receipts.iter().map(|(id, nano)| (id.clone(), nano.div_ceil(1_000)));
    rounded.collect()
}
