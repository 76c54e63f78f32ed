//! `rialto chain`: the embedded development chain.

use std::time::{Duration, Instant};

use anyhow::Result;
use rialto_devchain::{Config, Devchain};
use serde_json::json;

use crate::{args, data_dir::LAST_PROCESS, flow, output, settings::Settings};

/// Where it answers when nothing else is said.
pub(crate) const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8545);

/// Runs the chain until it is stopped.
pub(crate) async fn run(settings: &Settings, options: &args::Chain) -> Result<()> {
    let listen = options
        .listen
        .or(settings.file.chain.listen)
        .unwrap_or_else(|| DEFAULT_LISTEN.into());
    let data_dir = Some(settings.dir.folder("chain")?);
    let config = Config {
        data_dir,
        listen,
        chain_id: options.chain_id,
    };
    let chain = start(&config, options.supervised).await?;
    if let Some(torn) = chain.torn_tail() {
        output::say(format_args!(
            "a record that a crash cut short was dropped; nothing acknowledged is missing: {torn:?}"
        ));
    }
    output::either(
        settings.json,
        &json!({ "ready": "chain", "rpc_url": chain.rpc_url() }),
        || {
            output::line(format_args!(
                "development chain {} at {}",
                options.chain_id,
                chain.rpc_url()
            ));
        },
    )?;
    flow::until_stopped(options.supervised).await;
    chain.shutdown().await?;
    Ok(())
}

/// Starts the chain; a supervised one waits until the last process has let go of the folder and the port.
async fn start(config: &Config, supervised: bool) -> Result<Devchain> {
    let until = Instant::now() + if supervised { LAST_PROCESS } else { Duration::ZERO };
    loop {
        match Devchain::start(config.clone()).await {
            Err(error) if error.is_retryable() && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}
