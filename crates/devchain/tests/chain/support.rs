//! A plain JSON-RPC client, and chains to try it on.

use rialto_devchain::{Config, DEFAULT_CHAIN_ID, Devchain};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

pub(crate) const ALICE: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
pub(crate) const BOB: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

/// A client that sees exactly what goes over the wire.
pub(crate) struct Rpc {
    pub(crate) url: String,
    client: reqwest::Client,
}

impl Rpc {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        // Fails when another test of this process was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.into(),
            client: reqwest::Client::new(),
        }
    }

    /// Posts a body as it is; returns the HTTP status and the body of the answer.
    pub(crate) async fn post(&self, body: Vec<u8>, headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }

    pub(crate) async fn raw(&self, body: Value) -> Value {
        let (_, answer) = self.post(serde_json::to_vec(&body).unwrap(), &[]).await;
        serde_json::from_slice(&answer).unwrap()
    }

    /// The result, or the error object.
    pub(crate) async fn try_call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let mut answer = self
            .raw(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
            .await;
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }

    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        match self.try_call(method, params).await {
            Ok(result) => result,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    pub(crate) async fn number(&self, method: &str, params: Value) -> u128 {
        number(&self.call(method, params).await)
    }

    /// Has the node sign and send a transaction; returns its hash once there is a receipt.
    pub(crate) async fn send(&self, transaction: Value) -> Value {
        let hash = self.call("eth_sendTransaction", json!([transaction])).await;
        // Other chains mine a moment after they answer.
        while self.call("eth_getTransactionReceipt", json!([hash])).await.is_null() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        hash
    }

    /// Sends a few wei from `ALICE` to `BOB`; returns the transaction's hash.
    pub(crate) async fn pay(&self, wei: u64) -> Value {
        self.send(json!({ "from": ALICE, "to": BOB, "value": format!("{wei:#x}") }))
            .await
    }
}

/// A hexadecimal quantity.
pub(crate) fn number(value: &Value) -> u128 {
    let text = value.as_str().unwrap_or_else(|| panic!("no quantity: {value}"));
    u128::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// A devchain on a free port.
pub(crate) async fn devchain(data_dir: Option<&Path>) -> Devchain {
    let config = Config {
        data_dir: data_dir.map(Path::to_owned),
        listen: ([127, 0, 0, 1], 0).into(),
        chain_id: DEFAULT_CHAIN_ID,
    };
    Devchain::start(config).await.unwrap()
}

/// A running anvil, killed when dropped.
pub(crate) struct Anvil {
    process: Child,
    pub(crate) url: String,
}

impl Anvil {
    /// Starts anvil when one is installed, on a port that the system gives it.
    pub(crate) fn start() -> Option<Self> {
        let program = find_anvil()?;
        let mut process = Command::new(program)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned));
        let url = format!("http://{}", address.expect("anvil ended before it listened").trim());
        // It says every call, and must not wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { process, url })
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program itself, not its wrapper: a wrapper that is killed leaves the program behind.
fn find_anvil() -> Option<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules/@foundry-rs");
    let packaged = packages
        .read_dir()
        .ok()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/anvil"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|directory| directory.join("anvil"));
    packaged
        .chain(installed.collect::<Vec<_>>())
        .find(|program| program.is_file())
}

/// A compiled contract's creation code.
pub(crate) fn artifact(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../contracts/artifacts/{name}.json"));
    let artifact: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    artifact["bytecode"].as_str().unwrap().to_owned()
}
