//! Batches: requests in a file, answered within a day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::file::ExpiresAfter;
use crate::{BadRequest, fault::parse};

/// Most requests of a batch.
pub const MAX_BATCH_REQUESTS: u64 = 50_000;

/// Longest `custom_id`, in bytes.
pub const MAX_CUSTOM_ID: usize = 512;

/// Most pairs of a batch's metadata, and the most characters of a key and of a value.
const MAX_METADATA: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;

/// What all requests of a batch ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchEndpoint {
    /// `/v1/chat/completions`.
    #[serde(rename = "/v1/chat/completions")]
    Chat,
    /// `/v1/completions`.
    #[serde(rename = "/v1/completions")]
    Completion,
    /// `/v1/embeddings`.
    #[serde(rename = "/v1/embeddings")]
    Embedding,
}

impl BatchEndpoint {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Completion, Self::Embedding];

    /// The path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Embedding => "/v1/embeddings",
        }
    }

    /// The endpoint with this path.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.path() == path)
    }
}

/// Where a batch is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// Its file is being read.
    Validating,
    /// Its file cannot be used. The end.
    Failed,
    /// Its requests are being answered.
    InProgress,
    /// Its output is being written.
    Finalizing,
    /// Every request has an outcome. The end.
    Completed,
    /// Its time ran out. The end; what was answered by then is in its output.
    Expired,
    /// It was cancelled; requests under way are still answered.
    Cancelling,
    /// It was cancelled. The end; what was answered by then is in its output.
    Cancelled,
}

impl BatchStatus {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::Failed,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// As it is spelt.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens to it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

/// A batch as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// `batch_…`.
    pub id: String,
    /// Always `batch`.
    pub object: String,
    /// What its requests ask for.
    pub endpoint: BatchEndpoint,
    /// The model that its requests name, if they all name the same.
    pub model: Option<String>,
    /// What is wrong with its file.
    pub errors: Option<BatchErrors>,
    /// The file that it was made of.
    pub input_file_id: String,
    /// Always `24h`.
    pub completion_window: String,
    /// Where it is in its life.
    pub status: BatchStatus,
    /// The file with the answers.
    pub output_file_id: Option<String>,
    /// The file with the requests that failed.
    pub error_file_id: Option<String>,
    /// Times, in seconds since 1970.
    #[serde(flatten)]
    pub times: BatchTimes,
    /// How many requests it has.
    pub request_counts: BatchCounts,
    /// What its answers used.
    pub usage: BatchUsage,
    /// What the client attached to it.
    pub metadata: Option<BTreeMap<String, String>>,
    /// What it cost: an extension.
    pub trade: BatchTrade,
}

/// When what happened to a batch, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchTimes {
    /// Made.
    pub created_at: u64,
    /// Its requests began to be answered.
    pub in_progress_at: Option<u64>,
    /// After this no further request begins.
    pub expires_at: Option<u64>,
    /// Its output began to be written.
    pub finalizing_at: Option<u64>,
    /// Completed.
    pub completed_at: Option<u64>,
    /// Failed.
    pub failed_at: Option<u64>,
    /// Expired.
    pub expired_at: Option<u64>,
    /// Cancelled by its owner.
    pub cancelling_at: Option<u64>,
    /// Its last request under way had ended after that.
    pub cancelled_at: Option<u64>,
}

/// How many requests a batch has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCounts {
    /// In its file.
    pub total: u64,
    /// Answered.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
}

/// What a batch's answers used, by their receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchUsage {
    /// Units of input.
    pub input_tokens: u64,
    /// Always zeros; clients expect it.
    pub input_tokens_details: InputDetails,
    /// Units of output.
    pub output_tokens: u64,
    /// Always zeros; clients expect it.
    pub output_tokens_details: OutputDetails,
    /// Both.
    pub total_tokens: u64,
}

/// Details of [`BatchUsage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDetails {
    /// Not counted.
    pub cached_tokens: u64,
}

/// Details of [`BatchUsage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputDetails {
    /// Not counted.
    pub reasoning_tokens: u64,
}

/// What a batch cost so far, in nano-dollars as decimal text: numbers of JSON's readers lose digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchTrade {
    /// The sum of its receipts.
    pub cost_nanodollars: String,
    /// What the same units cost at the lowest posted price of the time.
    pub posted_nanodollars: String,
    /// The difference; negative where the lowest posted price could not be had.
    pub savings_nanodollars: String,
}

/// What is wrong with a batch's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchErrors {
    /// Always `list`.
    pub object: String,
    /// The first few.
    pub data: Vec<BatchError>,
}

/// One thing that is wrong with a batch's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// The line at fault; the first is 1.
    pub line: Option<u64>,
}

impl BatchError {
    /// A line that cannot be used.
    pub fn at(line: u64, bad: BadRequest) -> Self {
        Self {
            code: bad.code.to_owned(),
            message: bad.message,
            param: bad.param,
            line: Some(line),
        }
    }
}

/// `POST /v1/batches`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRequest {
    /// The file with the requests.
    pub input_file_id: String,
    /// What they ask for.
    pub endpoint: BatchEndpoint,
    /// What the client attaches.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Seconds after which the output's files are gone.
    pub output_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct RawBatch {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<BTreeMap<String, String>>,
    output_expires_after: Option<ExpiresAfter>,
}

impl BatchRequest {
    /// Reads and checks a body. The error names the field at fault.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let raw: RawBatch = parse(body)?;
        let endpoint = BatchEndpoint::of(&raw.endpoint).ok_or_else(|| {
            BadRequest::value(
                "endpoint",
                "must be '/v1/chat/completions', '/v1/completions' or '/v1/embeddings'",
            )
        })?;
        if raw.completion_window != "24h" {
            return Err(BadRequest::value("completion_window", "must be '24h'"));
        }
        if let Some(metadata) = &raw.metadata {
            check_metadata(metadata)?;
        }
        let after = raw.output_expires_after.as_ref();
        Ok(Self {
            output_seconds: after.map(|after| after.checked("output_expires_after")).transpose()?,
            input_file_id: raw.input_file_id,
            endpoint,
            metadata: raw.metadata,
        })
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), BadRequest> {
    if metadata.len() > MAX_METADATA {
        return Err(BadRequest::value("metadata", format!("at most {MAX_METADATA} pairs")));
    }
    for (key, value) in metadata {
        if key.chars().count() > MAX_METADATA_KEY || value.chars().count() > MAX_METADATA_VALUE {
            let reason = format!("a key has at most {MAX_METADATA_KEY} characters and a value {MAX_METADATA_VALUE}");
            return Err(BadRequest::value("metadata", reason));
        }
    }
    Ok(())
}

/// One line of a batch's file, checked.
#[derive(Debug, Clone)]
pub struct BatchLine {
    /// What the client calls it; in a file only once.
    pub custom_id: String,
    /// The body of the request: a JSON object, as it was written.
    pub body: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine {
    custom_id: String,
    method: String,
    url: String,
    body: Box<RawValue>,
}

impl BatchLine {
    /// Reads and checks a line without its line feed. Whether the body can be answered shows when it is asked.
    pub fn parse(line: &[u8], endpoint: BatchEndpoint) -> Result<Self, BadRequest> {
        let raw: RawLine = parse(line)?;
        if raw.custom_id.is_empty() || raw.custom_id.len() > MAX_CUSTOM_ID {
            let reason = format!("must have between 1 and {MAX_CUSTOM_ID} bytes");
            return Err(BadRequest::value("custom_id", reason));
        }
        if raw.method != "POST" {
            return Err(BadRequest::value("method", "must be 'POST'"));
        }
        if raw.url != endpoint.path() {
            let reason = format!("must be '{}', the endpoint of the batch", endpoint.path());
            return Err(BadRequest::value("url", reason));
        }
        if !raw.body.get().starts_with('{') {
            return Err(BadRequest::value("body", "must be a JSON object"));
        }
        Ok(Self {
            custom_id: raw.custom_id,
            body: raw.body,
        })
    }
}

/// One line of a batch's output or of its errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// `batch_req_…`: the same however often a request is looked at.
    pub id: String,
    /// What the client calls the request.
    pub custom_id: String,
    /// What it was answered.
    pub response: Option<BatchResponse>,
    /// Why it was not asked, or what is not known of its answer.
    pub error: Option<BatchFailure>,
}

/// An answer to one request of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchResponse {
    /// The status of HTTP that the request alone would have had.
    pub status_code: u16,
    /// Its id.
    pub request_id: String,
    /// Its body.
    pub body: Value,
}

/// Why a request of a batch has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchFailure {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn request(change: impl FnOnce(&mut Value)) -> Result<BatchRequest, BadRequest> {
        let mut body = json!({
            "input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"
        });
        change(&mut body);
        BatchRequest::parse(body.to_string().as_bytes())
    }

    fn param(result: Result<BatchRequest, BadRequest>) -> String {
        result.unwrap_err().param.unwrap()
    }

    #[test]
    fn a_request_is_checked_field_by_field() {
        let plain = request(|_| {}).unwrap();
        assert_eq!((plain.endpoint, plain.output_seconds), (BatchEndpoint::Chat, None));
        assert_eq!(
            param(request(|body| body["endpoint"] = json!("/v1/responses"))),
            "endpoint"
        );
        assert_eq!(
            param(request(|body| body["completion_window"] = json!("1h"))),
            "completion_window"
        );
        assert_eq!(
            param(request(|body| body["input_file_id"] = Value::Null)),
            "input_file_id"
        );
        assert_eq!(param(request(|body| body["metadata"] = json!({"a": 1}))), "metadata.a");
        let long = json!({ "a".repeat(65): "b" });
        assert_eq!(param(request(|body| body["metadata"] = long)), "metadata");
        let after = json!({"anchor": "created_at", "seconds": 7_200});
        let kept = request(|body| body["output_expires_after"] = after).unwrap();
        assert_eq!(kept.output_seconds, Some(7_200));
    }

    fn line(change: impl FnOnce(&mut Value)) -> Result<BatchLine, BadRequest> {
        let mut value = json!({
            "custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}
        });
        change(&mut value);
        BatchLine::parse(value.to_string().as_bytes(), BatchEndpoint::Completion)
    }

    #[test]
    fn a_line_is_checked_field_by_field() {
        let good = line(|_| {}).unwrap();
        assert_eq!(
            (good.custom_id.as_str(), good.body.get()),
            ("a", r#"{"model":"m","prompt":"x"}"#)
        );
        let param = |result: Result<BatchLine, BadRequest>| result.unwrap_err().param.unwrap();
        assert_eq!(param(line(|line| line["custom_id"] = json!(""))), "custom_id");
        assert_eq!(
            param(line(|line| line["custom_id"] = json!("x".repeat(513)))),
            "custom_id"
        );
        assert_eq!(param(line(|line| line["method"] = json!("GET"))), "method");
        assert_eq!(param(line(|line| line["url"] = json!("/v1/embeddings"))), "url");
        assert_eq!(param(line(|line| line["body"] = json!([1]))), "body");
        let surplus = line(|line| line["priority"] = json!(1)).unwrap_err();
        assert_eq!(surplus.code, BadRequest::TYPE);
        for bad in [&b""[..], b"{", b"\xff", b"null"] {
            assert!(BatchLine::parse(bad, BatchEndpoint::Chat).is_err());
        }
    }

    #[test]
    fn names_are_what_is_written() {
        for status in BatchStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), json!(status.name()));
        }
        for endpoint in BatchEndpoint::ALL {
            assert_eq!(serde_json::to_value(endpoint).unwrap(), json!(endpoint.path()));
            assert_eq!(BatchEndpoint::of(endpoint.path()), Some(endpoint));
        }
    }

    proptest! {
        #[test]
        fn a_line_that_was_written_is_read(custom_id in ".{1,40}", prompt in ".{0,80}") {
            let body = json!({"model": "m", "prompt": prompt});
            let value = json!({
                "custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body
            });
            let read = BatchLine::parse(value.to_string().as_bytes(), BatchEndpoint::Completion).unwrap();
            prop_assert_eq!(read.custom_id, custom_id);
            prop_assert_eq!(serde_json::from_str::<Value>(read.body.get()).unwrap(), body);
        }

        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = BatchLine::parse(&bytes, BatchEndpoint::Chat);
            let _ = BatchRequest::parse(&bytes);
        }
    }
}
