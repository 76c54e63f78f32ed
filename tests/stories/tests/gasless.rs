//! A buyer that has stablecoin and never a coin for gas: sellers send what it signs, and whoever likes takes its money out
//! for it. On both chains.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use rialto_network::{Incoming, Node, NodeConfig};
use rialto_protocol::{
    Address, ChannelId, Digest, MicroDollars, Price, Region, SigningKey,
    offer::Offer,
    order::{Order, SignedOrder},
    wire::{OffersRequest, OffersResponse},
};
use rialto_settlement::{Chain, Mirror, Wallet, fund_native};
use rialto_testkit::{
    PATIENCE,
    process::{Anvil, Up, cast},
};
use serde_json::Value;

use crate::{bill, lives::MODEL};

#[tokio::test]
async fn a_buyer_without_gas_token_buys_on_the_embedded_chain() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = config(folder.path())?;
    let place = folder.path().join("market");
    let up = Up::start(&place, &["--chain-listen", "127.0.0.1:0", "--config", &config])?;
    whole_life(&up).await?;
    up.stop()
}

#[tokio::test]
async fn a_buyer_without_gas_token_buys_on_anvil() -> Result<()> {
    let (folder, anvil) = (tempfile::tempdir()?, Anvil::start()?);
    let config = config(folder.path())?;
    let place = folder.path().join("market");
    let up = Up::start(&place, &["--rpc-url", anvil.rpc_url(), "--config", &config])?;
    whole_life(&up).await?;
    up.stop()
}

/// Blocks are held back: an answer that waited for one would never come.
#[tokio::test]
async fn the_first_trade_with_a_new_seller_waits_for_no_block() -> Result<()> {
    let (folder, anvil) = (tempfile::tempdir()?, Anvil::start()?);
    let config = config(folder.path())?;
    let place = folder.path().join("market");
    let up = Up::start(&place, &["--rpc-url", anvil.rpc_url(), "--config", &config])?;
    up.first_trade()?;
    let chain = up.chain()?;
    let mine = |on: &str| cast(&["rpc", "--rpc-url", anvil.rpc_url(), "evm_setAutomine", on]);
    mine("false")?;
    let before = chain.block_number().await?;
    let channels = bill::bought(&up)?.len();
    // A channel is for one model: this one has none yet.
    crate::lives::predicts(&up.client()?).await?;
    ensure!(
        chain.block_number().await? == before,
        "a block came: this story shows nothing"
    );
    ensure!(
        bill::bought(&up)?.len() == channels + 1,
        "the answer was paid for on a channel that was open before"
    );
    cast(&["rpc", "--rpc-url", anvil.rpc_url(), "evm_mine"])?;
    mine("true")?;
    // The block has come: the money is there, and what was earned before it is claimed as any other.
    crate::lives::predicts(&up.client()?).await?;
    bill::settles(&up, true).await?;
    up.stop()
}

fn config(folder: &Path) -> Result<String> {
    let path = folder.join("config.toml");
    std::fs::write(&path, "[gateway]\ngas = \"seller\"\n")?;
    Ok(path.to_str().context("a path")?.to_owned())
}

async fn whole_life(up: &Up) -> Result<()> {
    let chain = up.chain()?;
    let buyer: Address = account(up, "buyer", "account")?.parse()?;
    up.first_trade()?;
    let client = up.client()?;
    for _ in 0..3 {
        client.chat(MODEL, "Shall I compare thee?", 24).await?;
    }
    ensure!(
        chain.native_balance(buyer).await? == 0,
        "the buyer has coins: this story shows nothing"
    );
    let paid = bill::settles(up, true).await?;
    let spent: u128 = paid.values().map(|nano| nano.div_ceil(1_000)).sum();
    ensure!(spent > 0, "nothing was bought: {paid:?}");
    let before = everything(&chain, buyer).await?;

    // The buyer signs that its channels close; another account sends it.
    for id in paid.keys() {
        let order = up.ask(&["channel", "close", id, "--sign"])?;
        relay(up, &order)?;
        ensure!(relay(up, &order).is_err(), "an order was carried out twice");
        ensure!(
            chain.channel(id.parse()?).await?.closes_at > 0,
            "no close was asked for"
        );
    }
    let rpc_url = up.said("rpc_url")?;
    cast(&["rpc", "--rpc-url", &rpc_url, "evm_increaseTime", "90000"])?;
    cast(&["rpc", "--rpc-url", &rpc_url, "evm_mine"])?;
    // The gateway notices, and has its seller finish what it cannot send itself.
    for id in paid.keys() {
        until_closed(&chain, id.parse()?).await?;
    }

    let free = chain.free_balance(buyer).await?;
    ensure!(free > MicroDollars::ZERO, "nothing came back");
    let order = up.ask(&["wallet", "withdraw", "all", "--sign"])?;
    let mut stolen: SignedOrder = serde_json::from_value(order.clone())?;
    if let Order::Withdraw { payer, .. } = &mut stolen.order {
        *payer = account(up, "provider", "account")?.parse()?;
    }
    ensure!(
        relay(up, &serde_json::to_value(stolen)?).is_err(),
        "an order was changed"
    );
    relay(up, &order)?;

    // To the last unit: all that the buyer ever had is in its account, but for what it bought.
    let outside = chain.token_balance(buyer).await?;
    ensure!(
        chain.free_balance(buyer).await? == MicroDollars::ZERO,
        "something is left in the escrow"
    );
    ensure!(outside.get() == before, "{outside} in the account, {before} expected");
    ensure!(chain.native_balance(buyer).await? == 0, "the buyer had a coin");
    bill::settles(up, true).await?;
    let mut mirror = Mirror::begin(&chain, 0).await?;
    mirror.catch_up(&chain).await?;
    let held = chain.token_balance(chain.contracts().escrow).await?;
    ensure!(mirror.books().owed() == held.get(), "{held} held: {:?}", mirror.books());
    Ok(())
}

/// What belongs to an account: outside, free, and what its channels have not paid.
async fn everything(chain: &Chain, account: Address) -> Result<u128> {
    let mut mirror = Mirror::begin(chain, 0).await?;
    mirror.catch_up(chain).await?;
    let channels = mirror.books().channels.values();
    let own = channels.filter(|channel| channel.params.payer == account && !channel.state.closed);
    let inside: u128 = own.map(|channel| channel.state.remainder().get()).sum();
    let outside = chain.token_balance(account).await?.get() + chain.free_balance(account).await?.get();
    Ok(outside + inside)
}

async fn until_closed(chain: &Chain, channel: ChannelId) -> Result<()> {
    let wait = async {
        while !chain.channel(channel).await?.closed {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .context("the channel was not closed")?
}

/// Sends an order from the provider's account.
fn relay(up: &Up, order: &Value) -> Result<Value> {
    let file = up.data_dir().join("order.json");
    std::fs::write(&file, order.to_string())?;
    let file = file.to_str().context("a path")?;
    up.ask(&["wallet", "relay", file, "--role", "provider"])
}

fn account(up: &Up, role: &str, field: &str) -> Result<String> {
    let wallet = up.ask(&["wallet"])?;
    let rows = wallet.as_array().into_iter().flatten();
    let row = rows
        .into_iter()
        .find(|row| row.get("role").and_then(Value::as_str) == Some(role));
    let value = row.and_then(|row| row.get(field)).and_then(Value::as_str);
    value.map(str::to_owned).with_context(|| format!("no {role}"))
}

#[tokio::test]
async fn a_seller_that_lies_about_relaying_gains_nothing_and_another_is_asked() -> Result<()> {
    // It is avoided after the first time, and asked again later. It keeps as many orders as it likes: they are all for the
    // same channel.
    let channels = beside_a_liar(false, 2).await?;
    ensure!(channels == 1, "it was given orders for {channels} channels");
    Ok(())
}

#[tokio::test]
async fn a_seller_that_lends_and_sends_nothing_gains_nothing_and_another_is_asked() -> Result<()> {
    beside_a_liar(true, 1).await?;
    Ok(())
}

/// A market with a liar in it: every request is answered, by the honest seller, until the liar was asked so often and once
/// more. Returns for how many channels it was given orders to relay.
async fn beside_a_liar(lends: bool, times: usize) -> Result<usize> {
    let folder = tempfile::tempdir()?;
    let config = config(folder.path())?;
    let place = folder.path().join("market");
    let up = Up::start(&place, &["--chain-listen", "127.0.0.1:0", "--config", &config])?;
    up.first_trade()?;
    let chain = up.chain()?;
    let liar = Liar::join(&up, &chain, lends).await?;
    let client = up.client()?;
    let wait = async {
        while liar.asked.load(Ordering::SeqCst) < times {
            client.chat(MODEL, "Who goes there?", 8).await?;
        }
        client.chat(MODEL, "And who is there now?", 8).await
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .context("the liar was not asked, or was waited for")??;
    bill::settles(&up, true).await?;
    let mut mirror = Mirror::begin(&chain, 0).await?;
    mirror.catch_up(&chain).await?;
    ensure!(
        mirror.books().channels_of(liar.account).is_empty(),
        "the liar was trusted with money"
    );
    let channels = liar.channels.lock().map_or(0, |channels| channels.len());
    up.stop()?;
    Ok(channels)
}

/// A registered provider that is cheap, and says of every order that it was sent, or lends on it and sends nothing.
struct Liar {
    account: Address,
    asked: Arc<AtomicUsize>,
    channels: Channels,
}

/// The channels that orders were about.
type Channels = Arc<Mutex<BTreeSet<ChannelId>>>;

impl Liar {
    async fn join(up: &Up, chain: &Chain, lends: bool) -> Result<Self> {
        let (rich, key) = (rich()?, SigningKey::from_bytes(&[66; 32])?);
        let (account, stake) = (key.address(), MicroDollars::new(100_000_000));
        let node = Node::bind(NodeConfig {
            secret: [66; 32].into(),
            listen: ([127, 0, 0, 1], 0).into(),
            relay: None,
        })
        .await?;
        fund_native(chain, &rich, account, 10u128.pow(17)).await?;
        let wallet = Wallet::new(chain.clone(), SigningKey::from_bytes(&[66; 32])?);
        wallet.mint(account, stake).await?;
        wallet
            .register_provider(stake, node.key(), Region::default(), Digest::default())
            .await?;
        let meeting = up.ticket()?.meeting.into_iter().next().context("a meeting peer")?;
        let OffersResponse::Book(book) = node.offers(&meeting, &OffersRequest::Browse).await? else {
            anyhow::bail!("no book");
        };
        let honest = book.into_iter().find(|one| one.manifest.listing() == MODEL);
        let honest = honest.context("nobody sells the model")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let offer = Offer {
            provider: account,
            node: node.key(),
            addresses: node.peer().addresses,
            price: Price {
                input: 1,
                output: 1,
                request: 0,
            },
            load: 0,
            capacity: 64,
            sequence: 1,
            expires_at: now + 500,
            ..honest.offer
        };
        let announced = OffersRequest::Announce(vec![offer.announce(&key, honest.manifest)]);
        let answer = node.offers(&meeting, &announced).await?;
        ensure!(
            matches!(answer, OffersResponse::Noted { accepted: 1, .. }),
            "{answer:?}"
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let channels = Channels::default();
        tokio::spawn(lie(node, Arc::clone(&asked), Arc::clone(&channels), lends));
        Ok(Self {
            account,
            asked,
            channels,
        })
    }
}

async fn lie(node: Node, asked: Arc<AtomicUsize>, channels: Channels, lends: bool) {
    while let Some(incoming) = node.accept().await {
        let Incoming::Offers(_, call) = incoming else { continue };
        let answer = match call.request() {
            OffersRequest::Relay(signed) => {
                if let (Order::Open { channel, .. } | Order::DepositAndOpen { channel, .. }, Ok(mut channels)) =
                    (&signed.order, channels.lock())
                {
                    channels.insert(channel.id());
                }
                asked.fetch_add(1, Ordering::SeqCst);
                OffersResponse::Relayed {
                    transaction: Digest([7; 32]),
                }
            }
            OffersRequest::Begin(_) if lends => {
                asked.fetch_add(1, Ordering::SeqCst);
                OffersResponse::Begun {
                    credit: MicroDollars::new(1),
                }
            }
            _ => OffersResponse::Book(Vec::new()),
        };
        drop(call.answer(&answer).await);
    }
}

/// The first development account of every development chain.
fn rich() -> Result<SigningKey> {
    let secret: Digest = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80".parse()?;
    Ok(SigningKey::from_bytes(&secret.0)?)
}
