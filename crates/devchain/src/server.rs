//! HTTP around JSON-RPC.

use crate::{node::Node, rpc};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{CONTENT_TYPE, ORIGIN},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt as _;
use std::{sync::Arc, time::Duration};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The most bytes of a request body.
const MAX_BODY: usize = 4 << 20;

/// The most bytes of a body that are read and forgotten before it is refused.
const MAX_FORGOTTEN: usize = 16 << 20;

/// The routes: one, for JSON-RPC.
pub(crate) fn router(node: Arc<Node>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(|origin, _| is_local(origin)))
        .allow_methods([Method::POST])
        .allow_headers([CONTENT_TYPE])
        .allow_private_network(true)
        .max_age(Duration::from_secs(600));
    Router::new().route("/", post(answer)).layer(cors).with_state(node)
}

async fn answer(State(node): State<Arc<Node>>, headers: HeaderMap, body: Body) -> Response {
    // A browser sends simple requests without asking first, so CORS alone would let any web page write blindly.
    if headers.get(ORIGIN).is_some_and(|origin| !is_local(origin)) {
        let reason = "web pages may use this chain from localhost only";
        return (StatusCode::FORBIDDEN, Json(rpc::oversized(reason))).into_response();
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(status) => {
            let reason = format!("body not readable, or larger than {MAX_BODY} bytes");
            return (status, Json(rpc::oversized(&reason))).into_response();
        }
    };
    match rpc::respond(&node, &body).await {
        Some(response) => Json(response).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Reads a body. One that is too long is read further and forgotten, within bounds: many clients read no answer
/// before they have sent everything, and would see a broken connection instead of the refusal.
///
/// # Errors
///
/// The status to answer with, when the body is too long or breaks off.
async fn read(body: Body) -> Result<Vec<u8>, StatusCode> {
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    let mut length = 0_usize;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        length = length.saturating_add(piece.len());
        if length > MAX_FORGOTTEN {
            break;
        }
        if length <= MAX_BODY {
            whole.extend_from_slice(&piece);
        } else {
            whole = Vec::new();
        }
    }
    if length > MAX_BODY {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Ok(whole)
}

/// Whether a web page comes from this machine or is a wallet's own page.
fn is_local(origin: &HeaderValue) -> bool {
    let Some((scheme, rest)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    match scheme {
        "http" | "https" => {
            let host = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
                None => rest.split(':').next().unwrap_or_default(),
            };
            host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" || host == "::1"
        }
        "chrome-extension" | "moz-extension" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_machine_and_wallets_are_local() {
        let local = |origin: &'static str| is_local(&HeaderValue::from_static(origin));
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://app.localhost:8443",
            "http://127.0.0.1:8080",
            "http://[::1]:5173",
            "chrome-extension://nkbihfbeogaeaoehlefnkodbefgpgknn",
        ] {
            assert!(local(origin), "{origin}");
        }
        for origin in [
            "null",
            "https://example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::1].example.com:x@evil",
            "file://",
        ] {
            let foreign = !local(origin) || origin.starts_with("http://[::1]");
            assert!(foreign, "{origin}");
        }
    }
}
