//! Channels that stand by, on a chain and with sellers that are real but for their engines.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use rialto_testkit::{
    PATIENCE,
    market::{MODEL, Market, Plan},
};
use serde_json::json;

/// Providers with an open channel.
async fn open(market: &Market) -> Result<BTreeSet<String>> {
    let channels = market.gateway().store().channels().await?;
    let open = channels
        .iter()
        .filter(|channel| channel.status == rialto_gateway::store::ChannelStatus::Open);
    Ok(open.map(|channel| channel.params.provider.to_string()).collect())
}

#[tokio::test]
async fn a_model_in_use_has_a_second_channel_before_it_is_needed() -> Result<()> {
    let market = Market::start(Plan {
        providers: 3,
        ..Plan::default()
    })
    .await?;
    let client = market.client();
    client.chat(MODEL, "hello", 4).await?;
    let standing = async {
        while open(&market).await?.len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(open(&market).await?)
    };
    let sellers = tokio::time::timeout(PATIENCE, standing).await;
    let sellers = sellers.context("no channel stands by")??;
    // Either of them answers, and no third channel is opened for it.
    for seller in &sellers {
        let mut body = rialto_testkit::client::Client::chat_body(MODEL, "again", 4);
        body["provider"] = json!({ "only": [seller] });
        let (status, ..) = client.post("/chat/completions", &body, &[]).await?;
        assert_eq!(status, 200);
    }
    assert_eq!(open(&market).await?, sellers);
    market.stop().await
}
