//! The public HTTP APIs.

mod answer;
mod attempts;
mod auth;
mod batches;
mod body;
mod chat;
mod completions;
mod edge;
mod embeddings;
mod endpoints;
mod error;
mod files;
mod health;
mod idempotent;
mod infer;
mod model_list;
mod own;
mod query;
mod said;
mod script;
mod serving;
mod stream;
mod upload;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::Uri,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

pub(crate) use attempts::Attempts;
pub(crate) use batches::{Errand, for_home, perform};
pub(crate) use edge::serve;
pub(crate) use error::Failure;
pub(crate) use idempotent::Bells;
pub(crate) use serving::ReplyBody;

use crate::{Error, desk::Desk};

/// A state that every handler shares.
pub(crate) type Shared = State<Arc<Desk>>;

/// All routes.
fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/models", get(model_list::list))
        .route("/v1/models/{*id}", get(model_list::one))
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/files", post(files::create).get(files::list))
        .route("/v1/files/{id}", get(files::one).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", post(batches::create).get(batches::list))
        .route("/v1/batches/{id}", get(batches::one))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v2", get(infer::server))
        .route("/v2/health/live", get(health::live))
        .route("/v2/health/ready", get(health::ready))
        .route("/v2/models/{*rest}", get(infer::get).post(infer::post))
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(health::metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(desk)
}

async fn no_such_path(uri: Uri) -> Response {
    let path = uri.path().chars().take(256).collect();
    error::Failure::from(Error::NoSuchPath { path }).into_response()
}

async fn wrong_method() -> Response {
    error::Failure::from(Error::MethodNotAllowed).into_response()
}
