//! The envelope of JSON-RPC.

use super::{error::RpcError, params::Params};
use serde_json::{Map, Value, json};

/// The most requests of one batch.
const MAX_BATCH: usize = 1000;

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    /// Absent for a notification, which gets no response.
    pub(super) id: Option<Value>,
    pub(super) method: String,
    pub(super) params: Params,
}

/// A request, or why it is none.
pub(super) type Parsed = Result<Request, Box<Rejected>>;

/// Something that is no request.
#[derive(Debug)]
pub(super) struct Rejected {
    /// What to answer to; null when it cannot be told.
    pub(super) id: Value,
    pub(super) error: RpcError,
}

/// A request body.
#[derive(Debug)]
pub(super) enum Body {
    Single(Parsed),
    Batch(Vec<Parsed>),
}

/// Reads a request body.
///
/// # Errors
/// When the body as a whole is no request; a bad request inside a batch only spoils itself.
pub(super) fn parse(body: &[u8]) -> Result<Body, RpcError> {
    let value = serde_json::from_slice(body).map_err(|error| RpcError::parse(&error.to_string()))?;
    match value {
        Value::Array(requests) if requests.is_empty() => Err(RpcError::invalid_request("empty batch")),
        Value::Array(requests) if requests.len() > MAX_BATCH => Err(RpcError::invalid_request(&format!(
            "batch of more than {MAX_BATCH} requests"
        ))),
        Value::Array(requests) => Ok(Body::Batch(requests.into_iter().map(parse_one).collect())),
        request => Ok(Body::Single(parse_one(request))),
    }
}

fn parse_one(value: Value) -> Parsed {
    let rejected = |id, error| Box::new(Rejected { id, error });
    let Value::Object(mut object) = value else {
        return Err(rejected(Value::Null, RpcError::invalid_request("not an object")));
    };
    let id = match object.remove("id") {
        id @ (None | Some(Value::Null | Value::Number(_) | Value::String(_))) => id,
        Some(_) => {
            let error = RpcError::invalid_request("id must be a number, a string or null");
            return Err(rejected(Value::Null, error));
        }
    };
    match read_call(object) {
        Ok((method, params)) => Ok(Request { id, method, params }),
        Err(error) => Err(rejected(id.unwrap_or(Value::Null), error)),
    }
}

fn read_call(mut object: Map<String, Value>) -> Result<(String, Params), RpcError> {
    if object.get("jsonrpc").is_some_and(|version| version != "2.0") {
        return Err(RpcError::invalid_request("jsonrpc must be \"2.0\""));
    }
    let Some(Value::String(method)) = object.remove("method") else {
        return Err(RpcError::invalid_request("method must be a string"));
    };
    let params = match object.remove("params") {
        None | Some(Value::Null) => Params::default(),
        Some(Value::Array(values)) => Params::new(values),
        Some(_) => return Err(RpcError::invalid_params("params must be an array")),
    };
    Ok((method, params))
}

/// The response to a failed request.
pub(super) fn failure(id: Value, error: RpcError) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() })
}

/// The response to a body that was too large to read or could not be read whole.
pub(crate) fn oversized(reason: &str) -> Value {
    failure(Value::Null, RpcError::invalid_request(reason))
}
