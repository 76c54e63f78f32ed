//! A provider's metrics over HTTP, for Prometheus.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

/// Serves them until the process ends.
pub(crate) async fn serve(address: SocketAddr, registry: Registry) -> Result<()> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("{address} cannot be used: choose another with --metrics-listen"))?;
    let registry = Arc::new(registry);
    let router = Router::new().route("/metrics", get(move || text(registry.clone())));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn text(registry: Arc<Registry>) -> impl IntoResponse {
    let mut text = String::new();
    let status = encode(&mut text, &registry).map_or(StatusCode::INTERNAL_SERVER_ERROR, |()| StatusCode::OK);
    (
        status,
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
}
