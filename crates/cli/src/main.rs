//! `rialto`: one binary for every role. It reads configuration, builds the rooms, and prints. Data goes to standard
//! output, talk to standard error.

mod args;
mod commands;
mod data_dir;
mod flow;
mod keys;
mod market;
mod models;
mod output;
mod settings;
mod setup;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    // The one TLS implementation of the process; an error says that it is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    output::start_logging(arguments.verbose, arguments.log_json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&anyhow::Error::new(error).context("the runtime does not start")),
    };
    let result = runtime.block_on(commands::run(arguments));
    // What blocks on a thread of its own, such as loading a model, does not keep a finished command alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}
