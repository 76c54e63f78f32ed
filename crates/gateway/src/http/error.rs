//! Errors as responses: OpenAI's shape under `/v1`, the Open Inference Protocol's under `/v2`.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rialto_api::{
    inference::InferError,
    openai::{ErrorBody, ErrorObject},
    sse,
};

use crate::{Error, PublicError};

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-rialto-error");

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the client speaks the Open Inference Protocol.
    inference: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            inference: false,
        }
    }
}

impl Failure {
    /// The same error for a client of the Open Inference Protocol.
    pub(crate) fn for_inference(mut self) -> Self {
        self.inference = true;
        self
    }

    /// Status, headers and body.
    pub(crate) fn parts(&self) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let public = self.error.public();
        let body = if self.inference {
            let error = InferError {
                error: public.message.clone(),
            };
            serde_json::to_vec(&error)
        } else {
            serde_json::to_vec(&body(&public))
        };
        let mut headers = vec![
            (header::CONTENT_TYPE.to_string(), "application/json".to_owned()),
            (ERROR_CODE.to_string(), public.code.to_owned()),
            (SHOULD_RETRY.to_string(), public.retry.to_string()),
        ];
        if let Some(milliseconds) = public.retry_ms {
            headers.push((RETRY_AFTER_MS.to_string(), milliseconds.to_string()));
            headers.push((
                header::RETRY_AFTER.to_string(),
                milliseconds.div_ceil(1_000).max(1).to_string(),
            ));
        }
        (public.status, headers, body.unwrap_or_default())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, headers, body) = self.parts();
        if status >= 500 {
            tracing::warn!(status, error = %self.error, "a request failed");
        } else {
            tracing::debug!(status, error = %self.error, "a request was refused");
        }
        build(status, &headers, body.into())
    }
}

/// A response of these parts.
pub(crate) fn build(status: u16, headers: &[(String, String)], body: axum::body::Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// OpenAI's body of an error.
pub(crate) fn body(public: &PublicError) -> ErrorBody {
    ErrorBody {
        error: ErrorObject {
            message: public.message.clone(),
            kind: public.kind.to_owned(),
            param: public.param.clone(),
            code: Some(public.code.to_owned()),
        },
    }
}

/// The event that ends a stream that failed. No `[DONE]` follows it.
pub(crate) fn event(error: &Error) -> String {
    sse::event(&body(&error.public()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_openais_shape_and_says_when_to_retry() {
        let (status, headers, body) = Failure::from(Error::Busy { retry_ms: 1_500 }).parts();
        assert_eq!(status, 503);
        let value = |name: &str| {
            headers
                .iter()
                .find(|(one, _)| one == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("retry-after"), Some("2"));
        assert_eq!(value("retry-after-ms"), Some("1500"));
        assert_eq!(value("x-should-retry"), Some("true"));
        let body: ErrorBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.error.code.as_deref(), Some("sellers_busy"));
    }

    #[test]
    fn the_inference_protocol_has_its_own_shape() {
        let (status, _, body) = Failure::from(Error::NoKey).for_inference().parts();
        assert_eq!(status, 401);
        let body: InferError = serde_json::from_slice(&body).unwrap();
        assert!(body.error.contains("API key"));
    }

    #[test]
    fn a_stream_ends_with_an_error_event() {
        let text = event(&Error::ProviderTimeout { charged: true });
        assert!(
            text.starts_with("data: {\"error\":{\"message\":") && text.ends_with("}}\n\n"),
            "{text}"
        );
    }
}
