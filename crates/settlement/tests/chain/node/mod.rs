//! A chain of either kind, so that one test runs on both.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

use rialto_devchain::{Config, DEFAULT_CHAIN_ID, Devchain};
use serde_json::{Value, json};

use crate::anvil::Anvil;

/// A chain of either kind; it ends with the test.
pub(crate) enum Node {
    Anvil(Anvil),
    Devchain(Devchain),
}

impl Node {
    pub(crate) async fn both() -> [Self; 2] {
        let config = Config {
            data_dir: None,
            listen: ([127, 0, 0, 1], 0).into(),
            chain_id: DEFAULT_CHAIN_ID,
        };
        [
            Self::Anvil(Anvil::start()),
            Self::Devchain(Devchain::start(config).await.unwrap()),
        ]
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Anvil(anvil) => anvil.url(),
            Self::Devchain(chain) => chain.rpc_url(),
        }
    }

    /// Moves the chain's clock.
    pub(crate) async fn travel(&self, seconds: u64) {
        self.rpc("evm_increaseTime", json!([seconds])).await;
        self.rpc("evm_mine", json!([])).await;
    }

    async fn rpc(&self, method: &str, params: Value) {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.post(self.url()).json(&request).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
    }
}
