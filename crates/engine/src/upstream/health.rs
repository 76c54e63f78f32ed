//! Whether the server is well: looked at from time to time, and at once when a request found it ill.

use std::{
    sync::{Mutex, PoisonError, Weak},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use super::{Shared, call::Trouble, config::UpstreamConfig};
use crate::Error;

/// Longest list of models.
const MAX_MODELS: usize = 4 << 20;

/// Time in which a healthy server says what it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// First wait for an ill server; it doubles up to the time between two looks at a healthy one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// What is known of the server.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
    nudge: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why it is ill.
    ill: Option<Error>,
    /// Until when it wants to be left alone.
    busy: Option<Instant>,
}

impl Health {
    /// Whether a request can be sent now.
    pub(super) fn ready(&self) -> Result<(), Error> {
        self.with(|state| match (&state.ill, state.busy) {
            (Some(ill), _) => Err(ill.clone()),
            (None, Some(until)) if Instant::now() < until => Err(Error::Busy),
            _ => Ok(()),
        })
    }

    /// Notes what a request met.
    pub(super) fn met(&self, trouble: &Trouble) {
        if let Trouble::Busy(pause) = trouble {
            self.with(|state| state.busy = Some(Instant::now() + *pause));
        }
        if trouble.is_ill() {
            self.set(Some(trouble.clone().into()));
            self.nudge.notify_one();
        }
    }

    fn set(&self, ill: Option<Error>) {
        let change = self.with(|state| {
            let change = state.ill.is_some() != ill.is_some();
            state.ill = ill.clone();
            change
        });
        match ill {
            Some(error) if change => tracing::warn!(%error, "the model's server is ill"),
            None if change => tracing::info!("the model's server is well again"),
            _ => {}
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at the server until its engine is gone.
pub(super) async fn watch(engine: Weak<Shared>) {
    let mut wait = FIRST_WAIT;
    loop {
        let Some(shared) = engine.upgrade() else { return };
        let every = shared.config.probe_every;
        let is_well = shared.health.with(|state| state.ill.is_none());
        let pause = if is_well { every } else { wait.min(every) };
        if is_well {
            let nudged = shared.health.nudge.notified();
            drop(tokio::time::timeout(pause, nudged).await);
        } else {
            drop(shared);
            tokio::time::sleep(pause).await;
        }
        let Some(shared) = engine.upgrade() else { return };
        if shared.health.with(|state| state.ill.is_some()) && is_well {
            // It has only just been found ill: a request needs no second witness at once.
            wait = FIRST_WAIT;
            continue;
        }
        let found = check(&shared).await;
        wait = if found.is_ok() {
            FIRST_WAIT
        } else {
            wait.saturating_mul(2)
        };
        shared.health.set(found.err());
    }
}

async fn check(shared: &Shared) -> Result<(), Error> {
    served(&shared.server, &shared.config).await
}

/// Fails unless the server answers and serves the model.
pub(super) async fn served(server: &super::call::Server, config: &UpstreamConfig) -> Result<(), Error> {
    let list = server.get("/v1/models", MAX_MODELS, PATIENCE).await?;
    let models = list.get("data").and_then(Value::as_array);
    let models = models.ok_or_else(|| Error::Failed("the model's server gives no list of models".into()))?;
    let names: Vec<&str> = models.iter().flat_map(names).collect();
    let latest = format!("{}:latest", config.model);
    if names.iter().any(|name| *name == config.model || *name == latest) {
        return Ok(());
    }
    let some: Vec<&str> = names.into_iter().take(20).collect();
    Err(Error::Model(format!(
        "the server does not serve `{}`; it serves {some:?}",
        config.model
    )))
}

/// A model's names: its id, and others that llama.cpp knows it by.
fn names(model: &Value) -> impl Iterator<Item = &str> {
    let aliases = model.get("aliases").and_then(Value::as_array).into_iter().flatten();
    model.get("id").into_iter().chain(aliases).filter_map(Value::as_str)
}
