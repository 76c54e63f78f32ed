//! `rialto relay`: passes on what nodes behind NATs send each other.

use std::num::NonZeroU32;

use anyhow::{Context, Result};
use rialto_network::{Relay, RelayConfig};
use serde_json::json;

use crate::{args, flow, output, settings::Settings};

/// Where it answers when nothing else is said: on this machine alone.
const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 3340);

/// What one node may send when nothing else is said: answers of many models at once, and no more than a home's line.
const DEFAULT_KILOBYTES: NonZeroU32 = NonZeroU32::MIN.saturating_add(4_095);

/// Relays until it is stopped.
pub(crate) async fn run(settings: &Settings, options: &args::Relay) -> Result<()> {
    let file = &settings.file.relaying;
    let listen = options.listen.or(file.listen).unwrap_or_else(|| DEFAULT_LISTEN.into());
    let kilobytes = options.kilobytes.or(file.kilobytes).unwrap_or(DEFAULT_KILOBYTES);
    let bytes_per_second = kilobytes.checked_mul(NonZeroU32::MIN.saturating_add(999));
    let bytes_per_second = bytes_per_second.context("--kilobytes: at most four million")?;
    let relay = Relay::start(RelayConfig {
        listen,
        bytes_per_second,
    })
    .await?;
    let url = relay.url();
    output::either(settings.json, &json!({ "ready": "relay", "url": url }), || {
        output::line(format_args!("relay at {url}"));
    })?;
    flow::until_stopped(false).await;
    relay.shutdown().await?;
    Ok(())
}
