//! A seller whose model runs on somebody else's server: llama.cpp's own, killed in the middle of an answer.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rialto_testkit::{
    PATIENCE,
    client::Streamed,
    process::{Up, repository},
};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::{bill, lives::MODEL};

/// The server's program; `None` on machines for which there is none.
fn program() -> Result<Option<PathBuf>> {
    let program = repository().join("target/upstream/bin/llama-server");
    if program.is_file() {
        return Ok(Some(program));
    }
    let has_wheel = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    ensure!(
        !has_wheel,
        "llama.cpp's server is missing: tests/upstream/install.sh fetches it"
    );
    Ok(None)
}

/// A running server. It is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(program: &Path, port: u16) -> Result<Self> {
        let child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args([
                "--alias",
                "bard",
                "--parallel",
                "2",
                "--ctx-size",
                "1024",
                "--threads",
                "1",
            ])
            .arg("--model")
            .arg(repository().join("models/shakespeare/shakespeare-q8_0.gguf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self(child);
        // It listens before it has loaded the model, and says so.
        let ready = || -> Result<bool> {
            let mut asked = std::net::TcpStream::connect(("127.0.0.1", port))?;
            std::io::Write::write_all(&mut asked, b"GET /health HTTP/1.0\r\n\r\n")?;
            Ok(std::io::read_to_string(asked)?.contains(" 200 "))
        };
        let until = Instant::now() + PATIENCE;
        while !ready().unwrap_or(false) {
            ensure!(Instant::now() < until, "the server does not start");
            let ended = server.0.try_wait()?;
            ensure!(ended.is_none(), "the server does not run on this machine: {ended:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// A port that is the server's also while it is away: bound and not listened on, so that nobody is given it who asks for any,
/// and whoever says that it shares can listen there.
fn reserved() -> Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// Units of output that the latest receipt bills.
fn billed(up: &Up) -> Result<u64> {
    let rows = up.ask(&["receipts", "--limit", "10000"])?;
    let receipts = rows.as_array().context("a list of receipts")?.iter();
    let latest = receipts
        .filter_map(|row| row.pointer("/signed/receipt"))
        .max_by_key(|receipt| receipt.get("sequence").and_then(Value::as_u64));
    let usage = latest.and_then(|receipt| receipt.pointer("/usage/output"));
    usage.and_then(Value::as_u64).context("a receipt's units of output")
}

#[tokio::test]
async fn a_model_on_a_real_server_is_sold_paid_for_and_outlives_the_servers_death() -> Result<()> {
    let Some(program) = program()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (_reserved, port) = reserved()?;
    // The provider is there first, and waits for the server.
    let late = {
        let program = program.clone();
        move || {
            std::thread::sleep(Duration::from_secs(2));
            Server::start(&program, port)
        }
    };
    let server = std::thread::spawn(late);
    let config = folder.path().join("config.toml");
    let manifest = repository().join("models/shakespeare/manifest-q8_0.toml");
    let text = format!(
        "[[provider.upstream]]\nmanifest = {manifest:?}\nurl = \"http://127.0.0.1:{port}\"\nmodel = \"bard\"\n"
    );
    std::fs::write(&config, text)?;
    let config = config.to_str().context("a path")?;
    let market = folder.path().join("market");
    // The first trade is made with it before the market says that it serves: asked, answered, paid, receipted, redeemed.
    let up = Up::start(&market, &["--chain-listen", "127.0.0.1:0", "--config", config])?;
    let mut server = server.join().map_err(|_| anyhow::anyhow!("the server's thread"))??;
    let trade = up.first_trade()?;
    ensure!(
        trade.pointer("/receipt/usage/output").and_then(Value::as_u64) > Some(0),
        "{trade}"
    );
    let client = up.client()?;

    let whole = client.continue_text(MODEL, "KING HENRY V:\n", 60, |_| true).await?;
    ensure!(whole.done && whole.error.is_none() && whole.deltas > 10, "{whole:?}");
    let usage = whole.usage.as_ref().context("usage")?;
    ensure!(
        usage.get("completion_tokens").and_then(Value::as_u64) == Some(60),
        "{usage}"
    );
    ensure!(billed(&up)? == 60, "{} tokens were billed", billed(&up)?);

    let mut killed = false;
    let cut = client
        .continue_text(MODEL, "KING RICHARD III:\n", 480, |so_far: &Streamed| {
            if so_far.deltas >= 3 && !killed {
                killed = server.kill().is_ok();
            }
            true
        })
        .await?;
    ensure!(killed, "the answer was over before the kill: {cut:?}");
    // Each delta is a token at least, and what was not made any more is not billed. A fast machine may have had all of
    // it on its way already.
    let (seen, billed) = (u64::try_from(cut.deltas)?, billed(&up)?);
    ensure!(cut.done || cut.error.is_some(), "the stream just ended: {cut:?}");
    ensure!(
        (seen..=480).contains(&billed) && (cut.done || billed < 480),
        "{billed} tokens were billed, {seen} deltas seen"
    );
    let gone = client.chat(MODEL, "Art thou there?", 8).await;
    ensure!(gone.is_err(), "a server that is dead answered: {gone:?}");

    let _server = Server::start(&program, port)?;
    let again = async {
        while client.chat(MODEL, "Art thou there?", 8).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .context("the server is not picked up again")?;
    bill::settles(&up, true).await?;
    up.stop()
}
