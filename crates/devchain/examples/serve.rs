//! Runs a development chain by itself: `cargo run --release -p rialto-devchain --example serve -- [port] [directory]`.
#![expect(clippy::print_stdout, reason = "an example shows where to connect")]

use rialto_devchain::{Config, DEFAULT_CHAIN_ID, Devchain};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(8545), |port| port.parse())?;
    let data_dir = arguments.next().map(Into::into);
    let listen = ([127, 0, 0, 1], port).into();
    let chain = Devchain::start(Config {
        data_dir,
        listen,
        chain_id: DEFAULT_CHAIN_ID,
    })
    .await?;
    println!("{}", chain.rpc_url());
    tokio::signal::ctrl_c().await?;
    chain.shutdown().await?;
    Ok(())
}
