//! The body of a request, bounded in size and time.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::{Config, Error, config::ms};

/// Reads a body.
pub(crate) async fn read(config: &Config, headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    let limit = config.max_body_bytes;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        drain(config, body).await;
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

/// Reads and forgets a body that is too long, within bounds: many clients read no answer before they have sent
/// everything, and would see a broken connection instead of the error.
async fn drain(config: &Config, body: Body) {
    let mut left = config.max_body_bytes.saturating_mul(4);
    let mut pieces = body.into_data_stream();
    let read = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    // A client that is slower than this sees the connection break off.
    drop(timeout(ms(config.timeouts.body_ms), read).await);
}
