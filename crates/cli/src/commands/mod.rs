//! One file for each command.

mod bench;
mod chain;
mod channel;
mod chat;
mod deploy;
mod doctor;
mod gateway;
mod key;
mod machine;
mod man;
mod market;
mod metrics;
mod model;
mod price;
mod provide;
mod receipts;
mod relay;
mod reset;
mod stake;
mod ticket;
mod up;
mod wallet;

use anyhow::Result;
use clap::CommandFactory;

use crate::{
    args::{self, Arguments, Command},
    output,
    settings::Settings,
};

/// Runs the command that was asked for.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    // What the program says of itself needs no settings and makes no data directory.
    match &arguments.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "rialto", &mut script);
            output::piece(&String::from_utf8(script)?);
            return Ok(());
        }
        Command::Man { out } => return man::run(out.as_deref()),
        _ => {}
    }
    let settings = Settings::load(&arguments)?;
    match arguments.command {
        Command::Up(options) => up::run(&settings, &options).await,
        Command::Provide(options) => provide::run(&settings, &options).await,
        Command::Gateway(options) => gateway::run(&settings, &options).await,
        Command::Chain(args::Chain {
            action: Some(args::ChainAction::Deploy(options)),
            ..
        }) => deploy::run(&settings, &options).await,
        Command::Chain(options) => chain::run(&settings, &options).await,
        Command::Relay(options) => relay::run(&settings, &options).await,
        Command::Chat(options) => chat::run(&settings, &options).await,
        Command::Market(options) => market::run(&settings, &options).await,
        Command::Model(action) => model::run(&settings, &action).await,
        Command::Wallet(wallet) => wallet::run(&settings, wallet.action.as_ref()).await,
        Command::Stake(action) => stake::run(&settings, &action).await,
        Command::Channel(action) => channel::run(&settings, &action).await,
        Command::Receipts(options) => receipts::run(&settings, &options).await,
        Command::Key(action) => key::run(&settings, &action).await,
        Command::Ticket => ticket::run(&settings),
        Command::Price(options) => price::run(&settings, &options).await,
        Command::Machine => machine::run(&settings),
        Command::Doctor => doctor::run(&settings).await,
        Command::Reset(options) => reset::run(&settings, &options),
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}
