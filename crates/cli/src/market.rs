//! Which market this data directory belongs to.

use anyhow::{Context, Result, bail};
use rialto_protocol::{Address, Domain, ticket::Ticket};
use rialto_settlement::{Chain, Deployment};
use serde::{Deserialize, Serialize};

use crate::{args::Place, settings::Settings};

/// The file that a market's founder keeps.
const RECORD: &str = "market.json";

/// The file in which a machine that joined keeps the ticket.
const TICKET: &str = "ticket";

/// What the founder of a market keeps of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The chain's id.
    pub(crate) chain_id: u64,
    /// Where the chain answered.
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
}

impl Market {
    /// The market that flags, file or data directory name.
    pub(crate) fn find(settings: &Settings, place: &Place) -> Result<Self> {
        let given = place.ticket.clone().or_else(|| settings.file.ticket.clone());
        let text = match given {
            Some(text) => text,
            None => match settings.dir.read(TICKET)? {
                Some(text) => text,
                None => bail!(
                    "this data directory belongs to no market yet: start one with `rialto up`, or join one with --ticket \
                     (on the other machine: `rialto ticket`)"
                ),
            },
        };
        let mut ticket: Ticket = text.parse()?;
        if let Some(url) = place.rpc_url.clone().or_else(|| settings.file.rpc_url.clone()) {
            ticket.rpc_url = url;
        }
        let chain = Chain::connect(&ticket.rpc_url, ticket.contracts)?;
        Ok(Self { ticket, chain })
    }

    /// Keeps the ticket, so that the next start needs none.
    pub(crate) fn remember(&self, settings: &Settings) -> Result<()> {
        settings.dir.write(TICKET, &self.ticket.to_string())
    }

    /// The domain of all signatures.
    pub(crate) fn domain(&self) -> Domain {
        self.ticket.domain()
    }
}
