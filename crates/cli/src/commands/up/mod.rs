//! `rialto up`: a whole market on this machine, as one tree of processes.

mod first_trade;
mod supervise;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use rialto_gateway::Store;
use rialto_protocol::ticket::{Peer, Ticket};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use self::supervise::Supervisor;
use crate::{
    args::{self, Place},
    flow, keys,
    market::{Market, Record},
    models, output,
    settings::Settings,
    setup,
};

/// Where everything answers once it runs.
struct Running {
    base_url: String,
    api_key: String,
    market: Market,
}

/// Starts everything, trades once, and serves until it is stopped.
pub(crate) async fn run(settings: &Settings, options: &args::Up) -> Result<()> {
    let started = started_at();
    let _lock = settings.dir.lock("market")?;
    let supervisor = Supervisor::new(settings)?;
    let outcome = tokio::select! {
        outcome = serve(settings, options, &supervisor, started) => outcome,
        () = flow::until_stopped(false) => Ok(()),
    };
    output::say("stopping");
    supervisor.stop().await;
    outcome
}

async fn serve(settings: &Settings, options: &args::Up, supervisor: &Supervisor, started: SystemTime) -> Result<()> {
    output::say("starting a market on this machine");
    let running = start(settings, options, supervisor).await?;
    let trade = first_trade::make(settings, &running, started).await?;
    trade.show(settings)?;
    if options.once {
        return Ok(());
    }
    announce(settings, &running)?;
    std::future::pending().await
}

/// When the user began: `script/up` says it, so that the build counts.
fn started_at() -> SystemTime {
    let given = std::env::var("RIALTO_START_EPOCH_MS")
        .ok()
        .and_then(|text| text.parse().ok());
    given.map_or_else(SystemTime::now, |ms| UNIX_EPOCH + Duration::from_millis(ms))
}

async fn start(settings: &Settings, options: &args::Up, supervisor: &Supervisor) -> Result<Running> {
    let rpc_urls = chain(settings, options, supervisor).await?;
    let models = models::find(&settings.file.provider.models)?;
    let step = output::step("contracts and models");
    let publisher = keys::account(&settings.dir, "publisher/account.json")?;
    let record = setup::found(settings, &rpc_urls, publisher, &models).await?;
    step.done(format_args!("escrow {}", record.contracts.escrow));

    let api_key = api_key(settings).await?;
    // The gateway's node must be known before anybody can join, and its ticket before it can start: the first ticket
    // names no meeting place yet.
    write_ticket(settings, &record, &rpc_urls, Vec::new())?;
    let listen = options.listen.or(settings.file.gateway.listen);
    let listen = address(
        supervisor,
        listen.unwrap_or_else(|| super::gateway::DEFAULT_LISTEN.into()),
        "--listen",
    )?;
    let step = output::step("gateway");
    let relay: Vec<&str> = options.relay.iter().flat_map(|url| ["--relay", url]).collect();
    let listen = listen.to_string();
    let arguments = [&["gateway", "--listen", &listen], relay.as_slice()].concat();
    let ready = supervisor.start("gateway", &arguments).await?;
    let base_url = text(&ready, "base_url")?;
    step.done(&base_url);
    let meeting: Peer = serde_json::from_value(ready.get("node").cloned().unwrap_or_default())?;
    let market = write_ticket(settings, &record, &rpc_urls, vec![meeting])?;

    let step = output::step("provider");
    let ready = supervisor
        .start("provider", &[&["provide"], relay.as_slice()].concat())
        .await?;
    step.done(format_args!("sells {}", names(&ready)));
    Ok(Running {
        base_url,
        api_key,
        market,
    })
}

/// Where the chain answers: as flags or the file say, else an embedded one that is started.
async fn chain(settings: &Settings, options: &args::Up, supervisor: &Supervisor) -> Result<Vec<String>> {
    let given = [options.rpc_url.clone(), settings.file.rpc_urls()];
    if let Some(urls) = given.into_iter().find(|urls| !urls.is_empty()) {
        return Ok(urls);
    }
    let listen = options.chain_listen.or(settings.file.chain.listen);
    let listen = address(
        supervisor,
        listen.unwrap_or_else(|| super::chain::DEFAULT_LISTEN.into()),
        "--chain-listen",
    )?;
    let step = output::step("development chain");
    let ready = supervisor
        .start("chain", &["chain", "--listen", &listen.to_string()])
        .await?;
    let url = text(&ready, "rpc_url")?;
    step.done(&url);
    Ok(vec![url])
}

fn write_ticket(settings: &Settings, record: &Record, rpc_urls: &[String], meeting: Vec<Peer>) -> Result<Market> {
    let (chain_id, contracts) = (record.chain_id, record.contracts);
    let ticket = Ticket {
        chain_id,
        rpc_url: record.rpc_url.clone(),
        contracts,
        meeting,
    };
    let place = Place {
        ticket: Some(ticket.to_string()),
        rpc_url: rpc_urls.to_vec(),
        ..Place::default()
    };
    let market = Market::find(settings, &place)?;
    market.remember(settings)?;
    Ok(market)
}

/// The API key that this data directory's owner uses; kept in a file that only the owner can read, while the gateway
/// itself knows its hash alone.
async fn api_key(settings: &Settings) -> Result<String> {
    settings.dir.folder("gateway")?;
    let store = Store::open(&settings.dir.path(super::gateway::STORE)).await?;
    if let Some(key) = settings.dir.read(super::gateway::API_KEY)?
        && store.find_key(key.trim()).await?.is_some()
    {
        return Ok(key.trim().to_owned());
    }
    let key = store.create_key("owner", None).await?;
    store.close().await;
    settings.dir.write(super::gateway::API_KEY, &key.secret)?;
    Ok(key.secret)
}

/// A concrete free address, so that a part that is restarted comes back where it was; it is kept for the part.
fn address(supervisor: &Supervisor, wanted: SocketAddr, flag: &str) -> Result<SocketAddr> {
    let (address, socket) = reserve(wanted).with_context(|| {
        format!("{wanted} cannot be used: stop what uses it, or choose another with {flag} ADDRESS")
    })?;
    supervisor.hold(socket);
    Ok(address)
}

/// An address, and a socket that is bound to it and does not listen: while that is held, the system gives the address to
/// nobody who asks for any, and a server can listen there, as often as it is started.
fn reserve(wanted: SocketAddr) -> io::Result<(SocketAddr, TcpSocket)> {
    let socket = match wanted {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(wanted)?;
    Ok((socket.local_addr()?, socket))
}

fn text(ready: &Value, name: &str) -> Result<String> {
    let found = ready.get(name).and_then(Value::as_str).map(str::to_owned);
    found.with_context(|| format!("a part of the market did not say its {name}"))
}

fn names(ready: &Value) -> String {
    let models = ready.get("models").and_then(Value::as_array).into_iter().flatten();
    models.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn announce(settings: &Settings, running: &Running) -> Result<()> {
    let Running {
        base_url,
        api_key,
        market,
    } = running;
    let rpc_url = &market.ticket.rpc_url;
    let value = json!({
        "base_url": base_url, "api_key": api_key, "rpc_url": rpc_url,
        "chain_id": market.ticket.chain_id, "contracts": market.ticket.contracts, "ticket": market.ticket.to_string(),
    });
    output::either(settings.json, &value, || {
        output::line(format_args!(
            "\nThe market serves. Any OpenAI client works:\n\n  \
             OPENAI_BASE_URL={base_url}\n  OPENAI_API_KEY={api_key}\n\n  \
             curl {base_url}/chat/completions -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \\\n    \
             -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is love?\"}}],\"stream\":true}}'\n\n  \
             chain {id} at {rpc_url}\n  sell from another machine: rialto provide --ticket \"$(rialto ticket)\"\n\n\
             Ctrl-C stops it; the next start goes on with the same chain, keys, balances and channels.",
            model = first_trade::MODEL,
            id = market.ticket.chain_id,
        ));
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_its_parts_also_while_the_part_is_away() {
        let (address, _socket) = reserve(([127, 0, 0, 1], 0).into()).unwrap();
        for _ in 0..2 {
            let part = TcpListener::bind(address).unwrap();
            assert!(reserve(address).is_err(), "two would serve there");
            drop(part);
            // Nobody who does not know of it is given it.
            assert!(TcpSocket::new_v4().unwrap().bind(address).is_err());
        }
    }
}
