//! JSON-RPC 2.0: reading requests, finding who answers, writing responses.

mod block;
mod call;
mod control;
mod error;
mod fee;
mod filter;
mod network;
mod params;
mod request;
mod state;
mod transaction;

pub(crate) use error::RpcError;
pub(crate) use request::oversized;

use crate::node::Node;
use params::Params;
use request::Parsed;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// What a method answers.
type Answer = Result<Value, RpcError>;

/// How long a transaction waits for the ones before it that are still on their way.
const NONCE_PATIENCE: Duration = Duration::from_secs(2);

/// Answers a request body; `None` when it holds nothing but notifications.
pub(crate) async fn respond(node: &Arc<Node>, body: &[u8]) -> Option<Value> {
    match request::parse(body) {
        Err(error) => Some(request::failure(Value::Null, error)),
        Ok(request::Body::Single(request)) => respond_one(node, request).await,
        Ok(request::Body::Batch(requests)) => {
            let mut responses = Vec::with_capacity(requests.len());
            // One after the other: a batch may send a transaction and then ask for its receipt.
            for request in requests {
                responses.extend(respond_one(node, request).await);
            }
            (!responses.is_empty()).then_some(Value::Array(responses))
        }
    }
}

async fn respond_one(node: &Arc<Node>, request: Parsed) -> Option<Value> {
    let request = match request {
        Ok(request) => request,
        Err(rejected) => return Some(request::failure(rejected.id, rejected.error)),
    };
    let answer = execute(node, Arc::new(request.method), Arc::new(request.params)).await;
    let id = request.id?;
    Some(match answer {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => request::failure(id, error),
    })
}

/// Runs one method off the async threads.
///
/// Requests sent at the same time may arrive out of order. There is no queue of pending transactions, so one
/// whose nonce is a little too high waits here, for a moment, until the missing ones were mined.
async fn execute(node: &Arc<Node>, method: Arc<String>, params: Arc<Params>) -> Answer {
    let deadline = Instant::now() + NONCE_PATIENCE;
    loop {
        let mut changes = node.watch();
        let (worker, method, params) = (Arc::clone(node), Arc::clone(&method), Arc::clone(&params));
        let task = tokio::task::spawn_blocking(move || dispatch(&worker, &method, &params));
        let answer = task
            .await
            .unwrap_or_else(|_| Err(RpcError::internal("method failed unexpectedly")));
        match answer {
            Err(error) if error.waits_for_nonce() => {
                if timeout_at(deadline, changes.changed()).await.is_err() {
                    return Err(error);
                }
            }
            answer => return answer,
        }
    }
}

/// Asks each family of methods in turn.
fn dispatch(node: &Node, method: &str, params: &Params) -> Answer {
    let families = [
        state::call,
        block::call,
        transaction::call,
        call::call,
        fee::call,
        filter::call,
        network::call,
        control::call,
    ];
    let answer = families.iter().find_map(|family| family(node, method, params));
    answer.unwrap_or_else(|| Err(RpcError::method_not_found(method)))
}

/// Turns an answer into JSON.
fn show<T: serde::Serialize>(value: T) -> Answer {
    serde_json::to_value(value).map_err(|error| RpcError::internal(&format!("answer not serialisable: {error}")))
}
