//! One server: its room, its health, and calls of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, Uri, header, uri::Parts};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    OwnServer,
    client::{self, Client, Lost, Received},
};
use crate::Error;

/// Paths of requests that go to servers.
const PATHS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// Time for a list of models.
const LISTING: Duration = Duration::from_secs(5);
/// Longest list of models, and most models of it.
const MAX_LIST: usize = 1 << 20;
const MAX_MODELS: usize = 1_024;
/// How long a server is left alone after it failed; twice as long after each further time, up to the longest.
const REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Why a server gives no answer.
pub(super) enum Trouble {
    /// It has too much to do.
    Busy,
    /// It cannot be reached, breaks off or fails.
    Failed(String),
}

/// A server of the owner's.
#[derive(Debug)]
pub(super) struct Server {
    /// Whether the market serves what it has no room for.
    pub(super) overflow: bool,
    /// By what it is called in the log.
    root: String,
    /// Where its models are listed.
    list: Uri,
    /// Where requests go, by the path at which they came.
    places: BTreeMap<&'static str, Uri>,
    http: Client,
    chosen: BTreeMap<String, String>,
    listed: Mutex<BTreeSet<String>>,
    slots: Arc<Semaphore>,
    size: usize,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    /// Whether nobody was there.
    away: bool,
    /// Until when it is left alone.
    rests: Option<Instant>,
    /// Whether it said itself that it has too much to do.
    busy: bool,
}

/// An answer of which the head has arrived. Its slot is taken until it is dropped.
pub(crate) struct Answer {
    received: Received,
    _slot: OwnedSemaphorePermit,
}

impl Answer {
    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.received.response.status().as_u16()
    }

    /// Its headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.received.response.headers()
    }

    /// The next piece of its body; `None` at its end. May be given up and begun again.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        client::piece(self.received.response.body_mut()).await
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

impl Server {
    pub(super) fn new(server: OwnServer) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadOwnServer {
            root: server.root.clone(),
            reason,
        };
        let whole = |path: &str| -> Result<Uri, Error> {
            let place = format!("{}{path}", server.root).parse();
            place.map_err(|_| bad("it is not an address".into()))
        };
        let at = |path: &str| -> Result<Uri, Error> {
            let mut parts = Parts::default();
            parts.path_and_query = whole(path)?.into_parts().path_and_query;
            Uri::from_parts(parts).map_err(|error| bad(error.to_string()))
        };
        let list = at("/v1/models")?;
        let places: Result<_, Error> = PATHS.into_iter().map(|path| Ok((path, at(path)?))).collect();
        let http = Client::new(&whole("")?, server.key).map_err(bad)?;
        let size = server.slots.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            overflow: server.overflow,
            http,
            places: places?,
            root: server.root,
            list,
            chosen: server.models,
            listed: Mutex::default(),
            slots: Arc::new(Semaphore::new(size)),
            size,
            health: Mutex::default(),
        })
    }

    /// Names that clients ask for, each with what the server calls it.
    pub(super) fn models(&self) -> Vec<(String, String)> {
        if self.chosen.is_empty() {
            let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            return listed.iter().map(|name| (name.clone(), name.clone())).collect();
        }
        self.chosen
            .iter()
            .map(|(asked, there)| (asked.clone(), there.clone()))
            .collect()
    }

    /// Slots that are free.
    pub(super) fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// The same in thousandths of all of them.
    pub(super) fn share_free(&self) -> usize {
        self.free().saturating_mul(1_000) / self.size
    }

    /// A place among its requests.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Whether it may be asked now.
    pub(super) fn is_well(&self) -> bool {
        self.rests_for().is_zero()
    }

    /// Whether it said itself that it must be left alone.
    pub(super) fn is_busy(&self) -> bool {
        let health = self.health();
        health.busy && health.rests.is_some_and(|until| until > Instant::now())
    }

    /// For how long it is left alone.
    pub(super) fn rests_for(&self) -> Duration {
        let rests = self.health().rests;
        rests.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Sends a request; returns once the head of its answer is there. What the server refuses is its answer too: it knows
    /// best what is wrong with a request.
    pub(super) async fn ask(
        &self,
        path: &str,
        body: Bytes,
        slot: OwnedSemaphorePermit,
        patience: Duration,
    ) -> Result<Answer, Trouble> {
        let sent = timeout(patience, self.send(path, body)).await;
        let received = sent.unwrap_or_else(|_| Err(("it does not answer in time".to_owned(), false)));
        let received = received.map_err(|(reason, away)| self.failed(reason, away))?;
        let response = &received.response;
        let status = response.status();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let mut health = self.health();
            health.rests = Some(Instant::now() + pause(response.headers()));
            health.busy = true;
            return Err(Trouble::Busy);
        }
        if status.is_server_error() || status == StatusCode::UNAUTHORIZED {
            return Err(self.failed(format!("it answers with status {}", status.as_u16()), false));
        }
        self.recovered();
        Ok(Answer { received, _slot: slot })
    }

    /// Sends a request. The error tells whether nobody was there.
    async fn send(&self, path: &str, body: Bytes) -> Result<Received, (String, bool)> {
        let place = self
            .places
            .get(path)
            .ok_or_else(|| ("it has no such path".to_owned(), false))?;
        self.http.post(place, body).await.map_err(|lost| match lost {
            Lost::Unreachable => ("it cannot be reached".to_owned(), true),
            Lost::Broken => ("it broke off".to_owned(), false),
        })
    }

    /// Asks which models it has; false if it does not answer.
    pub(super) async fn look(&self) -> bool {
        match timeout(LISTING, self.list()).await {
            Ok(Ok(names)) => {
                *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = names;
                // One that is busy or fails is not well because it can list its models.
                if self.health().away {
                    self.recovered();
                }
                true
            }
            Ok(Err(reason)) => {
                self.failed(reason, true);
                false
            }
            Err(_) => {
                self.failed("it does not answer in time".to_owned(), true);
                false
            }
        }
    }

    async fn list(&self) -> Result<BTreeSet<String>, String> {
        let received = self.http.get(&self.list).await;
        let mut received = received.map_err(|_| "it cannot be reached".to_owned())?;
        let response = &mut received.response;
        if !response.status().is_success() {
            // Where names were chosen, nobody needs the list.
            if !self.chosen.is_empty() {
                return Ok(BTreeSet::new());
            }
            return Err(format!("it answers with status {}", response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        let broken = |_| "it broke off".to_owned();
        while let Some(piece) = client::piece(response.body_mut()).await.map_err(broken)? {
            if bytes.len() + piece.len() > MAX_LIST {
                return Err("its list of models is too long".into());
            }
            bytes.extend_from_slice(&piece);
        }
        let list: List =
            serde_json::from_slice(&bytes).map_err(|_| "its list of models is not understood".to_owned())?;
        Ok(list.data.into_iter().take(MAX_MODELS).map(|model| model.id).collect())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, reason: String, away: bool) -> Trouble {
        let mut health = self.health();
        let rest = REST.saturating_mul(1 << health.failures.min(6)).min(LONGEST_REST);
        if health.failures == 0 {
            tracing::warn!(server = %self.root, reason, "a server of the owner's fails");
        }
        health.away = away;
        health.failures = health.failures.saturating_add(1);
        health.rests = Some(Instant::now() + rest);
        health.busy = false;
        Trouble::Failed(reason)
    }

    fn recovered(&self) {
        let mut health = self.health();
        if health.failures > 0 {
            tracing::info!(server = %self.root, "a server of the owner's answers again");
        }
        *health = Health::default();
    }
}

/// What `Retry-After` says, or a second.
fn pause(headers: &HeaderMap) -> Duration {
    let said = headers.get(header::RETRY_AFTER);
    let seconds = said.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_REST)
}
