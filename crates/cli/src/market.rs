//! Which market this data directory belongs to.

use anyhow::{Context, Result, bail};
use rialto_protocol::{Address, Domain, ticket::Ticket};
use rialto_settlement::{Chain, Deployment, Endpoints};
use serde::{Deserialize, Serialize};

use crate::{args::Place, settings::Settings};

/// The file that a market's founder keeps.
const RECORD: &str = "market.json";

/// The file in which a machine that joined keeps the ticket.
const TICKET: &str = "ticket";

/// The file beside it with the chain's RPC addresses, one a line, when they are not the ticket's. They may hold passwords,
/// which a ticket must not.
const RPC_URLS: &str = "rpc-urls";

/// What the founder of a market keeps of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The chain's id.
    pub(crate) chain_id: u64,
    /// Where the chain answered, without a password.
    pub(crate) rpc_url: String,
    /// Its contracts.
    pub(crate) contracts: rialto_protocol::ticket::Contracts,
    /// Where to read events from.
    pub(crate) block: u64,
    /// Who published the models that came with it.
    pub(crate) publisher: Address,
}

impl Record {
    /// The record of this data directory, if it founded a market.
    pub(crate) fn load(settings: &Settings) -> Result<Option<Self>> {
        let Some(text) = settings.dir.read(RECORD)? else {
            return Ok(None);
        };
        let record = serde_json::from_str(&text);
        record
            .map(Some)
            .with_context(|| format!("{} is damaged", settings.dir.path(RECORD).display()))
    }

    /// Keeps it.
    pub(crate) fn save(&self, settings: &Settings) -> Result<()> {
        settings.dir.write(RECORD, &serde_json::to_string_pretty(self)?)
    }

    /// The same as settlement counts it.
    pub(crate) fn deployment(&self) -> Deployment {
        Deployment {
            contracts: self.contracts,
            chain_id: self.chain_id,
            block: self.block,
            created: false,
        }
    }
}

/// A market, and the chain on which it settles.
#[derive(Clone)]
pub(crate) struct Market {
    /// How to join it.
    pub(crate) ticket: Ticket,
    /// Its chain.
    pub(crate) chain: Chain,
    /// Where the chain answers, passwords included.
    rpc_urls: Vec<String>,
}

impl Market {
    /// The market that flags, file or data directory name.
    pub(crate) fn find(settings: &Settings, place: &Place) -> Result<Self> {
        let given = place.ticket.clone().or_else(|| settings.file.ticket.clone());
        let mut places = vec![place.rpc_url.clone(), settings.file.rpc_urls()];
        let text = match given {
            Some(text) => text,
            None => match settings.dir.read(TICKET)? {
                Some(text) => {
                    let kept = settings.dir.read(RPC_URLS)?.unwrap_or_default();
                    places.push(kept.lines().map(str::to_owned).collect());
                    text
                }
                None => bail!(
                    "this data directory belongs to no market yet: start one with `rialto up`, or join one with --ticket \
                     (on the other machine: `rialto ticket`)"
                ),
            },
        };
        let mut ticket: Ticket = text.parse()?;
        let rpc_urls = places.into_iter().find(|urls| !urls.is_empty());
        let rpc_urls = rpc_urls.unwrap_or_else(|| vec![ticket.rpc_url.clone()]);
        if let Some(first) = rpc_urls.first() {
            ticket.rpc_url = Endpoints::without_password(first);
        }
        let options = settings.file.chain_options(Some(ticket.chain_id));
        let chain = Chain::connect_with(&rpc_urls, ticket.contracts, options)?;
        Ok(Self {
            ticket,
            chain,
            rpc_urls,
        })
    }

    /// Keeps the ticket and the chain's addresses, so that the next start needs none.
    pub(crate) fn remember(&self, settings: &Settings) -> Result<()> {
        let differ = self.rpc_urls.iter().ne([&self.ticket.rpc_url]);
        if differ || settings.dir.read(RPC_URLS)?.is_some() {
            let kept = if differ {
                self.rpc_urls.join("\n")
            } else {
                String::new()
            };
            settings.dir.write(RPC_URLS, &kept)?;
        }
        settings.dir.write(TICKET, &self.ticket.to_string())
    }

    /// The domain of all signatures.
    pub(crate) fn domain(&self) -> Domain {
        self.ticket.domain()
    }
}
