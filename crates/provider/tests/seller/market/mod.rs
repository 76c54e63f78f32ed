//! A seller over real QUIC, a real chain and a buyer that keeps its own ledger, for the stories beside this folder.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where it cannot go on"
)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use prometheus_client::registry::Registry;
use rialto_engine::{SimulatedConfig, SimulatedEngine};
use rialto_network::{FrameReceiver, FrameSender, Node, NodeConfig};
use rialto_protocol::{
    ChannelParams, Domain, MicroDollars, Price, RequestId, Signature, SignedReceipt, SignedVoucher, SigningKey, Usage,
    account::{BuyerAccount, Observed},
    job::{Generation, Job},
    manifest::Manifest,
    output::{FinishReason, ResponseHasher},
    ticket::Peer,
    wire::{BuyerFrame, Refusal, SellerFrame, TradeRequest, delegation_digest},
};
use rialto_provider::{Config, Listing, Metrics, Parts, Provider, RedeemPolicy, Trust};
use rialto_settlement::{Chain, DeployOptions, Wallet, deploy, fund_native};

/// What the test model costs: an odd price, so that rounding shows.
pub(crate) const PRICE: Price = Price {
    input: 333,
    output: 777,
    request: 0,
};

/// Units paid ahead.
pub(crate) const CHUNK: u64 = 64;

const FEE_BPS: u16 = 250;
const ROYALTY_BPS: u16 = 500;

/// How long anything is waited for that must happen: only a hang takes so long, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running anvil.
pub(crate) struct Anvil {
    child: Child,
    port: u16,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    /// Starts on a free port.
    pub(crate) fn start() -> Self {
        let binary = binary();
        let mut child = Command::new(&binary)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "anvil is missing ({}: {error}): run `npm ci` in contracts/, or set RIALTO_ANVIL to its path",
                    binary.display()
                )
            });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ")?.rsplit_once(':')?.1.parse().ok())
            .expect("anvil ended before it listened");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls a method of the node itself, with cast, which shares no code with us.
    pub(crate) fn rpc(&self, method: &str, arguments: &[&str]) {
        let cast = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules/.bin/cast");
        let url = self.url();
        let all = [&["rpc", "--rpc-url", &url, method], arguments].concat();
        let output = Command::new(if cast.exists() { cast } else { "cast".into() })
            .args(all)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RIALTO_ANVIL") {
        return path.into();
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules/@foundry-rs");
    // The platform's own binary: the script beside it would leave anvil running when it is killed.
    let installed = std::fs::read_dir(packages).into_iter().flatten().flatten();
    installed
        .map(|entry| entry.path().join("bin/anvil"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| "anvil".into())
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32]).unwrap()
}

/// Micro-dollars.
pub(crate) fn usd(micro: u64) -> MicroDollars {
    MicroDollars::new(micro)
}

fn manifest() -> Manifest {
    Manifest::from_toml(&format!(
        r#"
        schema = 1
        publisher_name = "rialto"
        name = "simulated"
        tag = "v1"
        task = "completion"
        description = "pretends"
        quantisation = "none"
        licence = "MIT"
        royalty_bps = {ROYALTY_BPS}
        context_length = 4096
        format = "gguf"
        chat_template_hash = ""
        tokenizer_hash = ""
        [[artifacts]]
        path = "none.gguf"
        blake3 = "0000000000000000000000000000000000000000000000000000000000000001"
        size = 1
        "#
    ))
    .unwrap()
}

/// A policy that never claims by itself.
pub(crate) const NEVER: RedeemPolicy = RedeemPolicy {
    gas_multiple: 20,
    coin_price: None,
    min_value: MicroDollars::MAX,
    max_age: Duration::from_secs(1 << 40),
    interval: Duration::from_millis(50),
};

/// The seller's configuration in these stories.
pub(crate) fn config() -> Config {
    Config {
        chunk: CHUNK,
        redeem: NEVER,
        watch_interval: Duration::from_millis(50),
        trust: Trust {
            confirmations: 0,
            unconfirmed: usd(0),
        },
        grace: Duration::from_millis(200),
        // A buyer of these stories is as slow as the machine.
        payment_timeout: PATIENCE,
        stall_timeout: PATIENCE,
        first_frame_timeout: PATIENCE,
        ..Config::default()
    }
}

/// A chain, a seller and a folder for its store.
pub(crate) struct Market {
    pub(crate) anvil: Anvil,
    pub(crate) chain: Chain,
    pub(crate) buyer: Wallet,
    pub(crate) engine: Arc<SimulatedEngine>,
    pub(crate) folder: tempfile::TempDir,
    domain: Domain,
}

impl Market {
    /// Contracts, a registered model, and a buyer with a thousand dollars deposited.
    pub(crate) async fn open(engine: SimulatedConfig) -> Self {
        let anvil = Anvil::start();
        let options = DeployOptions {
            fee_bps: FEE_BPS,
            fee_recipient: key(4).address(),
            challenge_period: 3_600,
            ..DeployOptions::default()
        };
        let rich = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let mut secret = [0u8; 32];
        for (index, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&rich[2 * index..2 * index + 2], 16).unwrap();
        }
        let rich = SigningKey::from_bytes(&secret).unwrap();
        let deployed = deploy(&anvil.url(), &rich, &options).await.unwrap();
        let chain = Chain::connect(&anvil.url(), deployed.contracts).unwrap();
        for number in 1..=3 {
            let account = key(number).address();
            fund_native(&chain, &rich, account, 10u128.pow(18)).await.unwrap();
        }
        let publisher = Wallet::new(chain.clone(), key(3));
        publisher.register_model(&manifest()).await.unwrap();
        let buyer = Wallet::new(chain.clone(), key(1));
        buyer.mint(buyer.address(), usd(1_000_000_000)).await.unwrap();
        buyer.deposit(usd(1_000_000_000)).await.unwrap();
        Self {
            domain: chain.domain().await.unwrap(),
            engine: Arc::new(SimulatedEngine::new(engine)),
            folder: tempfile::tempdir().unwrap(),
            anvil,
            chain,
            buyer,
        }
    }

    /// Where the seller keeps its store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("provider.db")
    }

    /// A seller on a store.
    pub(crate) async fn sell(&self, store: &Path, config: Config) -> (Provider, Peer) {
        self.sell_at(store, config, PRICE).await
    }

    /// A seller on a store, with a price of its own.
    pub(crate) async fn sell_at(&self, store: &Path, config: Config, price: Price) -> (Provider, Peer) {
        self.sell_on(store, config, price, self.engine.clone()).await
    }

    /// Another engine.
    pub(crate) fn engine(engine: SimulatedConfig) -> Arc<SimulatedEngine> {
        Arc::new(SimulatedEngine::new(engine))
    }

    /// A seller on a store, with a price and an engine of its own.
    pub(crate) async fn sell_on(
        &self,
        store: &Path,
        config: Config,
        price: Price,
        engine: Arc<SimulatedEngine>,
    ) -> (Provider, Peer) {
        let node = node().await;
        let peer = node.peer();
        let parts = Parts {
            node,
            wallet: Wallet::new(self.chain.clone(), key(2)),
            key: Arc::new(key(2)),
            listings: vec![Listing {
                manifest: manifest(),
                publisher: key(3).address(),
                engine,
                price: price.into(),
                energy_millijoules: 2,
            }],
            meeting: Vec::new(),
            store: store.to_owned(),
            meter: None,
            config,
            metrics: Metrics::register(&mut Registry::default()),
        };
        (Provider::start(parts).await.unwrap(), peer)
    }

    /// The parameters of a channel of the buyer.
    pub(crate) fn params(&self, salt: u128) -> ChannelParams {
        ChannelParams {
            payer: self.buyer.address(),
            signer: key(5).address(),
            provider: key(2).address(),
            model: manifest().model_id(key(3).address()),
            token: self.chain.contracts().token,
            salt,
        }
    }

    /// Opens a channel and gives the buyer that spends it.
    pub(crate) async fn buyer(&self, salt: u128, funded: u64, to: Peer) -> Buyer {
        let params = self.params(salt);
        self.buyer.open(&params, usd(funded)).await.unwrap();
        self.spender(params, funded, to).await
    }

    /// A buyer that spends so much of a channel.
    pub(crate) async fn spender(&self, params: ChannelParams, funded: u64, to: Peer) -> Buyer {
        Buyer {
            node: node().await,
            account: BuyerAccount::new(params, usd(funded)),
            session: key(5),
            domain: self.domain,
            to,
            price: PRICE,
            serial: 0,
        }
    }

    /// The seller's own wallet, for what it does by hand.
    pub(crate) fn provider(&self) -> Wallet {
        Wallet::new(self.chain.clone(), key(2))
    }

    /// What the chain says was redeemed of a channel.
    pub(crate) async fn redeemed(&self, params: &ChannelParams) -> MicroDollars {
        self.chain.channel(params.id()).await.unwrap().redeemed
    }
}

async fn node() -> Node {
    let secret: [u8; 32] = std::array::from_fn(|_| fresh());
    let config = NodeConfig {
        secret: secret.into(),
        listen: ([127, 0, 0, 1], 0).into(),
        relay: None,
    };
    Node::bind(config).await.unwrap()
}

/// A byte that differs from call to call and from process to process.
fn fresh() -> u8 {
    use std::hash::{BuildHasher, Hasher};
    let hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.finish().to_be_bytes()[0]
}

/// A buyer with its ledger.
pub(crate) struct Buyer {
    pub(crate) node: Node,
    pub(crate) account: BuyerAccount,
    pub(crate) session: SigningKey,
    pub(crate) domain: Domain,
    pub(crate) to: Peer,
    /// What it names in its requests, and expects to be billed.
    pub(crate) price: Price,
    serial: u8,
}

/// A trade as the buyer sees it.
pub(crate) struct Call {
    pub(crate) sender: FrameSender<BuyerFrame>,
    pub(crate) receiver: FrameReceiver<SellerFrame>,
    pub(crate) id: RequestId,
    pub(crate) job: Job,
    pub(crate) input: u64,
    pub(crate) received: u64,
    pub(crate) covered: u64,
    pub(crate) hasher: ResponseHasher,
}

/// How a trade ended.
#[derive(Debug)]
pub(crate) enum End {
    Refused(Refusal),
    Finished {
        reason: FinishReason,
        receipt: Box<SignedReceipt>,
        failure: Option<Refusal>,
    },
}

/// A job for so many tokens.
pub(crate) fn job(max_tokens: u64) -> Job {
    Job::Completion {
        prompt: "to be or not to be".into(),
        generation: Generation {
            max_tokens,
            ..Generation::default()
        },
    }
}

impl Buyer {
    /// A fresh request, with a voucher that covers the first chunk.
    pub(crate) fn request(&mut self, job: Job) -> TradeRequest {
        let input = job.max_input();
        self.request_for(job, input)
    }

    /// A fresh request, with a voucher that covers so much input and the first chunk.
    pub(crate) fn request_for(&mut self, job: Job, input: u64) -> TradeRequest {
        self.serial += 1;
        let id = RequestId([self.serial; 32]);
        let covered = job.max_output().min(CHUNK);
        let usage = Usage { input, output: covered };
        let voucher = self.account.reserve(id, self.price.cost(usage)).unwrap();
        TradeRequest {
            id,
            channel: *self.account.params(),
            price: self.price,
            statement: self.account.statement(),
            voucher: voucher.sign(&self.domain, &self.session),
            delegation: self.delegation(&self.session),
            patience_ms: 60_000,
            job,
        }
    }

    /// A key's signature that this buyer's node may use its channel.
    pub(crate) fn delegation(&self, key: &SigningKey) -> Signature {
        let channel = self.account.params().id();
        key.sign(&delegation_digest(&self.domain, channel, self.node.caller()))
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: TradeRequest) -> Call {
        let (mut sender, receiver) = self.node.trade(&self.to).await.unwrap().split();
        Call {
            id: request.id,
            job: request.job.clone(),
            input: 0,
            received: 0,
            covered: request.job.max_output().min(CHUNK),
            hasher: ResponseHasher::new(),
            receiver: {
                sender.send(&BuyerFrame::Request(Box::new(request))).await.unwrap();
                receiver
            },
            sender,
        }
    }

    /// Sends a request for so many tokens.
    pub(crate) async fn ask(&mut self, max_tokens: u64) -> Call {
        let request = self.request(job(max_tokens));
        self.send(request).await
    }

    /// A voucher that covers a call further.
    pub(crate) fn pay(&mut self, call: &mut Call, output_units: u64) -> SignedVoucher {
        call.covered = output_units;
        let usage = Usage {
            input: call.input,
            output: output_units,
        };
        let voucher = self.account.reserve(call.id, self.price.cost(usage)).unwrap();
        voucher.sign(&self.domain, &self.session)
    }

    /// Reads on, paying what is asked, until `enough` units arrived or the trade ended.
    pub(crate) async fn read(&mut self, call: &mut Call, enough: u64) -> Option<End> {
        while call.received < enough {
            let frame = tokio::time::timeout(PATIENCE, call.receiver.next()).await;
            match frame
                .expect("the seller is silent")
                .unwrap()
                .expect("the seller hung up")
            {
                SellerFrame::Accepted { input_units, catch_up } => {
                    call.input = input_units;
                    for receipt in &catch_up {
                        self.account.settle(receipt, None, &self.domain).unwrap();
                    }
                }
                SellerFrame::Refused(refusal) => {
                    self.account.release(&call.id);
                    return Some(End::Refused(refusal));
                }
                SellerFrame::VoucherWanted { output_units, .. } => {
                    assert!(
                        output_units <= call.received + CHUNK,
                        "asked for more than a chunk ahead"
                    );
                    let voucher = self.pay(call, output_units);
                    call.sender.send(&BuyerFrame::Voucher(voucher)).await.unwrap();
                }
                SellerFrame::Output(output) => {
                    call.received += output.units();
                    call.hasher.update(&output);
                    assert!(call.received <= call.covered, "worked beyond what was paid");
                }
                SellerFrame::Finished {
                    reason,
                    receipt,
                    failure,
                } => {
                    self.settle(call, &receipt);
                    return Some(End::Finished {
                        reason,
                        receipt,
                        failure,
                    });
                }
            }
        }
        None
    }

    fn settle(&mut self, call: &Call, receipt: &SignedReceipt) {
        let observed = Observed {
            price: self.price,
            request_hash: call.job.hash(call.id),
            usage: Usage {
                input: call.input,
                output: call.received,
            },
            response_hash: Some(call.hasher.finish()),
        };
        self.account.settle(receipt, Some(&observed), &self.domain).unwrap();
    }

    /// Asks and reads to the end.
    pub(crate) async fn whole(&mut self, max_tokens: u64) -> End {
        let mut call = self.ask(max_tokens).await;
        self.read(&mut call, u64::MAX).await.expect("the trade ended")
    }
}

impl End {
    /// The receipt of a finished trade.
    pub(crate) fn receipt(self) -> SignedReceipt {
        match self {
            Self::Finished { receipt, .. } => *receipt,
            Self::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    /// The refusal of a refused trade.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Finished { receipt, .. } => panic!("finished: {receipt:?}"),
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} did not happen"));
}
