//! Processor time of a paid request: gateway, provider, network, signatures and stores, against the same engine called
//! directly and against an HTTP client that asks for nothing. Everything runs in this process but the model, which is
//! simulated and answers at once. Beside it stand the parts that no paid request can do without, each alone: two signatures
//! and two checks of them, an exchange between two nodes, and a write that is synced to the disk.

use std::{
    fs::File,
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use rialto_benches::{Report, median, processor_nanos};
use rialto_engine::{Engine, Piece, Scope};
use rialto_network::{Incoming, Node, NodeConfig};
use rialto_protocol::{
    Digest, SigningKey,
    hash::keccak256,
    job::{Generation, Job, Message, Tools},
    ticket::Peer,
    wire::{BuyerFrame, Refusal, RefusalCode, SellerFrame},
};
use rialto_testkit::market::{MODEL, Market, Plan};
use tokio::sync::watch;
use zeroize::Zeroizing;

const REQUESTS: u32 = 1_000;
const ROUNDS: usize = 5;
const PARALLEL: usize = 8;
const TOKENS: u64 = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let market = Market::start(Plan::default()).await?;
    let client = market.client();
    for _ in 0..100 {
        client.chat(MODEL, "warm up", TOKENS).await?;
    }
    let parts = Parts::start().await?;
    let (mut paid, mut direct, mut http) = (Vec::new(), Vec::new(), Vec::new());
    let (mut signatures, mut exchanges, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        signatures.push(micros(|| parts.signatures()).await?);
        exchanges.push(micros(|| parts.exchange()).await?);
        writes.push(micros(|| parts.write()).await?);
        paid.push(micros(|| async { client.chat(MODEL, "a question", TOKENS).await.map(drop) }).await?);
        let engine = market.engines().first().context("no engine")?.as_ref();
        direct.push(micros(|| ask(engine)).await?);
        http.push(micros(|| async { client.get("/healthz").await.map(drop) }).await?);
    }
    let (paid, direct, http) = (median(paid), median(direct), median(http));
    let mut report = Report::new("paid_request");
    report.row("paid request, client included", paid, "CPU-µs");
    report.row("the same engine called directly", direct, "CPU-µs");
    report.row(
        "an HTTP request that is answered at once, client included",
        http,
        "CPU-µs",
    );
    report.row("paid request without engine and HTTP", paid - direct - http, "CPU-µs");
    report.row("paid request against the engine directly", paid / direct, "times");
    let (signatures, exchanges, writes) = (median(signatures), median(exchanges), median(writes));
    report.row("of it, alone: two signatures and two checks", signatures, "CPU-µs");
    report.row("of it, alone: two frames over QUIC, both ends", exchanges, "CPU-µs");
    report.row("of it, alone: a kilobyte to a file, synced", writes, "CPU-µs");
    let sum = signatures + exchanges + writes;
    report.row("the sum of these parts", sum, "CPU-µs");
    report.row(
        "paid request without engine and HTTP, against that sum",
        (paid - direct - http) / sum,
        "times",
    );
    report.finish()?;
    market.stop().await
}

/// What no paid request can do without.
struct Parts {
    key: SigningKey,
    buyer: Node,
    seller: Peer,
    file: Mutex<File>,
}

impl Parts {
    async fn start() -> Result<Self> {
        let (buyer, seller) = (node(1).await?, node(2).await?);
        let peer = seller.peer();
        tokio::spawn(async move {
            while let Some(Incoming::Trade(_, trade)) = seller.accept().await {
                tokio::spawn(async move {
                    let (mut sender, mut receiver) = trade.split();
                    drop(receiver.next().await);
                    let answer = SellerFrame::Refused(Refusal::new(RefusalCode::Busy, "a".repeat(1_000)));
                    drop(sender.send(&answer).await);
                    sender.finish().await;
                });
            }
        });
        Ok(Self {
            key: SigningKey::from_bytes(&[1; 32])?,
            buyer,
            seller: peer,
            file: Mutex::new(tempfile::tempfile()?),
        })
    }

    async fn signatures(&self) -> Result<()> {
        let public = self.key.public_key();
        for part in [[0u8], [1]] {
            let digest = Digest(keccak256(&[&part]));
            public.verify(&digest, &self.key.sign(&digest))?;
        }
        Ok(())
    }

    async fn exchange(&self) -> Result<()> {
        let (mut sender, mut receiver) = self.buyer.trade(&self.seller).await?.split();
        sender.send(&BuyerFrame::Cancel).await?;
        receiver.next().await?.context("no answer")?;
        anyhow::ensure!(receiver.next().await?.is_none(), "more than one answer");
        Ok(())
    }

    async fn write(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&[7; 1_024])?;
        file.sync_data()?;
        Ok(())
    }
}

async fn node(secret: u8) -> Result<Node> {
    let config = NodeConfig {
        secret: Zeroizing::new([secret; 32]),
        listen: ([127, 0, 0, 1], 0).into(),
        relay: None,
    };
    Ok(Node::bind(config).await?)
}

/// Processor time of one request, in microseconds, over many of them.
async fn micros<F: Future<Output = Result<()>>>(mut request: impl FnMut() -> F) -> Result<f64> {
    let before = processor_nanos()?;
    let outcomes: Vec<Result<()>> = stream::iter((0..REQUESTS).map(|_| request()))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    outcomes.into_iter().collect::<Result<()>>()?;
    let spent = processor_nanos()?.saturating_sub(before);
    Ok(std::time::Duration::from_nanos(spent).as_secs_f64() * 1e6 / f64::from(REQUESTS))
}

async fn ask(engine: &dyn Engine) -> Result<()> {
    let messages = vec![Message::text("user", "a question")];
    let generation = Generation {
        max_tokens: TOKENS,
        ..Generation::default()
    };
    let prepared = engine
        .prepare(
            Job::Chat {
                messages,
                tools: Tools::default(),
                generation,
            },
            Scope::Alone,
        )
        .await?;
    let (_grant, granted) = watch::channel(TOKENS);
    let mut answer = prepared.start(granted);
    while let Some(piece) = answer.pieces.recv().await {
        if matches!(piece?, Piece::Finished(_)) {
            return Ok(());
        }
    }
    anyhow::bail!("the engine went away")
}
