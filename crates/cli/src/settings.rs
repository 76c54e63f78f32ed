//! Settings in two stages: [`File`] is what was written, [`Settings`] is what it means.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use etcetera::{BaseStrategy, choose_base_strategy};
use rialto_engine::UpstreamKind;
use rialto_gateway::{BatchPolicy, ConnectionLimits, Gas};
use rialto_protocol::Price;
use rialto_settlement::Options;
use serde::{Deserialize, Serialize};

use crate::{
    args::{Arguments, Place},
    data_dir::DataDir,
};

/// Longest configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// `config.toml`, as written. Every key may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    /// Where keys, stores and the development chain are kept.
    pub(crate) data_dir: Option<PathBuf>,
    /// The market's ticket.
    pub(crate) ticket: Option<String>,
    /// The chain's RPC address.
    pub(crate) rpc_url: Option<String>,
    /// More of them, asked in this order when one fails.
    pub(crate) rpc_urls: Vec<String>,
    /// Most that is ever offered for a unit of gas, in gwei.
    pub(crate) max_gas_gwei: Option<u64>,
    /// The relay by which nodes here are reached behind a NAT, and reach others.
    pub(crate) relay: Option<String>,
    /// `rialto chain`.
    pub(crate) chain: ChainFile,
    /// `rialto relay`.
    pub(crate) relaying: RelayFile,
    /// `rialto provide`.
    pub(crate) provider: ProviderFile,
    /// `rialto gateway`.
    pub(crate) gateway: GatewayFile,
}

/// `[chain]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChainFile {
    /// Where it answers JSON-RPC.
    pub(crate) listen: Option<SocketAddr>,
}

/// `[relaying]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RelayFile {
    /// Where it speaks plain HTTP.
    pub(crate) listen: Option<SocketAddr>,
    /// The most that one node may send, in kilobytes a second.
    pub(crate) kilobytes: Option<NonZeroU32>,
}

/// `[provider]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProviderFile {
    /// UDP address of the node.
    pub(crate) node_listen: Option<SocketAddr>,
    /// Manifests of the models to sell.
    pub(crate) models: Vec<PathBuf>,
    /// Nano-dollars for a unit of input.
    pub(crate) price_input: Option<u64>,
    /// Nano-dollars for a unit of output.
    pub(crate) price_output: Option<u64>,
    /// Where it computes.
    pub(crate) region: Option<String>,
    /// Seconds after which an earning is claimed at the latest.
    pub(crate) redeem_after: Option<u64>,
    /// Dollars for one of the chain's own coins, which pays for gas.
    pub(crate) coin_price: Option<String>,
    /// How many times of its gas an earning must be worth to be claimed before its age demands it.
    pub(crate) gas_multiple: Option<u32>,
    /// Blocks on top of a channel's, after which all of its money counts.
    pub(crate) confirmations: Option<u64>,
    /// Dollars that count of a channel before that.
    pub(crate) unconfirmed: Option<String>,
    /// The least, in dollars, that a channel must hold which is opened at this provider's cost.
    pub(crate) relay_minimum: Option<String>,
    /// Most that one such channel may cost in gas, in gwei; zero opens none.
    pub(crate) relay_max_gwei: Option<u64>,
    /// Dollars that one buyer may spend on such a channel before it is in a block; zero waits for the block.
    pub(crate) relay_credit: Option<String>,
    /// The same over all buyers.
    pub(crate) relay_credit_in_all: Option<String>,
    /// Requests worked on at a time by each model.
    pub(crate) slots: Option<u32>,
    /// Threads of computation.
    pub(crate) threads: Option<u32>,
    /// Whether language models compute exactly: reading an answer again gives the same bits.
    pub(crate) exact: bool,
    /// Serve Prometheus metrics here.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Dollars for a kilowatt-hour.
    pub(crate) electricity: Option<String>,
    /// Percent that a suggested price is above cost where nobody else sells.
    pub(crate) margin: Option<u32>,
    /// Dollars that the machine cost, to be earned back.
    pub(crate) hardware: Option<String>,
    /// Years in which it should be.
    pub(crate) hardware_years: Option<u32>,
    /// Ask the suggested price for models whose price is not said.
    pub(crate) suggested_price: bool,
    /// Dollars to stake when the account registers.
    pub(crate) stake: Option<String>,
    /// What is bid for work that can wait.
    pub(crate) bids: BidsFile,
    /// How prices are found.
    pub(crate) pricing: Vec<PricingFile>,
    /// Who may ask for how much at once.
    pub(crate) limits: LimitsFile,
    /// Models that servers run.
    pub(crate) upstream: Vec<UpstreamFile>,
}

/// `[provider.bids]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BidsFile {
    /// Percent below the posted price; zero makes no bids.
    pub(crate) discount: Option<u8>,
    /// Percent of a model's slots that must be free.
    pub(crate) idle: Option<u8>,
    /// The least that is bid for a unit of input, in nano-dollars.
    pub(crate) floor_input: Option<u64>,
    /// The same of output.
    pub(crate) floor_output: Option<u64>,
    /// Seconds for which a bid is valid.
    pub(crate) lifetime: Option<u64>,
}

/// By which rule a price is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PricePolicy {
    /// Always the same.
    #[default]
    Fixed,
    /// What a unit costs here, and a margin.
    #[value(name = "cost_plus")]
    CostPlus,
    /// By the load, between a floor and a ceiling.
    Congestion,
}

/// `[[provider.pricing]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PricingFile {
    /// `publisher/name:tag`; without it, every model that is not named in another of these.
    pub(crate) model: Option<String>,
    /// The rule.
    pub(crate) policy: PricePolicy,
    /// Nano-dollars for a unit of input; with `congestion` the least.
    pub(crate) input: Option<u64>,
    /// Nano-dollars for a unit of output; with `congestion` the least.
    pub(crate) output: Option<u64>,
    /// Nano-dollars for a request; with `congestion` the least.
    pub(crate) request: Option<u64>,
    /// With `congestion`: the most for a unit of input.
    pub(crate) ceiling_input: Option<u64>,
    /// The same of output.
    pub(crate) ceiling_output: Option<u64>,
    /// The same of a request.
    pub(crate) ceiling_request: Option<u64>,
    /// With `congestion`: the load at which the price stays, in percent of the slots.
    pub(crate) target: Option<u32>,
    /// With `congestion`: seconds between two steps.
    pub(crate) step: Option<u64>,
    /// With `cost_plus`: percent above cost.
    pub(crate) margin: Option<u32>,
}

/// `[provider.limits]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsFile {
    /// Requests of each model that may wait.
    pub(crate) queue: Option<usize>,
    /// Most seconds that one waits.
    pub(crate) queue_wait: Option<u64>,
    /// Trades at a time, in all.
    pub(crate) trades: Option<usize>,
    /// Streams without a first frame, in all.
    pub(crate) half_open: Option<usize>,
    /// The same of one node.
    pub(crate) half_open_per_peer: Option<usize>,
    /// Requests of one payer at a time.
    pub(crate) payer_at_once: Option<usize>,
    /// Requests of one payer a minute.
    pub(crate) payer_requests_a_minute: Option<u64>,
    /// Units of one payer a minute, input and output together.
    pub(crate) payer_units_a_minute: Option<u64>,
    /// Requests of one node at a time.
    pub(crate) peer_at_once: Option<usize>,
    /// Requests of one node a minute.
    pub(crate) peer_requests_a_minute: Option<u64>,
    /// Units of one node a minute.
    pub(crate) peer_units_a_minute: Option<u64>,
}

/// `[[provider.upstream]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamFile {
    /// The manifest that the model is listed by.
    pub(crate) manifest: PathBuf,
    /// Where the server is.
    pub(crate) url: String,
    /// What the server calls the model.
    pub(crate) model: String,
    /// A file that only its owner can read, with the server's key.
    pub(crate) api_key_file: Option<PathBuf>,
    /// Which program it is.
    pub(crate) kind: Option<UpstreamKind>,
    /// Requests that it is given at a time.
    pub(crate) slots: Option<u32>,
    /// Most seconds that it may take to be there when the provider starts.
    pub(crate) startup: Option<u64>,
    /// Most seconds to the first token.
    pub(crate) first_token: Option<u64>,
    /// Most seconds from one token to the next.
    pub(crate) between_tokens: Option<u64>,
}

/// `[gateway]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GatewayFile {
    /// UDP address of the node.
    pub(crate) node_listen: Option<SocketAddr>,
    /// Where it answers.
    pub(crate) listen: Option<SocketAddr>,
    /// Dollars that a new channel is opened with.
    pub(crate) channel_deposit: Option<String>,
    /// Who pays the gas of opening and closing channels.
    pub(crate) gas: Gas,
    /// Neighbours that it looks for, to tell each other of offers.
    pub(crate) neighbours: Option<usize>,
    /// Sellers of each model in use with which a channel is kept open.
    pub(crate) standby_channels: Option<usize>,
    /// Limits of HTTP connections.
    pub(crate) connections: ConnectionLimits,
    /// Limits of files and batches.
    pub(crate) batches: BatchPolicy,
    /// Names of this gateway's own for models.
    pub(crate) aliases: BTreeMap<String, String>,
    /// What models cost elsewhere.
    pub(crate) list_prices: BTreeMap<String, Price>,
    /// The owner's own servers.
    pub(crate) own: Vec<OwnFile>,
}

/// `[[gateway.own]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnFile {
    /// Where the server is, with or without `/v1`.
    pub(crate) url: String,
    /// A file that only its owner can read, with the server's key in it.
    pub(crate) api_key_file: Option<PathBuf>,
    /// Names that clients ask for, each with what the server calls it.
    #[serde(default)]
    pub(crate) models: BTreeMap<String, String>,
    /// Requests that it is given at the same time.
    pub(crate) slots: Option<usize>,
    /// Whether the market serves what it has no room for.
    #[serde(default)]
    pub(crate) overflow: bool,
}

impl File {
    /// All RPC addresses of the chain, in the order in which they are asked.
    pub(crate) fn rpc_urls(&self) -> Vec<String> {
        self.rpc_url.iter().chain(&self.rpc_urls).cloned().collect()
    }

    /// How to deal with the chain, whose id is known if the market is.
    pub(crate) fn chain_options(&self, chain_id: Option<u64>) -> Options {
        let options = Options::default();
        let limit = self.max_gas_gwei.map(|gwei| u128::from(gwei) * 1_000_000_000);
        Options {
            chain_id,
            max_fee_per_gas: limit.unwrap_or(options.max_fee_per_gas),
            ..options
        }
    }
}

/// What the settings mean for every command.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What was written.
    pub(crate) file: File,
    /// Where it was written, if that was said.
    pub(crate) config: Option<PathBuf>,
    /// The data directory.
    pub(crate) dir: DataDir,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

impl Settings {
    /// Reads the file and opens the data directory.
    pub(crate) fn load(arguments: &Arguments) -> Result<Self> {
        let strategy = choose_base_strategy().context("this user has no home folder: set --data-dir and --config")?;
        let file = match &arguments.config {
            Some(path) => read(path)?,
            None => {
                let path = strategy.config_dir().join("rialto/config.toml");
                if path.exists() { read(&path)? } else { File::default() }
            }
        };
        let root = arguments.data_dir.clone().or_else(|| file.data_dir.clone());
        let root = root.unwrap_or_else(|| strategy.data_dir().join("rialto"));
        let root = std::path::absolute(&root).context("the data directory's path")?;
        Ok(Self {
            file,
            config: arguments.config.clone().map(std::path::absolute).transpose()?,
            dir: DataDir::open(root)?,
            json: arguments.json,
        })
    }
}

/// The relay that a node uses, and where it listens when nothing else is said: on this machine alone unless it has a
/// relay, which is for peers elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The relay's URL.
    pub(crate) relay: Option<String>,
    /// The UDP address.
    pub(crate) default_listen: SocketAddr,
}

impl Settings {
    /// How a node is to be reached.
    pub(crate) fn reach(&self, place: &Place) -> Reach {
        let relay = place.relay.clone().or_else(|| self.file.relay.clone());
        let ip = relay.as_ref().map_or(Ipv4Addr::LOCALHOST, |_| Ipv4Addr::UNSPECIFIED);
        Reach {
            relay,
            default_listen: SocketAddr::from((ip, 0)),
        }
    }
}

fn read(path: &Path) -> Result<File> {
    let name = || format!("the configuration file {}", path.display());
    let length = std::fs::metadata(path).with_context(name)?.len();
    anyhow::ensure!(length <= MAX_FILE_BYTES, "{} is too long", name());
    let text = std::fs::read_to_string(path).with_context(name)?;
    toml::from_str(&text).with_context(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");

    #[test]
    fn the_example_files_are_read() {
        let minimal = read(&Path::new(CONFIG).join("minimal.toml")).unwrap();
        assert_eq!(minimal, File::default());
        let full = read(&Path::new(CONFIG).join("full.toml")).unwrap();
        assert!(full.gateway.listen.is_some() && full.provider.stake.is_some() && full.chain.listen.is_some());
        assert_eq!(
            (full.provider.bids.discount, full.gateway.batches.bidders),
            (Some(50), 16)
        );
        assert_eq!((full.rpc_urls().len(), full.provider.upstream.len()), (2, 1));
        assert_eq!(full.provider.pricing.len(), 2);
        assert!(full.provider.limits.queue.is_some());
        assert!(
            full.gateway
                .own
                .iter()
                .any(|server| server.overflow && !server.models.is_empty())
        );
    }

    #[test]
    fn the_file_of_the_services_says_nothing_until_a_line_is_uncommented() {
        let path = Path::new(CONFIG).join("service.toml");
        assert_eq!(read(&path).unwrap(), File::default());
        let text = std::fs::read_to_string(&path).unwrap();
        // What is meant to be uncommented begins with the key; prose begins with a space.
        let text: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let file: File = toml::from_str(&text).unwrap();
        assert!(file.ticket.is_some() && file.gateway.listen.is_some() && file.relaying.listen.is_some());
        assert_eq!((file.rpc_urls().len(), file.provider.models.len()), (1, 1));
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused() {
        assert!(toml::from_str::<File>("surprise = 1").is_err());
        assert!(toml::from_str::<File>("[gateway]\nlisten = \"nowhere\"").is_err());
    }
}
