//! Slow clients against the server, in time that passes only when everybody waits.

use std::time::Duration;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::metrics::Metrics;

const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Room {
    server: Server,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Room {
    fn new() -> Self {
        let limits = ConnectionLimits::default();
        let stop = CancellationToken::new();
        let routes = Router::new()
            .route("/large", get(|| async { vec![b'x'; 4 << 20] }))
            .route("/length", post(|body: String| async move { body.len().to_string() }));
        let connections = Connections::new(limits);
        let metrics = Arc::new(Metrics::new());
        let (swept, counted) = (Arc::clone(&connections), Arc::clone(&metrics));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                swept.sweep(&counted);
            }
        });
        Self {
            server: Server::new(routes, limits, stop.clone()),
            connections,
            metrics,
            stop,
        }
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(1_024);
        let admitted = self.connections.admit(HERE, &self.metrics).unwrap();
        tokio::spawn(self.server.clone().talk(server, admitted));
        client
    }

    fn dropped_as(&self, why: &str) -> bool {
        let line = format!("reason=\"{why}\"");
        self.metrics.text().contains(&line)
    }
}

/// Reads until the other side ends.
async fn read_all(client: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all).await;
    all
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_not_waited_for() {
    let room = Room::new();
    let mut client = room.connect();
    client.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    while client.write_all(b"a: b\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(room.dropped_as("half_open"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_ends() {
    let room = Room::new();
    let mut client = room.connect();
    client
        .write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(room.dropped_as("stalled"));
    assert!(read_all(&mut client).await.len() <= 1_024);
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_byte_now_and_then_is_not_waited_for() {
    let room = Room::new();
    let mut client = room.connect();
    client
        .write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut one = [0; 1];
    while client.read_exact(&mut one).await.is_ok() && !room.dropped_as("stalled") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(room.dropped_as("stalled"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_and_steady_reader_gets_everything() {
    let room = Room::new();
    let mut client = room.connect();
    client
        .write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let (mut sum, mut some) = (0, vec![0; 4_096]);
    loop {
        let read = client.read(&mut some).await.unwrap();
        if read == 0 {
            break;
        }
        sum += read;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(sum > 4 << 20, "{sum}");
}

#[tokio::test(start_paused = true)]
async fn a_head_without_end_is_refused() {
    let room = Room::new();
    let mut client = room.connect();
    client.write_all(b"GET /large HTTP/1.1\r\n").await.unwrap();
    let line = format!("a: {}\r\n", "b".repeat(1_000));
    while client.write_all(line.as_bytes()).await.is_ok() {}
    let told = String::from_utf8(read_all(&mut client).await).unwrap();
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_when_the_server_stops_and_the_idle_leave() {
    let room = Room::new();
    let (mut idle, mut busy) = (room.connect(), room.connect());
    busy.write_all(b"POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    room.stop.cancel();
    room.connections.stop();
    assert!(read_all(&mut idle).await.is_empty());
    busy.write_all(b"cd").await.unwrap();
    let told = String::from_utf8(read_all(&mut busy).await).unwrap();
    assert!(told.ends_with("\r\n\r\n4"), "{told}");
}
