//! Models that a server runs: `[[provider.upstream]]`.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rialto_engine::{Engine, Error, UpstreamConfig, UpstreamEngine};

use crate::{
    models::{self, Found},
    output,
    settings::UpstreamFile,
};

/// How long a server may take to load its model, where nobody says; less than `rialto up` gives a provider.
const STARTUP: Duration = Duration::from_secs(240);

const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// What is to be sold, each with the server that runs it, if it is not run here. Without names, and with servers, only
/// what these run is sold.
pub(super) fn sold<'a>(
    named: &[PathBuf],
    servers: &'a [UpstreamFile],
) -> Result<Vec<(Found, Option<&'a UpstreamFile>)>> {
    let found = if named.is_empty() && !servers.is_empty() {
        Vec::new()
    } else {
        models::find(named)?
    };
    let mut sold: Vec<(Found, Option<&UpstreamFile>)> = found.into_iter().map(|model| (model, None)).collect();
    for server in servers {
        let model = Found::read(&server.manifest).context("`provider.upstream`")?;
        match sold.iter_mut().find(|(known, _)| known.manifest == model.manifest) {
            Some((_, taken)) => {
                ensure!(taken.is_none(), "{} is upstream twice", model.manifest.listing());
                *taken = Some(server);
            }
            None => sold.push((model, Some(server))),
        }
    }
    Ok(sold)
}

/// Finds the server and checks that it serves the model.
pub(super) async fn connect(model: &Found, server: &UpstreamFile) -> Result<Arc<dyn Engine>> {
    let name = model.manifest.listing();
    let step = output::step(format!("finding the server of {name}"));
    let default = UpstreamConfig::new(&model.manifest, &server.url, &server.model);
    let config = UpstreamConfig {
        api_key_file: server.api_key_file.clone(),
        kind: server.kind,
        slots: server.slots,
        first_token: server.first_token.map_or(default.first_token, Duration::from_secs),
        between_tokens: server
            .between_tokens
            .map_or(default.between_tokens, Duration::from_secs),
        ..default
    };
    let patience = server.startup.map_or(STARTUP, Duration::from_secs);
    let connected = wait(config, patience).await;
    let engine = connected.with_context(|| format!("{name}, `{}` at {}", server.model, server.url))?;
    step.done(format_args!("upstream, {:?}", engine.kind()));
    Ok(Arc::new(engine))
}

/// Tries until the server is there, or until it has had this time to start.
async fn wait(config: UpstreamConfig, patience: Duration) -> Result<UpstreamEngine, Error> {
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        match UpstreamEngine::connect(config.clone()).await {
            Err(error) if error.retryable() && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    let seconds = patience.as_secs();
                    output::say(format_args!("  {error}: waiting for it for up to {seconds} s"));
                }
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare");

    fn server(manifest: &str) -> UpstreamFile {
        let text = format!("manifest = \"{MODELS}/{manifest}\"\nurl = \"http://127.0.0.1:1\"\nmodel = \"m\"");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_server_takes_the_place_of_the_engine_here_and_alone_it_is_all_that_is_sold() {
        let named = [
            format!("{MODELS}/manifest-q8_0.toml"),
            format!("{MODELS}/manifest-q4_0.toml"),
        ]
        .map(PathBuf::from);
        let servers = [server("manifest-q8_0.toml")];
        let upstream = |sold: Vec<(Found, Option<&UpstreamFile>)>| -> Vec<(String, bool)> {
            let told = sold.iter();
            told.map(|(model, server)| (model.manifest.tag.clone(), server.is_some()))
                .collect()
        };
        let both = upstream(sold(&named, &servers).unwrap());
        assert_eq!(both, [("q8_0".to_owned(), true), ("q4_0".to_owned(), false)]);
        assert_eq!(upstream(sold(&[], &servers).unwrap()), [("q8_0".to_owned(), true)]);
        let twice = [server("manifest-q8_0.toml"), server("manifest-q8_0.toml")];
        assert!(sold(&[], &twice).is_err());
    }
}
