//! `rialto receipts`: the bill, in the words that both sides signed.

use anyhow::Result;
use rialto_gateway::Store;
use rialto_protocol::Receipt;
use rialto_provider::store::read::{Reader, ReceiptFilter};
use serde_json::json;

use crate::{args, output, settings::Settings};

const HEADER: [&str; 7] = ["CHANNEL", "NO", "STATUS", "IN", "OUT", "COST", "CHANNEL TOTAL"];

/// Prints what was bought, or what was sold.
pub(crate) async fn run(settings: &Settings, options: &args::Receipts) -> Result<()> {
    if options.sold {
        sold(settings, options.limit).await
    } else {
        bought(settings, options.limit).await
    }
}

async fn bought(settings: &Settings, limit: u32) -> Result<()> {
    let path = settings.dir.path(super::gateway::STORE);
    anyhow::ensure!(
        path.exists(),
        "nothing was bought from this data directory yet: run `rialto up`"
    );
    let receipts = Store::open_read_only(&path).await?.receipts(limit).await?;
    let rows: Vec<_> = receipts.iter().map(|row| cells(&row.signed.receipt)).collect();
    output::either(settings.json, &receipts, || output::table(&HEADER, &rows))
}

async fn sold(settings: &Settings, limit: u32) -> Result<()> {
    let path = settings.dir.path(super::provide::STORE);
    anyhow::ensure!(
        path.exists(),
        "nothing was sold from this data directory yet: run `rialto provide`"
    );
    let reader = Reader::open(&path).await?;
    let receipts = reader
        .receipts(&ReceiptFilter {
            limit,
            ..ReceiptFilter::default()
        })
        .await?;
    let redemptions = reader.redemptions(limit).await?;
    let rows: Vec<_> = receipts.iter().map(|signed| cells(&signed.receipt)).collect();
    let value = json!({ "receipts": receipts, "redemptions": redemptions });
    output::either(settings.json, &value, || {
        output::table(&HEADER, &rows);
        for one in &redemptions {
            output::line(format_args!(
                "redeemed in {}: provider {}, royalty {}, fee {}",
                one.transaction, one.provider, one.royalty, one.fee
            ));
        }
    })
}

fn cells(receipt: &Receipt) -> Vec<String> {
    vec![
        receipt.channel.to_string().chars().take(14).collect(),
        receipt.sequence.to_string(),
        format!("{:?}", receipt.status).to_lowercase(),
        receipt.usage.input.to_string(),
        receipt.usage.output.to_string(),
        receipt.cost.to_string(),
        receipt.total.to_string(),
    ]
}
