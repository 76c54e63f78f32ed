//! What was acknowledged survives: SIGKILL, torn journals, restarts. What cannot be read is refused.

use crate::support::{ALICE, BOB, Rpc, devchain};
use rialto_devchain::{Config, DEFAULT_CHAIN_ID, Devchain, Error};
use serde_json::{Value, json};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Set for the copy of this test program that only runs a chain, so that it can be killed.
const CHILD: &str = "RIALTO_DEVCHAIN_TEST_DIRECTORY";

fn journal(directory: &Path) -> PathBuf {
    directory.join("chain.journal")
}

fn config(directory: &Path) -> Config {
    Config {
        data_dir: Some(directory.to_owned()),
        listen: ([127, 0, 0, 1], 0).into(),
        chain_id: DEFAULT_CHAIN_ID,
    }
}

/// Everything about a chain that a client can compare.
async fn portrait(rpc: &Rpc) -> Value {
    let height = rpc.number("eth_blockNumber", json!([])).await;
    let mut blocks = Vec::new();
    for number in 0..=height {
        let number = format!("{number:#x}");
        blocks.push(rpc.call("eth_getBlockByNumber", json!([number, true])).await);
        blocks.push(rpc.call("eth_getBlockReceipts", json!([number])).await);
    }
    let mut accounts = Vec::new();
    for account in [ALICE, BOB] {
        accounts.push(rpc.call("eth_getBalance", json!([account, "latest"])).await);
        accounts.push(rpc.call("eth_getTransactionCount", json!([account, "latest"])).await);
    }
    let code = rpc
        .call(
            "eth_getCode",
            json!(["0x5fbdb2315678afecb367f032d93f642f64180aa3", "latest"]),
        )
        .await;
    let old = rpc.call("eth_getBalance", json!([BOB, "0x1"])).await;
    json!([blocks, accounts, code, old])
}

async fn live_a_little(rpc: &Rpc) {
    let data = crate::support::artifact("TestDollar");
    rpc.send(json!({ "from": ALICE, "data": data })).await;
    rpc.pay(1).await;
    rpc.call("anvil_setBalance", json!([BOB, "0xde0b6b3a7640000"])).await;
    rpc.pay(2).await;
    let id = rpc.call("evm_snapshot", json!([])).await;
    rpc.pay(3).await;
    rpc.call("anvil_setBalance", json!([ALICE, "0x0"])).await;
    assert_eq!(rpc.call("evm_revert", json!([id])).await, json!(true));
    rpc.call("evm_increaseTime", json!([86_400])).await;
    rpc.pay(4).await;
    rpc.call("anvil_mine", json!(["0x5"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let chain = devchain(Some(directory.path())).await;
    let rpc = Rpc::new(chain.rpc_url());
    live_a_little(&rpc).await;
    let before = portrait(&rpc).await;
    chain.shutdown().await.unwrap();

    // Twice: the first start rewrites the journal without the reverted blocks.
    for _ in 0..2 {
        let chain = devchain(Some(directory.path())).await;
        assert_eq!(chain.torn_tail(), None);
        let rpc = Rpc::new(chain.rpc_url());
        assert_eq!(portrait(&rpc).await, before);
        chain.shutdown().await.unwrap();
    }
    let chain = devchain(Some(directory.path())).await;
    let rpc = Rpc::new(chain.rpc_url());
    rpc.pay(1).await;
    let at = |block: &'static str| rpc.call("eth_getBlockByNumber", json!([block, false]));
    let travelled = crate::support::number(&at("latest").await["timestamp"])
        - crate::support::number(&at("earliest").await["timestamp"]);
    assert!(travelled >= 86_400, "travelled time is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_only_dropped_frees_its_directory_and_keeps_its_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let chain = devchain(Some(directory.path())).await;
    let rpc = Rpc::new(chain.rpc_url());
    live_a_little(&rpc).await;
    let before = portrait(&rpc).await;
    drop(chain);
    let chain = devchain(Some(directory.path())).await;
    assert_eq!(portrait(&Rpc::new(chain.rpc_url())).await, before);
}

/// Not a test of its own: the body of the process that the next test kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_process() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let chain = Devchain::start(config(&directory)).await.unwrap();
    let file = directory.join("url.new");
    fs::write(&file, chain.rpc_url()).unwrap();
    fs::rename(file, directory.join("url")).unwrap();
    std::future::pending::<()>().await;
}

async fn spawn_child(directory: &Path) -> (Child, Rpc) {
    let _ = fs::remove_file(directory.join("url"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child_process"])
        .env(CHILD, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        if let Ok(url) = fs::read_to_string(directory.join("url")) {
            return (child, Rpc::new(url));
        }
        assert!(child.try_wait().unwrap().is_none(), "the chain ended before it served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_to_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(Value, u64)> = Vec::new();
    for round in 0..8u64 {
        let (mut child, rpc) = spawn_child(directory.path()).await;
        for (hash, _) in &acknowledged {
            let receipt = rpc.call("eth_getTransactionReceipt", json!([hash])).await;
            assert_eq!(receipt["status"], "0x1", "acknowledged in an earlier life, then lost");
        }
        // Kill at another moment each time, while transactions are on their way: so many answers and a while after the start.
        let (heard, mut hearing) = tokio::sync::watch::channel(0u64);
        let killer = tokio::spawn(async move {
            hearing.wait_for(|answers| *answers >= round).await.unwrap();
            tokio::time::sleep(Duration::from_millis(7 + 13 * round)).await;
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let client = reqwest::Client::new();
        for value in 1u64.. {
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_sendTransaction",
                "params": [{ "from": ALICE, "to": BOB, "value": format!("{value:#x}") }] });
            let request = client
                .post(&rpc.url)
                .header("content-type", "application/json")
                .body(body.to_string());
            let Ok(response) = request.send().await else { break };
            let Ok(bytes) = response.bytes().await else { break };
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            acknowledged.push((answer["result"].clone(), value));
            heard.send_modify(|answers| *answers += 1);
        }
        killer.await.unwrap();
    }
    assert!(
        acknowledged.len() >= 28,
        "each life but the first is ended after one answer more"
    );
    let chain = devchain(Some(directory.path())).await;
    let rpc = Rpc::new(chain.rpc_url());
    let height = rpc.number("eth_blockNumber", json!([])).await;
    let nonce = rpc.number("eth_getTransactionCount", json!([ALICE, "latest"])).await;
    // What was mined but not heard of may be there in addition: at most one for each life.
    let heard = acknowledged.len() as u128;
    assert_eq!(height, nonce);
    assert!(
        (heard..=heard + 8).contains(&nonce),
        "{heard} acknowledged, {nonce} mined"
    );
}

async fn small_chain(directory: &Path) -> Value {
    let chain = devchain(Some(directory)).await;
    let rpc = Rpc::new(chain.rpc_url());
    for value in 1..=3 {
        rpc.pay(value).await;
    }
    let portrait = portrait(&rpc).await;
    chain.shutdown().await.unwrap();
    portrait
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_off_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let whole = small_chain(directory.path()).await;
    let file = journal(directory.path());
    let intact = fs::metadata(&file).unwrap().len();
    OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap()
        .write_all(&[7; 100])
        .unwrap();
    {
        let chain = devchain(Some(directory.path())).await;
        let torn = chain.torn_tail().unwrap();
        assert_eq!((torn.offset, torn.length), (intact, 100));
        assert_eq!(portrait(&Rpc::new(chain.rpc_url())).await, whole);
        chain.shutdown().await.unwrap();
    }
    // A cut inside the last block takes back that block and no other, and the chain goes on from there.
    OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(intact - 1)
        .unwrap();
    let chain = devchain(Some(directory.path())).await;
    assert!(chain.torn_tail().is_some());
    let rpc = Rpc::new(chain.rpc_url());
    assert_eq!(rpc.number("eth_blockNumber", json!([])).await, 2);
    rpc.pay(9).await;
    let longer = portrait(&rpc).await;
    chain.shutdown().await.unwrap();
    let chain = devchain(Some(directory.path())).await;
    assert_eq!(chain.torn_tail(), None);
    assert_eq!(portrait(&Rpc::new(chain.rpc_url())).await, longer);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_is_a_clear_error_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    small_chain(directory.path()).await;
    let file = journal(directory.path());
    let whole = fs::read(&file).unwrap();
    for at in [20, 60, whole.len() / 3, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).unwrap();
        let error = Devchain::start(config(directory.path())).await.unwrap_err();
        assert!(matches!(error, Error::JournalCorrupted { .. }), "{at}: {error}");
        assert!(error.to_string().contains("corrupted at byte"), "{error}");
        assert_eq!(
            fs::read(&file).unwrap(),
            damaged,
            "a damaged journal is left for its owner to look at"
        );
    }
    fs::write(&file, &whole).unwrap();
    devchain(Some(directory.path())).await.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_in_the_way_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let chain = devchain(Some(directory.path())).await;
    let locked = Devchain::start(config(directory.path())).await.unwrap_err();
    assert!(
        matches!(locked, Error::DataDirLocked { .. }) && locked.is_retryable(),
        "{locked}"
    );
    let taken = Config {
        data_dir: None,
        listen: chain.local_addr(),
        chain_id: 1,
    };
    let taken = Devchain::start(taken).await.unwrap_err();
    assert!(
        matches!(taken, Error::AddressInUse { .. }) && taken.to_string().starts_with("address in use"),
        "{taken}"
    );
    chain.shutdown().await.unwrap();
    let other = Config {
        chain_id: 5,
        ..config(directory.path())
    };
    let other = Devchain::start(other).await.unwrap_err();
    assert!(
        matches!(
            other,
            Error::ChainIdMismatch {
                found: DEFAULT_CHAIN_ID,
                expected: 5
            }
        ),
        "{other}"
    );
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Devchain::start(config(&file)).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_blocks_load_again() {
    let directory = tempfile::tempdir().unwrap();
    let chain = devchain(Some(directory.path())).await;
    let rpc = Rpc::new(chain.rpc_url());
    for _ in 0..20 {
        rpc.pay(1).await;
    }
    rpc.call("anvil_mine", json!([5_000])).await;
    let tip = rpc.call("eth_getBlockByNumber", json!(["latest", false])).await;
    chain.shutdown().await.unwrap();
    let began = Instant::now();
    let chain = devchain(Some(directory.path())).await;
    println!("loaded 5,020 blocks in {:?}", began.elapsed());
    let rpc = Rpc::new(chain.rpc_url());
    assert_eq!(rpc.call("eth_getBlockByNumber", json!(["latest", false])).await, tip);
    assert_eq!(
        rpc.number("eth_getBalance", json!([BOB, "0x5"])).await,
        10_000 * 10u128.pow(18) + 5
    );
}
