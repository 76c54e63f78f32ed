//! Servers of other people, well behaved and not: what is billed is what a client sees, whatever the server says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "upstream/continuation.rs"]
mod continuation;
#[path = "upstream/counts.rs"]
mod counts;
#[path = "upstream/grants.rs"]
mod grants;
#[path = "upstream/health.rs"]
mod health;
#[path = "upstream/real.rs"]
mod real;
#[path = "upstream/server.rs"]
mod server;
#[path = "upstream/strange.rs"]
mod strange;
#[expect(dead_code, reason = "what the tests of other engines need too is used there")]
mod support;

use std::time::Duration;

use rialto_engine::{Error, UpstreamConfig, UpstreamEngine};
use rialto_protocol::{
    job::{Generation, Job, Message, Tools},
    manifest::TaskKind,
};
use server::OddServer;

/// How long anything is waited for that must happen: only a hang takes so long, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A configuration for tests: a server is looked at often, and has all the time that it needs.
fn config(url: &str) -> UpstreamConfig {
    // An error says that another test of this process installed it.
    drop(rustls::crypto::ring::default_provider().install_default());
    UpstreamConfig {
        name: "someone/model:v1".into(),
        task: TaskKind::Chat,
        context: 0,
        url: url.into(),
        model: "m".into(),
        api_key_file: None,
        kind: None,
        slots: None,
        queue: 8,
        first_token: PATIENCE,
        between_tokens: PATIENCE,
        probe_every: Duration::from_millis(200),
    }
}

async fn connect(server: &OddServer) -> Result<UpstreamEngine, Error> {
    UpstreamEngine::connect(config(&server.url())).await
}

fn chat(generation: Generation) -> Job {
    Job::Chat {
        messages: vec![Message::text("user", "To be?")],
        tools: Tools::default(),
        generation,
    }
}
