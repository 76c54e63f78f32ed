//! A real chain for the tests: anvil on a free port, ended with the test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rialto_protocol::{
    Address, ChannelParams, MicroDollars, ModelId, SigningKey, manifest::Manifest, ticket::Contracts,
};
use rialto_settlement::{Chain, DeployOptions, Options, Wallet, deploy, fund_native};
use serde_json::{Value, json};

use crate::patience::Impatient;

/// Fee of the test market in basis points.
pub(crate) const FEE_BPS: u16 = 250;
/// Royalty of the test model in basis points; with the fee it leaves remainders everywhere.
pub(crate) const ROYALTY_BPS: u16 = 333;
/// Challenge period of the test market in seconds.
pub(crate) const CHALLENGE: u64 = 3_600;

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

impl Anvil {
    /// Starts on a free port.
    pub(crate) fn start() -> Self {
        // Another thread that is quicker installs one as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
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

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls a method of the node itself.
    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.post(self.url()).json(&request).send().await.unwrap();
        let mut answer: Value = response.json().await.unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Moves the chain's clock.
    pub(crate) async fn travel(&self, seconds: u64) {
        self.rpc("evm_increaseTime", json!([seconds])).await;
        self.rpc("evm_mine", json!([])).await;
    }
}

/// The first development key of every development chain.
pub(crate) fn rich() -> SigningKey {
    let secret = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    SigningKey::from_bytes(&hex::decode(secret).unwrap().try_into().unwrap()).unwrap()
}

/// A key of the tests.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32]).unwrap()
}

/// Micro-dollars.
pub(crate) fn usd(micro: u64) -> MicroDollars {
    MicroDollars::new(micro)
}

/// A market with everybody in it.
pub(crate) struct Market {
    pub(crate) anvil: Anvil,
    pub(crate) chain: Chain,
    pub(crate) buyer: Wallet,
    pub(crate) provider: Wallet,
    pub(crate) publisher: Wallet,
    pub(crate) fee_recipient: Wallet,
    pub(crate) session: SigningKey,
    pub(crate) model: ModelId,
}

pub(crate) fn manifest() -> Manifest {
    Manifest::from_toml(&format!(
        r#"
        schema = 1
        publisher_name = "rialto"
        name = "example"
        tag = "v1"
        task = "predict"
        description = "an example"
        quantisation = "F32"
        licence = "MIT OR Apache-2.0"
        royalty_bps = {ROYALTY_BPS}
        context_length = 0
        format = "onnx"
        chat_template_hash = ""
        tokenizer_hash = ""
        [[artifacts]]
        path = "example.onnx"
        blake3 = "0000000000000000000000000000000000000000000000000000000000000001"
        size = 12
        "#
    ))
    .unwrap()
}

pub(crate) fn options() -> DeployOptions {
    DeployOptions {
        fee_bps: FEE_BPS,
        fee_recipient: key(4).address(),
        challenge_period: CHALLENGE,
        ..DeployOptions::default()
    }
}

impl Market {
    /// Contracts, a model, and a buyer with a thousand dollars.
    pub(crate) async fn open() -> Self {
        let anvil = Anvil::start();
        let deployed = deploy(&anvil.url(), &rich(), &options()).await.unwrap();
        assert_eq!(deployed.chain_id, 31_337);
        let chain = Chain::connect(&anvil.url(), deployed.contracts).unwrap();
        for number in 1..=4 {
            let account = key(number).address();
            fund_native(&chain, &rich(), account, 10u128.pow(18)).await.unwrap();
        }
        let wallet = |number| Wallet::new(chain.clone(), key(number));
        let publisher = wallet(3);
        let model = publisher.register_model(&manifest()).await.unwrap();
        let buyer = wallet(1);
        buyer.mint(buyer.address(), usd(1_000_000_000)).await.unwrap();
        Self {
            buyer,
            provider: wallet(2),
            publisher,
            fee_recipient: wallet(4),
            session: key(5),
            model,
            chain,
            anvil,
        }
    }

    pub(crate) fn contracts(&self) -> Contracts {
        self.chain.contracts()
    }

    pub(crate) fn params(&self, salt: u128) -> ChannelParams {
        ChannelParams {
            payer: self.buyer.address(),
            signer: self.session.address(),
            provider: self.provider.address(),
            model: self.model,
            token: self.contracts().token,
            salt,
        }
    }

    /// The wallet of a key that can be made to give up.
    pub(crate) async fn impatient(&self, number: u8) -> Impatient {
        Impatient::new(&self.anvil.url(), self.contracts(), key(number), Options::default()).await
    }

    /// The buyer approves the escrow for an amount.
    pub(crate) async fn approve(&self, amount: MicroDollars) {
        let contracts = self.contracts();
        let data = format!(
            "0x095ea7b3{:0>64}{:064x}",
            hex::encode(contracts.escrow.0),
            amount.get()
        );
        let (buyer, token) = (self.buyer.address().to_string(), contracts.token.to_string());
        self.anvil.rpc("anvil_impersonateAccount", json!([buyer])).await;
        let call = json!([{"from": buyer, "to": token, "data": data}]);
        self.anvil.rpc("eth_sendTransaction", call).await;
    }

    /// All stablecoin that the market's accounts and the escrow hold.
    pub(crate) async fn all_money(&self) -> u128 {
        let mut sum = 0;
        let contracts = self.contracts();
        let wallets = [&self.buyer, &self.provider, &self.publisher, &self.fee_recipient];
        let accounts = wallets.map(Wallet::address).into_iter();
        for account in accounts.chain([contracts.escrow, contracts.providers]) {
            sum += self.chain.token_balance(account).await.unwrap().get();
        }
        sum
    }
}

/// An account that nobody has.
pub(crate) const NOBODY: Address = Address([0xee; 20]);
