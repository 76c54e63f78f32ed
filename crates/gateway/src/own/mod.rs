//! The owner's own servers: what runs here, or on another machine of the owner's, is asked without a market. Nobody is paid,
//! and the request goes nowhere else, unless the owner lets the market serve what the servers have no room for.
//!
//! A request for a model of theirs is passed on as it came, and so is its answer ([`body`] changes what has to be changed);
//! [`meter`] reads on the way what it used. Of two servers drawn at random the one with the fewer requests is asked
//! ([`pick`]); one that fails is left alone for a while, and before anything of an answer came the next is asked.

mod body;
mod client;
mod health;
mod meter;
mod pick;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

pub(crate) use body::{Request, Wanted};
pub(crate) use health::watch;
pub(crate) use meter::{Meter, Units, whole};
pub(crate) use server::Answer;
use server::{Server, Trouble};

use crate::Error;

/// A server of the owner's that speaks OpenAI's protocol.
#[derive(Debug, Clone)]
pub struct OwnServer {
    /// Where it is, without `/v1` and without a slash at the end: `http://127.0.0.1:8000`.
    pub root: String,
    /// The header that carries its key, marked as sensitive.
    pub key: Option<axum::http::HeaderValue>,
    /// Names that clients ask for, each with what the server calls it. Without any, all that the server lists, under its
    /// own names.
    pub models: BTreeMap<String, String>,
    /// Requests that it is given at the same time.
    pub slots: usize,
    /// Whether the market serves what it has no room for, if a model of the same name is on sale.
    pub overflow: bool,
}

/// In thousandths.
const HALF: usize = 500;

/// Where a name leads: a server, with what it calls the model.
type Place = (Arc<Server>, Arc<str>);
type Places = Vec<Place>;

/// All servers, and who serves what.
#[derive(Debug, Default)]
pub(crate) struct Own {
    servers: Vec<Arc<Server>>,
    places: RwLock<Arc<BTreeMap<String, Places>>>,
    aliases: BTreeMap<String, String>,
}

/// What came of asking.
pub(crate) enum Outcome {
    /// A server's answer, of which only the head has arrived.
    Answered(Answer),
    /// None has room, or none answers, and the market may be asked.
    Overflow,
}

impl Own {
    pub(crate) fn new(servers: Vec<OwnServer>, aliases: BTreeMap<String, String>) -> Result<Self, Error> {
        let servers: Result<Vec<_>, Error> = servers.into_iter().map(|one| Server::new(one).map(Arc::new)).collect();
        let own = Self {
            servers: servers?,
            places: RwLock::default(),
            aliases,
        };
        own.sort();
        Ok(own)
    }

    /// Whether there is no server at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Names that lead somewhere, and how many servers there are for each.
    pub(crate) fn names(&self) -> Vec<(String, usize)> {
        let places = self.places();
        places
            .iter()
            .map(|(name, places)| (name.clone(), places.len()))
            .collect()
    }

    /// Whether the market serves what there is no room for; `None` if no server has a model of this name, or of what it is
    /// an alias of.
    pub(crate) fn overflows(&self, name: &str) -> Option<bool> {
        let all = self.places();
        let places = self.find(&all, name)?;
        Some(places.iter().any(|(server, _)| server.overflow))
    }

    /// Whether a server with a model of this name has half of its slots free.
    pub(crate) fn is_at_ease(&self, name: &str) -> bool {
        let all = self.places();
        let places = self.find(&all, name).map_or(&[][..], Vec::as_slice);
        places
            .iter()
            .any(|(server, _)| server.is_well() && server.share_free() >= HALF)
    }

    /// Asks a server for the answer to a request, or another one while nothing of an answer came.
    pub(crate) async fn ask(
        &self,
        request: &Request<'_>,
        patience: Duration,
        overflows: bool,
    ) -> Result<Outcome, Error> {
        let all = self.places();
        let places = self.find(&all, &request.wanted.model).map_or(&[][..], Vec::as_slice);
        let mut failed = None;
        let mut tried = BTreeSet::new();
        while let Some(at) = pick::one(places, &tried, overflows) {
            tried.insert(at);
            let Some((server, name)) = places.get(at) else { break };
            let Some(slot) = server.slot() else { continue };
            let body = request.body_for(name)?;
            match server.ask(request.path, body, slot, patience).await {
                Ok(answer) => return Ok(Outcome::Answered(answer)),
                Err(Trouble::Busy) => {}
                Err(Trouble::Failed(reason)) => failed = Some(reason),
            }
        }
        match failed {
            _ if overflows => Ok(Outcome::Overflow),
            Some(reason) => Err(Error::OwnServerFailed { reason }),
            None => Err(Error::OwnServersBusy {
                retry_ms: pick::wait(places),
            }),
        }
    }

    fn places(&self) -> Arc<BTreeMap<String, Places>> {
        Arc::clone(&self.places.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn find<'a>(&self, places: &'a BTreeMap<String, Places>, name: &str) -> Option<&'a Places> {
        let behind = || places.get(self.aliases.get(name)?);
        places.get(name).or_else(behind)
    }

    /// Notes anew who serves what.
    fn sort(&self) {
        let mut places: BTreeMap<String, Places> = BTreeMap::new();
        for server in &self.servers {
            for (asked, there) in server.models() {
                let place = (Arc::clone(server), Arc::from(there));
                places.entry(asked).or_default().push(place);
            }
        }
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(places);
    }
}
