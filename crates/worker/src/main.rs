//! `rialto-worker`: started by a provider for each model, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    match rialto_worker::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker ends");
            ExitCode::FAILURE
        }
    }
}
