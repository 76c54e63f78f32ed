//! A way to a chain that can be cut, and mended again: bytes pass through, or nothing does.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};

/// A forwarding port. It ends when this is dropped.
pub struct Proxy {
    rpc_url: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    cut: AtomicBool,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Forwards to an RPC address `http://host:port` of this machine.
    pub fn to(rpc_url: &str) -> Result<Self> {
        let target = rpc_url.trim_start_matches("http://").trim_end_matches('/');
        let target = target.parse().with_context(|| format!("the address {rpc_url}"))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let rpc_url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            target,
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                if !accepting.cut.load(Ordering::SeqCst) {
                    // A connection that cannot be made is one that is cut.
                    drop(accepting.connect(client));
                }
            }
        });
        Ok(Self { rpc_url, shared })
    }

    /// Where it answers.
    pub fn rpc_url(&self) -> &str {
        &self.rpc_url
    }

    /// Ends every connection; new ones are ended at once.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.end_all();
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        let address = self.rpc_url.trim_start_matches("http://").parse::<SocketAddr>();
        // Wakes the accepting thread, which ends.
        drop(address.map(TcpStream::connect));
    }
}

impl Shared {
    fn connect(&self, client: TcpStream) -> std::io::Result<()> {
        let server = TcpStream::connect(self.target)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            std::thread::spawn(move || pass(from, to));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend([client, server]);
        drop(open);
        if self.cut.load(Ordering::SeqCst) {
            self.end_all();
        }
        Ok(())
    }

    fn end_all(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// Passes bytes on until one side ends.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let Some(bytes) = buffer.get(..read) else { break };
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
