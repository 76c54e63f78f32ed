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

#[cfg(test)]
mod tests {
    use rialto_protocol::ticket::Contracts;

    use super::*;
    use crate::{data_dir::DataDir, settings::File};

    fn ticket() -> String {
        let address = |byte| Address([byte; 20]);
        let ticket = Ticket {
            chain_id: 31_337,
            rpc_url: "http://127.0.0.1:8545".into(),
            contracts: Contracts {
                token: address(1),
                escrow: address(2),
                providers: address(3),
                models: address(4),
            },
            meeting: Vec::new(),
        };
        ticket.to_string()
    }

    fn place(ticket: Option<String>, rpc_url: &[&str]) -> Place {
        Place {
            ticket,
            rpc_url: rpc_url.iter().map(|&url| url.to_owned()).collect(),
            ..Place::default()
        }
    }

    #[test]
    fn addresses_are_kept_beside_the_ticket_which_never_holds_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            file: File::default(),
            config: None,
            dir: DataDir::open(folder.path().join("market")).unwrap(),
            json: false,
        };
        let given = ["https://me:secret@a.example/", "http://b.example"];
        let market = Market::find(&settings, &place(Some(ticket()), &given)).unwrap();
        assert_eq!(market.ticket.rpc_url, "https://a.example/");
        market.remember(&settings).unwrap();
        assert!(
            !settings
                .dir
                .read(TICKET)
                .unwrap()
                .unwrap()
                .contains(&hex::encode("secret"))
        );

        let later = Market::find(&settings, &Place::default()).unwrap();
        assert_eq!(later.rpc_urls, given);
        settings.file.rpc_urls = vec!["http://c.example".into()];
        let of_file = Market::find(&settings, &Place::default()).unwrap();
        assert_eq!(of_file.rpc_urls, ["http://c.example"]);
        let of_flag = Market::find(&settings, &place(None, &["http://d.example"])).unwrap();
        assert_eq!(of_flag.rpc_urls, ["http://d.example"]);

        // Another market's chain is not at the addresses that were kept.
        settings.file.rpc_urls.clear();
        let joined = Market::find(&settings, &place(Some(ticket()), &[])).unwrap();
        assert_eq!(joined.rpc_urls, ["http://127.0.0.1:8545"]);
        joined.remember(&settings).unwrap();
        let later = Market::find(&settings, &Place::default()).unwrap();
        assert_eq!(later.rpc_urls, ["http://127.0.0.1:8545"]);
    }
}
