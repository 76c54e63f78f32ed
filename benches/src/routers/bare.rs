//! The least that stands between a client and a server: hyper's server and hyper's pooled client, and nothing in between. It
//! checks no key, reads no body, counts nothing and knows one server. What any router on hyper takes is more than this.

use anyhow::Result;
use hyper::{Request, Uri, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

/// Passes everything that comes to a port on to the server at `upstream`.
pub async fn pass_on(port: u16, upstream: &str) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(tcp);
    let place: Uri = format!("{upstream}/v1/chat/completions").parse()?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (client, place) = (client.clone(), place.clone());
        let answer = service_fn(move |mut request: Request<Incoming>| {
            *request.uri_mut() = place.clone();
            client.request(request)
        });
        // A client that breaks off is no failure of ours.
        tokio::spawn(async move {
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), answer)
                    .await,
            )
        });
    }
}
