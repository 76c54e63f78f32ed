//! Whether the gateway lives and could sell something, and what it counted.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use rialto_api::inference::{Live, Ready};

use super::Shared;

pub(crate) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Ready: somebody sells something.
pub(crate) async fn ready(State(desk): Shared) -> Response {
    let ready = !desk.book.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Ready { ready })).into_response()
}

/// For supervisors: answers as long as the store does.
pub(crate) async fn healthz(State(desk): Shared) -> Response {
    let store = desk.store.channels().await.is_ok();
    let status = if store {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::json!({ "store": store, "offers": desk.book.len() });
    (status, Json(body)).into_response()
}

pub(crate) async fn metrics(State(desk): Shared) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], desk.metrics.text()).into_response()
}
