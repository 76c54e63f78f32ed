//! The body of a request, bounded in size and time.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use tokio::time::timeout;

use crate::{Config, Error, config::ms};

/// Reads a body.
pub(crate) async fn read(config: &Config, headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    let limit = config.max_body_bytes;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(Error::TooLarge { limit });
    }
    let received = timeout(ms(config.timeouts.body_ms), to_bytes(body, limit)).await;
    received.map_err(|_| Error::BodyMissing)?.map_err(|error| {
        // The limit shows as the error's source; a connection that broke off has another.
        let limited =
            std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("length limit"));
        if limited {
            Error::TooLarge { limit }
        } else {
            Error::BodyMissing
        }
    })
}
