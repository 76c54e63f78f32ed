//! What honest clients notice of ten thousand connections that only cost: half-open ones, heads and bodies that drip, and
//! answers that are not read. The attackers are a process of their own, come from many addresses of this machine (on which
//! the gateway counts no connections by address), and come back whenever they are dropped. Rounds with and without them
//! take turns.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rialto_benches::{Report, median, routers::percentile};
use rialto_engine::SimulatedConfig;
use rialto_testkit::market::{MODEL, Market, Plan};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

const ATTACKERS: usize = 10_000;
const ROUNDS: usize = 3;
const MEASURED: Duration = Duration::from_secs(12);
/// Honest clients that keep their connection, and as many that open one for each request.
const HONEST: usize = 8;
const TOKENS: u64 = 16;
/// Between two bytes of what drips.
const DRIP: Duration = Duration::from_secs(2);
/// Before an attacker that was dropped comes back.
const PAUSE: Duration = Duration::from_secs(1);
/// Addresses that attackers come from: one has too few ports for all of their connections, old ones included.
const ADDRESSES: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, gateway] = arguments.as_slice()
        && word == "attack"
    {
        return attack(gateway.parse()?).await;
    }
    let market = Market::start(Plan {
        engine: SimulatedConfig {
            slots: 64,
            first_token: Duration::from_millis(20),
            token_interval: Duration::from_millis(2),
            ..Plan::default().engine
        },
        ..Plan::default()
    })
    .await?;
    // Channels are open before the clock starts.
    honest(&market, Duration::from_secs(2)).await?;
    let (mut quiet, mut attacked, mut ratios) = (Figures::default(), Figures::default(), Vec::new());
    for _ in 0..ROUNDS {
        let before = honest(&market, MEASURED).await?;
        let attackers = Attackers::start(market.gateway().local_addr()).await?;
        let during = honest(&market, MEASURED).await?;
        attacked.open.push(gauge(&market).await?);
        attackers.stop().await?;
        ratios.push([50, 99].map(|percent| percentile(&during, percent) / percentile(&before, percent)));
        quiet.note(&before);
        attacked.note(&during);
        forgotten(&market).await?;
    }
    let mut report = Report::new("slow_connections");
    quiet.tell(&mut report, "nobody else");
    attacked.tell(&mut report, "beside 10,000 slow connections");
    report.row("open at the gateway", median(attacked.open), "connections");
    for (place, what) in ["p50", "p99"].into_iter().enumerate() {
        let each = ratios.iter().filter_map(|round| round.get(place)).copied().collect();
        report.row(format!("{what}, attacked against not"), median(each), "times");
    }
    report.finish()?;
    market.stop().await
}

/// Figures of each round.
#[derive(Default)]
struct Figures {
    middle: Vec<f64>,
    most: Vec<f64>,
    answers: Vec<f64>,
    open: Vec<f64>,
}

impl Figures {
    fn note(&mut self, round: &[f64]) {
        self.middle.push(percentile(round, 50) / 1e3);
        self.most.push(percentile(round, 99) / 1e3);
        self.answers
            .push(f64::from(u32::try_from(round.len()).unwrap_or(u32::MAX)) / MEASURED.as_secs_f64());
    }

    fn tell(&self, report: &mut Report, who: &str) {
        report.row(format!("{who}: p50"), median(self.middle.clone()), "ms");
        report.row(format!("{who}: p99"), median(self.most.clone()), "ms");
        report.row(format!("{who}: answers"), median(self.answers.clone()), "a second");
    }
}

/// Honest traffic for a time: microseconds that each answer took. Any failure ends the bench.
async fn honest(market: &Market, time: Duration) -> Result<Vec<f64>> {
    let until = Instant::now() + time;
    let clients = (0..2 * HONEST).map(|number| {
        let keeps = (number % 2 == 0).then(|| market.client());
        async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let client = keeps.clone().unwrap_or_else(|| market.client());
                let started = Instant::now();
                let answer = client.chat(MODEL, &format!("question {number}"), TOKENS).await;
                answer.with_context(|| format!("an honest client, number {number}"))?;
                took.push(started.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(took)
        }
    });
    Ok(try_join_all(clients).await?.concat())
}

/// The connections that the gateway says are open.
async fn gauge(market: &Market) -> Result<f64> {
    let (status, text) = market.client().get("/metrics").await?;
    ensure!(status == 200, "/metrics answers {status}");
    let text = text.as_str().context("/metrics is no text")?.to_owned();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("rialto_gateway_connections "));
    Ok(line.context("no gauge of connections")?.trim().parse()?)
}

/// Waits until the gateway has forgotten the attackers.
async fn forgotten(market: &Market) -> Result<()> {
    let gone = async {
        while gauge(market).await? > 100.0 {
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(60), gone)
        .await
        .context("attackers are still there")?
}

/// The process of the attackers.
struct Attackers(Child);

impl Attackers {
    /// Starts it and waits until all of them are there.
    async fn start(gateway: SocketAddr) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["attack", &gateway.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut said = String::new();
        let told = child.stdout.take().context("no pipe")?;
        let heard = timeout(Duration::from_secs(60), BufReader::new(told).read_line(&mut said)).await;
        ensure!(
            heard.context("the attackers do not come up")?? > 0,
            "the attackers are gone"
        );
        Ok(Self(child))
    }

    async fn stop(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        ensure!(self.0.wait().await?.success(), "the attackers failed");
        Ok(())
    }
}

/// What an attacker does.
#[derive(Debug, Clone, Copy)]
enum Trick {
    /// Says nothing.
    HalfOpen,
    /// Sends a head that never ends, byte by byte.
    Head,
    /// Announces a body and sends it byte by byte.
    Body,
    /// Asks now and then, and reads nothing.
    Deaf,
}

impl Trick {
    fn of(number: usize) -> Self {
        match number % 10 {
            0..4 => Self::HalfOpen,
            4..8 => Self::Head,
            8 => Self::Body,
            _ => Self::Deaf,
        }
    }

    async fn play(self, mut stream: TcpStream) -> Result<()> {
        match self {
            Self::HalfOpen => {
                // Ends when the gateway has had enough.
                stream.read_to_end(&mut Vec::new()).await?;
                Ok(())
            }
            Self::Head => {
                stream
                    .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: rialto\r\nX-Slow: ")
                    .await?;
                drip(&mut stream).await
            }
            Self::Body => {
                let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: rialto\r\nAuthorization: Bearer rk-none\r\n\
                            Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{";
                stream.write_all(head.as_bytes()).await?;
                drip(&mut stream).await
            }
            Self::Deaf => loop {
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nHost: rialto\r\n\r\n")
                    .await?;
                sleep(5 * DRIP).await;
            },
        }
    }
}

async fn drip(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [0];
    loop {
        // What is said back is read, so that the end of the connection is noticed.
        match timeout(DRIP, stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => return Ok(()),
            Ok(Ok(_)) => {}
            Err(_) => stream.write_all(b"x").await?,
        }
    }
}

/// Ten thousand attackers, until nobody holds the other end of the standard input.
#[expect(clippy::print_stdout, reason = "the bench is told when all are there")]
async fn attack(gateway: SocketAddr) -> Result<()> {
    let there = Arc::new(AtomicUsize::new(0));
    for number in 0..ATTACKERS {
        tokio::spawn(attacker(gateway, number, Arc::clone(&there)));
    }
    while there.load(Relaxed) < ATTACKERS {
        sleep(Duration::from_millis(20)).await;
    }
    println!("{ATTACKERS} attackers are there");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Comes, plays its trick until it is dropped, and comes back.
async fn attacker(gateway: SocketAddr, number: usize, there: Arc<AtomicUsize>) {
    // So that they do not all come in one moment.
    sleep(Duration::from_millis(u64::try_from(number / 4).unwrap_or(0))).await;
    let mut first = true;
    loop {
        if let Ok(stream) = connect(gateway, number).await {
            there.fetch_add(usize::from(std::mem::take(&mut first)), Relaxed);
            // That it was dropped is what is expected.
            drop(Trick::of(number).play(stream).await);
        }
        sleep(PAUSE).await;
    }
}

async fn connect(gateway: SocketAddr, number: usize) -> Result<TcpStream> {
    let last = u8::try_from(2 + number % ADDRESSES)?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))?;
    Ok(socket.connect(gateway).await?)
}
