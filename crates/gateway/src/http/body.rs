//! The body of a request, bounded in size and time.

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::edge::Pace;
use crate::{Config, Error, config::ms};

/// Reads a body.
pub(crate) async fn read(config: &Config, headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    let limit = config.max_body_bytes;
    let mut pieces = body.into_data_stream();
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_long = announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit));
    let received = if is_long {
        Err(Error::TooLarge { limit })
    } else {
        let received = timeout(ms(config.timeouts.body_ms), collect(config, &mut pieces)).await;
        received.map_err(|_| Error::BodyMissing)?
    };
    if matches!(received, Err(Error::TooLarge { .. })) {
        drain(config, &mut pieces).await;
    }
    received
}

/// All pieces of a body. Whoever sends them slower than the lowest rate is not waited for.
async fn collect(config: &Config, pieces: &mut BodyDataStream) -> Result<Bytes, Error> {
    let limit = config.max_body_bytes;
    let mut pace = Pace::new(config.connections.stall_ms, config.connections.min_rate);
    let mut whole = BytesMut::new();
    loop {
        let asked = Instant::now();
        let next = timeout(ms(pace.left()), pieces.next()).await;
        let Some(piece) = next.map_err(|_| Error::BodyMissing)? else {
            return Ok(whole.freeze());
        };
        let piece = piece.map_err(|_| Error::BodyMissing)?;
        if piece.len() > limit.saturating_sub(whole.len()) {
            return Err(Error::TooLarge { limit });
        }
        let waited = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        pace.moved(waited, piece.len());
        if whole.is_empty() {
            whole = BytesMut::from(piece);
        } else {
            whole.extend_from_slice(&piece);
        }
    }
}

/// Reads and forgets a body that is too long, within bounds: many clients read no answer before they have sent
/// everything, and would see a broken connection instead of the error.
async fn drain(config: &Config, pieces: &mut BodyDataStream) {
    let mut left = config.max_body_bytes.saturating_mul(4);
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

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    /// A body of pieces of this size, one a second.
    fn drip(size: usize, count: usize) -> Body {
        let pieces = futures::stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(vec![b' '; size])
        });
        Body::from_stream(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_not_waited_for_and_a_slow_one_is() {
        let config = Config::default();
        let began = Instant::now();
        let dripped = read(&config, &HeaderMap::new(), drip(1, 10_000)).await;
        assert!(matches!(dripped, Err(Error::BodyMissing)));
        assert!(began.elapsed() <= ms(config.connections.stall_ms + 1_000));
        let slow = read(&config, &HeaderMap::new(), drip(2_048, 25)).await.unwrap();
        assert_eq!(slow.len(), 25 * 2_048);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_an_announced_length_has_the_same_limit() {
        let config = Config {
            max_body_bytes: 3,
            ..Config::default()
        };
        let exact = read(&config, &HeaderMap::new(), drip(1, 3)).await.unwrap();
        assert_eq!(exact.as_ref(), b"   ");
        let long = read(&config, &HeaderMap::new(), drip(2, 2)).await;
        assert!(matches!(long, Err(Error::TooLarge { limit: 3 })));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_read_to_its_end_or_to_four_times_the_limit() {
        let config = Config {
            max_body_bytes: 3,
            ..Config::default()
        };
        for (count, taken) in [(5, 5), (100, 8)] {
            let sent = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&sent);
            let pieces = futures::stream::iter(0..count).map(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>("ab")
            });
            let long = read(&config, &HeaderMap::new(), Body::from_stream(pieces)).await;
            assert!(matches!(long, Err(Error::TooLarge { limit: 3 })));
            assert_eq!(sent.load(Ordering::Relaxed), taken);
        }
    }
}
