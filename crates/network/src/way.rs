//! The way to the relay: a proxy on loopback that is patient.
//!
//! iroh waits longer after each dial of a relay that failed, half a minute in the end; a relay that was away for ten
//! seconds would be missed for twenty. So iroh dials through this, which holds a dial while the relay is away: it succeeds
//! the moment that the relay is back. It leads to this one relay, whatever it is asked for.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use iroh::{Endpoint, RelayUrl};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Connections at a time: one for each endpoint, and what is left of earlier ones and of probes.
const MAX_CONNECTIONS: usize = 16;

/// Most bytes of the request that opens a connection.
const MAX_HEAD: usize = 8 << 10;

/// How long a dial is held. iroh gives up after as long.
const HELD: Duration = Duration::from_secs(10);

/// Most time for one attempt, and the pause after one that failed.
const ATTEMPT: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(250);

/// A way that is not open yet: connections wait.
pub(crate) struct Way {
    listener: TcpListener,
    relay: Relay,
}

#[derive(Debug, Clone)]
struct Relay {
    host: String,
    port: u16,
}

impl Way {
    /// Opens the socket.
    pub(crate) async fn bind(relay: &RelayUrl) -> io::Result<Self> {
        let host = relay.host_str().unwrap_or_default();
        let relay = Relay {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: relay.port_or_known_default().unwrap_or_default(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { listener, relay })
    }

    /// The proxy's URL.
    pub(crate) fn url(&self) -> io::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Carries until the endpoint is closed.
    pub(crate) async fn serve(self, endpoint: Endpoint) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = async { endpoint.closed().await; } => return,
                accepted = self.listener.accept() => accepted,
            };
            let (Ok((node, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else {
                sleep(PAUSE).await;
                continue;
            };
            let relay = self.relay.clone();
            tokio::spawn(async move {
                if let Err(error) = carry(node, &relay).await {
                    tracing::debug!(%error, "a connection with the relay ended");
                }
                drop(place);
            });
        }
    }
}

async fn carry(mut node: TcpStream, relay: &Relay) -> io::Result<()> {
    let (head, mut relay) = timeout(HELD, async {
        let head = read_head(&mut node).await?;
        io::Result::Ok((head, dial(relay).await))
    })
    .await??;
    node.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    if head.starts_with(b"CONNECT ") {
        node.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    } else {
        // A probe over plain HTTP is asked of a proxy as it is.
        relay.write_all(&head).await?;
    }
    copy_bidirectional(&mut node, &mut relay).await?;
    Ok(())
}

/// Dials until there is an answer.
async fn dial(relay: &Relay) -> TcpStream {
    loop {
        let dial = timeout(ATTEMPT, TcpStream::connect((relay.host.as_str(), relay.port)));
        if let Ok(Ok(stream)) = dial.await {
            return stream;
        }
        sleep(PAUSE).await;
    }
}

async fn read_head(node: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || node.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}
