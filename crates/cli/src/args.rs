//! What can be written on the command line. A flag wins over its environment variable, which wins over the file.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use rialto_protocol::Address;

use crate::settings::PricePolicy;

/// A marketplace for AI inference: buy it, sell it, publish models, settle on chain.
#[derive(Debug, Parser)]
#[command(name = "rialto", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Configuration file; by default `rialto/config.toml` in the user's configuration folder.
    #[arg(long, global = true, env = "RIALTO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where keys, stores and the development chain are kept.
    #[arg(long, global = true, env = "RIALTO_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON instead of text: one object, or one object a line for what goes on.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on standard error; twice for everything. `RUST_LOG` says it in detail.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Write the log as JSON lines.
    #[arg(long, global = true, env = "RIALTO_LOG_JSON")]
    pub(crate) log_json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole market on this machine, make a first trade, and serve.
    Up(Up),
    /// Sell inference: load models, announce offers, work, claim.
    Provide(Provide),
    /// Buy inference: an OpenAI-compatible server that finds, pays and checks sellers.
    Gateway(Gateway),
    /// Run a relay: it passes on, without being able to read it, what nodes behind NATs send each other.
    Relay(Relay),
    /// Run the embedded development chain alone, or put a market's contracts on a chain.
    Chain(Chain),
    /// Ask a model something through the gateway.
    Chat(Chat),
    /// Show who sells what: prices, measured speed, uptime and load, as the gateway knows them.
    Market(MarketView),
    /// List, check and publish models.
    #[command(subcommand)]
    Model(Model),
    /// Show the accounts of this machine and what they hold, take money out, and send what others signed.
    Wallet(Wallet),
    /// Show and move a provider's stake, and prove another's fraud.
    #[command(subcommand)]
    Stake(Stake),
    /// Show and close payment channels.
    #[command(subcommand)]
    Channel(Channel),
    /// Show what was bought and sold: the signed receipts and their redemptions.
    Receipts(Receipts),
    /// Create, list and revoke the gateway's API keys.
    #[command(subcommand)]
    Key(Key),
    /// Show the ticket by which another machine joins this market.
    Ticket,
    /// Suggest prices: what a unit costs here, and what others ask for it.
    Price(Price),
    /// Show what this machine is, and what its work draws.
    Machine,
    /// Check this machine and this data directory, and say how to mend what is wrong.
    Doctor,
    /// Delete everything in the data directory: keys, chain, receipts.
    Reset(Reset),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command.
    Man {
        /// A folder to write them to.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// `rialto wallet`.
#[derive(Debug, Args)]
pub(crate) struct Wallet {
    /// What to do; nothing shows the accounts.
    #[command(subcommand)]
    pub(crate) action: Option<WalletAction>,
}

/// What to do with the accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum WalletAction {
    /// Take money out of the buyer's free balance in the escrow into its account.
    Withdraw {
        /// Dollars, such as 2.5, or `all`.
        dollars: String,
        /// Send nothing: print a signed order that any account can send with `rialto wallet relay`.
        #[arg(long)]
        sign: bool,
    },
    /// Take out the royalties that redemptions have credited to an account.
    Claim {
        /// Which of this machine's accounts: publisher, provider or buyer.
        #[arg(long, default_value = "publisher", value_name = "ROLE")]
        role: String,
        /// Send the fee recipient the protocol's fees instead; the account only pays the gas.
        #[arg(long)]
        fees: bool,
    },
    /// Send an order that somebody signed, and pay its gas.
    Relay {
        /// A file with the order as JSON; `-` is the standard input.
        #[arg(default_value = "-")]
        order: PathBuf,
        /// Which of this machine's accounts pays: buyer, provider or publisher.
        #[arg(long, default_value = "buyer", value_name = "ROLE")]
        role: String,
    },
}

/// Where the market is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// The market's ticket, as `rialto ticket` prints it.
    #[arg(long, env = "RIALTO_TICKET", value_name = "TICKET")]
    pub(crate) ticket: Option<String>,
    /// An RPC address of the chain; by default the ticket's. May be given several times, or with commas: the next one is
    /// asked when one fails.
    #[arg(
        long,
        env = "RIALTO_RPC_URL",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) rpc_url: Vec<String>,
    /// UDP address of the node; port 0 for any.
    #[arg(long, env = "RIALTO_NODE_LISTEN", value_name = "ADDRESS")]
    pub(crate) node_listen: Option<SocketAddr>,
    /// The relay at which this node is reached behind a NAT, and reaches others. No other is ever contacted.
    #[arg(long, env = "RIALTO_RELAY", value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// End when standard input ends: for supervisors.
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// `rialto up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Stop after the first settled trade.
    #[arg(long)]
    pub(crate) once: bool,
    /// Use the chain at this RPC address instead of the embedded one. May be given several times, or with commas.
    #[arg(
        long,
        env = "RIALTO_RPC_URL",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) rpc_url: Vec<String>,
    /// Where the gateway answers.
    #[arg(long, env = "RIALTO_GATEWAY_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the embedded chain answers.
    #[arg(long, env = "RIALTO_CHAIN_LISTEN", value_name = "ADDRESS")]
    pub(crate) chain_listen: Option<SocketAddr>,
    /// The relay at which the market's nodes are reached behind a NAT, as its ticket says.
    #[arg(long, env = "RIALTO_RELAY", value_name = "URL")]
    pub(crate) relay: Option<String>,
}

/// `rialto relay`.
#[derive(Debug, Args)]
pub(crate) struct Relay {
    /// The TCP address of its plain HTTP; port 0 for any. On a public machine, set a proxy with TLS before it.
    #[arg(long, env = "RIALTO_RELAY_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The most that one node may send, in kilobytes a second.
    #[arg(long, env = "RIALTO_RELAY_KILOBYTES", value_name = "NUMBER")]
    pub(crate) kilobytes: Option<NonZeroU32>,
}

/// `rialto provide`.
#[derive(Debug, Args)]
pub(crate) struct Provide {
    /// Where the market is.
    #[command(flatten)]
    pub(crate) place: Place,
    /// A model to sell: its manifest.toml. May be given several times; by default the models that come with Rialto.
    #[arg(long = "model", value_name = "MANIFEST")]
    pub(crate) models: Vec<PathBuf>,
    /// The account that published the models; by default looked up in the market.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) publisher: Option<String>,
    /// Nano-dollars for a unit of input.
    #[arg(long, env = "RIALTO_PRICE_INPUT", value_name = "NANO")]
    pub(crate) price_input: Option<u64>,
    /// Nano-dollars for a unit of output.
    #[arg(long, env = "RIALTO_PRICE_OUTPUT", value_name = "NANO")]
    pub(crate) price_output: Option<u64>,
    /// How prices are found.
    #[arg(long, env = "RIALTO_PRICE_POLICY", value_name = "POLICY")]
    pub(crate) price_policy: Option<PricePolicy>,
    /// Ask what `rialto price` suggests, for models whose price is not said.
    #[arg(long, env = "RIALTO_SUGGESTED_PRICE")]
    pub(crate) suggested_price: bool,
    /// Do not measure new models before selling them. Supervised starts never do.
    #[arg(long, env = "RIALTO_NO_BENCH")]
    pub(crate) no_bench: bool,
    /// Where it computes, at most eight characters, such as `eu-west`.
    #[arg(long, env = "RIALTO_REGION")]
    pub(crate) region: Option<String>,
    /// Seconds after which an earning is claimed at the latest.
    #[arg(long, env = "RIALTO_REDEEM_AFTER", value_name = "SECONDS")]
    pub(crate) redeem_after: Option<u64>,
    /// Requests worked on at a time by each model.
    #[arg(long, env = "RIALTO_SLOTS")]
    pub(crate) slots: Option<u32>,
    /// Threads of computation; by default all cores.
    #[arg(long, env = "RIALTO_THREADS")]
    pub(crate) threads: Option<u32>,
    /// Serve Prometheus metrics here.
    #[arg(long, env = "RIALTO_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Sell from here although the account is registered with another node whose records are not here. Only when that
    /// node never sells again: two receipts with one number cost the whole stake.
    #[arg(long)]
    pub(crate) move_here: bool,
}

/// `rialto gateway`.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// Where the market is.
    #[command(flatten)]
    pub(crate) place: Place,
    /// Where it answers.
    #[arg(long, env = "RIALTO_GATEWAY_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Dollars that a new channel is opened with.
    #[arg(long, env = "RIALTO_CHANNEL_DEPOSIT", value_name = "DOLLARS")]
    pub(crate) channel_deposit: Option<String>,
}

/// `rialto chain`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Chain {
    /// What to do instead of running a chain.
    #[command(subcommand)]
    pub(crate) action: Option<ChainAction>,
    /// Where it answers JSON-RPC.
    #[arg(long, env = "RIALTO_CHAIN_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The chain's id.
    #[arg(long, default_value_t = rialto_devchain::DEFAULT_CHAIN_ID)]
    pub(crate) chain_id: u64,
    /// End when standard input ends: for supervisors.
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// `rialto chain …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ChainAction {
    /// Put a market's contracts on a chain, check them, and write down where they are.
    Deploy(Deploy),
}

/// `rialto chain deploy`. What is said here is decided for ever: no account can change it afterwards.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// An RPC address of the chain; several as elsewhere.
    #[arg(
        long,
        env = "RIALTO_RPC_URL",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true,
        required = true
    )]
    pub(crate) rpc_url: Vec<String>,
    /// The stablecoin that the market is in.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) token: Option<Address>,
    /// Accept a stablecoin that anybody can mint; without --token one is created. Never where money is real.
    #[arg(long)]
    pub(crate) test_dollar: bool,
    /// Who is credited the protocol's fee; needed if there is one.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) fee_recipient: Option<Address>,
    /// The protocol's fee in basis points, at most 1000.
    #[arg(long, default_value_t = 0)]
    pub(crate) fee_bps: u16,
    /// Seconds between a buyer's request to close a channel and the close: 900 to 2592000.
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    pub(crate) challenge_period: u64,
    /// Seconds that a dispute may take, at most 2592000; stake leaves only after it.
    #[arg(long, default_value_t = 259_200, value_name = "SECONDS")]
    pub(crate) dispute_window: u64,
    /// Who may freeze providers, and take a tenth of their stake for an offence; by default nobody, ever.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) disputes: Option<Address>,
    /// Who is credited what is taken from providers; must not be under a provider's control.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) slash_recipient: Address,
    /// Who may stop deposits and opens for a week; by default nobody, ever.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) guardian: Option<Address>,
    /// Where to write the addresses; by default `deployments/CHAIN_ID.json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Do it. Without this only what would be done, and what it would cost at most, is shown.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `rialto stake`.
#[derive(Debug, Subcommand)]
pub(crate) enum Stake {
    /// The stake of this machine's provider, and what its accounts were credited of others'.
    Show,
    /// Add to the stake.
    Add {
        /// Dollars, such as 100 or 2.5.
        dollars: String,
    },
    /// Let a part of the stake begin to leave. All that is leaving then waits for the whole delay anew.
    Request {
        /// Dollars.
        dollars: String,
    },
    /// Take out what was leaving, once its delay has passed.
    Complete,
    /// Show the chain two different receipts that a provider signed for one number: it loses all its stake.
    Prove {
        /// A file with a signed receipt as JSON.
        first: PathBuf,
        /// A file with another.
        second: PathBuf,
    },
    /// Take out what this machine's accounts were credited of stake that was taken from providers.
    Claim,
}

/// `rialto price`.
#[derive(Debug, Args)]
pub(crate) struct Price {
    /// Models by their manifest.toml or as `publisher/name:tag`; by default those that are sold.
    #[arg(value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Dollars for a kilowatt-hour, such as 0.25.
    #[arg(long, env = "RIALTO_ELECTRICITY", value_name = "DOLLARS")]
    pub(crate) electricity: Option<String>,
    /// Percent that are asked above cost where nobody else sells.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) margin: Option<u32>,
    /// The market's ticket; without a market only the cost counts.
    #[arg(long, env = "RIALTO_TICKET", value_name = "TICKET")]
    pub(crate) ticket: Option<String>,
}

/// `rialto chat`.
#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// What to say; read from standard input when it is left out.
    pub(crate) message: Vec<String>,
    /// The model.
    #[arg(long, short, env = "RIALTO_MODEL", default_value = "rialto/shakespeare:q8_0")]
    pub(crate) model: String,
    /// Most tokens of the answer.
    #[arg(long, default_value_t = 128)]
    pub(crate) max_tokens: u64,
    /// Sampling temperature.
    #[arg(long, default_value_t = 0.8)]
    pub(crate) temperature: f32,
    /// Same seed, same answer.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// What decides among the sellers: price, latency, throughput or energy; by default all together.
    #[arg(long, value_name = "FIGURE")]
    pub(crate) sort: Option<String>,
    /// Only sellers in this region.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Ask a second seller as well when nothing came for so long; what the slower one did is paid too.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) hedge_after: Option<u64>,
    /// Say why the request went where it went, on standard error.
    #[arg(long)]
    pub(crate) explain: bool,
    /// The gateway's base URL; by default this machine's.
    #[arg(long, env = "OPENAI_BASE_URL", value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// A file with the API key; by default the environment's `OPENAI_API_KEY`, then this data directory's.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// `rialto market`.
#[derive(Debug, Args)]
pub(crate) struct MarketView {
    /// One model; by default all.
    pub(crate) model: Option<String>,
    /// The gateway's base URL; by default this machine's.
    #[arg(long, env = "OPENAI_BASE_URL", value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// A file with the API key; by default the environment's `OPENAI_API_KEY`, then this data directory's.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// `rialto model`.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Models on this machine, with their ids and what the chain says of them.
    List,
    /// Check a manifest and the hashes and sizes of its files.
    Verify {
        /// The manifest.toml.
        manifest: PathBuf,
    },
    /// Measure how fast models are here and what a unit of them draws; keeps it for `rialto price`.
    Bench {
        /// Their manifest.toml; by default those that are sold.
        manifests: Vec<PathBuf>,
    },
    /// Register a model on chain with this data directory's publisher account.
    Publish {
        /// The manifest.toml.
        manifest: PathBuf,
        /// The market's ticket.
        #[arg(long, env = "RIALTO_TICKET")]
        ticket: Option<String>,
    },
    /// Set the royalty of a model whose token this data directory's publisher account holds. A cut is in force at once, a
    /// raise after seven days; either replaces a raise that is pending.
    Royalty {
        /// The model's id.
        id: String,
        /// Basis points of what buyers pay, at most 1000.
        basis_points: u16,
    },
}

/// `rialto channel`.
#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// The gateway's channels: funded, signed, spent, redeemed.
    List {
        /// What the chain alone says, for this machine's accounts: needs no local records. Reads all events of the market.
        #[arg(long)]
        from_chain: bool,
        /// With --from-chain: for this account instead.
        #[arg(long, requires = "from_chain", value_name = "ADDRESS")]
        account: Option<Address>,
    },
    /// Ask for a channel to be closed; what is left comes back after the challenge period.
    Close {
        /// The channel's id.
        id: String,
        /// Send nothing: print a signed order that any account can send with `rialto wallet relay`.
        #[arg(long)]
        sign: bool,
    },
    /// Finish closing a channel whose challenge period has passed.
    Finalize {
        /// The channel's id.
        id: String,
    },
}

/// `rialto receipts`.
#[derive(Debug, Args)]
pub(crate) struct Receipts {
    /// Most receipts to show, newest first.
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
    /// Show what was sold instead of what was bought.
    #[arg(long)]
    pub(crate) sold: bool,
}

/// `rialto key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Create a key; it is shown once.
    Create {
        /// A name for people.
        name: String,
        #[command(flatten)]
        terms: KeyTerms,
    },
    /// Change what a key may use; what is not named stays.
    Set {
        /// The digits after `rk-`.
        id: String,
        #[command(flatten)]
        terms: KeyTerms,
    },
    /// A key, its limits, and what it used of them.
    Show {
        /// The digits after `rk-`.
        id: String,
    },
    /// All keys and what they spent.
    List,
    /// Make a key useless.
    Revoke {
        /// The digits after `rk-`.
        id: String,
    },
}

/// What a key may use. Each can be `none`.
#[derive(Debug, Args)]
pub(crate) struct KeyTerms {
    /// Most dollars it may spend in all.
    #[arg(long, value_name = "DOLLARS")]
    pub(crate) budget: Option<String>,
    /// Most requests that begin within a minute.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) requests_a_minute: Option<String>,
    /// Most requests under way at one time.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) at_a_time: Option<String>,
    /// Most tokens, of input and output, within a minute.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) tokens_a_minute: Option<String>,
    /// Most tokens, of input and output, within a day.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) tokens_a_day: Option<String>,
    /// Most dollars within a minute.
    #[arg(long, value_name = "DOLLARS")]
    pub(crate) dollars_a_minute: Option<String>,
    /// Most dollars within a day.
    #[arg(long, value_name = "DOLLARS")]
    pub(crate) dollars_a_day: Option<String>,
    /// What its requests want of sellers when they do not say it themselves: a `provider` object, such as
    /// '{"sort": "price", "region": "eu"}'.
    #[arg(long, value_name = "JSON")]
    pub(crate) provider: Option<String>,
}

/// `rialto reset`.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Do it without asking. Keys that hold money on a public chain are lost for good.
    #[arg(long)]
    pub(crate) yes: bool,
}
