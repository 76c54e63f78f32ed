//! The first trade: asked, answered, paid, receipted, redeemed, and shown.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rialto_gateway::Store;
use rialto_protocol::{Receipt, SignedVoucher};
use rialto_provider::store::read::{Reader, Redemption};
use serde::Serialize;
use serde_json::{Value, json};

use super::Running;
use crate::{output, settings::Settings};

/// What is asked.
pub(super) const MODEL: &str = "rialto/shakespeare:q8_0";
const QUESTION: &str = "HAMLET:\nTo be, or not to be:";
const MAX_TOKENS: u64 = 64;

/// How long the offer may take to arrive, and the money to move.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything that a trade leaves behind.
#[derive(Debug, Serialize)]
pub(super) struct FirstTrade {
    question: &'static str,
    answer: String,
    receipt: Receipt,
    voucher: Option<SignedVoucher>,
    redemption: Redemption,
    paid_after_ms: u64,
    settled_after_ms: u64,
}

/// Buys an answer and waits until its money has moved.
pub(super) async fn make(settings: &Settings, running: &Running, started: SystemTime) -> Result<FirstTrade> {
    let step = output::step("first trade");
    let client = crate::commands::chat::client(&running.base_url)?;
    wait_for_offer(&client, running).await?;
    let answer = ask(&client, running).await?;
    let paid_after_ms = since(started);
    let receipt = latest_receipt(settings).await?;
    step.done("answered and paid");

    let step = output::step("settlement");
    let (voucher, redemption) = settled(settings, &receipt).await?;
    let settled_after_ms = since(started);
    step.done(format_args!("redeemed in block {}", redemption.block));
    Ok(FirstTrade {
        question: QUESTION,
        answer,
        receipt,
        voucher,
        redemption,
        paid_after_ms,
        settled_after_ms,
    })
}

fn since(started: SystemTime) -> u64 {
    let elapsed = started.elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

async fn wait_for_offer(client: &reqwest::Client, running: &Running) -> Result<()> {
    let url = format!("{}/models", running.base_url);
    let wait = async {
        loop {
            let listed: Value = client
                .get(&url)
                .bearer_auth(&running.api_key)
                .send()
                .await?
                .json()
                .await?;
            let models = listed
                .get("data")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            if models
                .iter()
                .any(|model| model.get("id").and_then(Value::as_str) == Some(MODEL))
            {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.context("no offer arrived: see logs/provider.log in the data directory")?
}

async fn ask(client: &reqwest::Client, running: &Running) -> Result<String> {
    let body = json!({
        "model": MODEL, "prompt": QUESTION, "max_tokens": MAX_TOKENS, "temperature": 0.7, "seed": 1609,
    });
    let request = client
        .post(format!("{}/completions", running.base_url))
        .bearer_auth(&running.api_key);
    let response = request.json(&body).send().await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    let Some(text) = answer.pointer("/choices/0/text").and_then(Value::as_str) else {
        let message = answer
            .pointer("/error/message")
            .and_then(Value::as_str)
            .unwrap_or("no answer");
        bail!("the first trade failed with {status}: {message}");
    };
    Ok(text.trim().to_owned())
}

async fn latest_receipt(settings: &Settings) -> Result<Receipt> {
    let store = Store::open_read_only(&settings.dir.path(crate::commands::gateway::STORE)).await?;
    let receipts = store.receipts(1).await?;
    Ok(receipts
        .first()
        .context("the answer came without a receipt")?
        .signed
        .receipt)
}

/// Waits until the chain has paid what the receipt says.
async fn settled(settings: &Settings, receipt: &Receipt) -> Result<(Option<SignedVoucher>, Redemption)> {
    let reader = Reader::open(&settings.dir.path(crate::commands::provide::STORE)).await?;
    let total = receipt.total.round_up()?;
    let wait = async {
        loop {
            let redemptions = reader.redemptions(16).await?;
            let paid = |one: &Redemption| {
                one.channels
                    .iter()
                    .any(|(id, sum)| *id == receipt.channel && *sum >= total)
            };
            if let Some(redemption) = redemptions.into_iter().find(paid) {
                return anyhow::Ok(redemption);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let redemption = tokio::time::timeout(PATIENCE, wait).await;
    let redemption = redemption.context("the money did not move: see logs/provider.log in the data directory")??;
    let channels = reader.channels().await?;
    let voucher = channels
        .into_iter()
        .find(|channel| channel.id == receipt.channel)
        .and_then(|one| one.voucher);
    Ok((voucher, redemption))
}

impl FirstTrade {
    /// Prints it.
    pub(super) fn show(&self, settings: &Settings) -> Result<()> {
        output::either(settings.json, &json!({ "first_trade": self }), || self.show_text())
    }

    fn show_text(&self) {
        let (receipt, redemption) = (&self.receipt, &self.redemption);
        let quoted: Vec<String> = self
            .answer
            .lines()
            .map(|line| format!("              {line}"))
            .collect();
        output::line(format_args!(
            "\n  asked       {}\n  answered\n{}\n  units       {} in, {} out\n  cost        {}",
            self.question.replace('\n', " "),
            quoted.join("\n"),
            receipt.usage.input,
            receipt.usage.output,
            receipt.cost,
        ));
        output::line(format_args!(
            "  receipt     number {} of channel {}\n              head {}",
            receipt.sequence,
            receipt.channel,
            receipt.head(),
        ));
        if let Some(voucher) = &self.voucher {
            output::line(format_args!(
                "  voucher     {} in all, signed by the buyer",
                voucher.voucher.cumulative
            ));
        }
        output::line(format_args!(
            "  redeemed    transaction {}\n  split       provider {}  publisher {}  protocol {}",
            redemption.transaction, redemption.provider, redemption.royalty, redemption.fee,
        ));
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        output::line(format_args!(
            "  time        {:.1} s from start to the first paid request, {:.1} s to its settlement",
            seconds(self.paid_after_ms),
            seconds(self.settled_after_ms),
        ));
    }
}
