//! What clients are told of their limits: the headers that OpenAI's clients read.

use std::time::{Duration, Instant};

use super::{Turnstile, Use, window::State};
use crate::{
    Error,
    store::{KeyRow, Store, now},
};

/// `x-ratelimit-*` of a key: its requests a minute, and its tokens a minute, or a day where there is no limit for the minute.
pub(crate) async fn headers(
    store: &Store,
    turnstile: &Turnstile,
    key: &KeyRow,
) -> Result<Vec<(String, String)>, Error> {
    let mut headers = Vec::new();
    if let Some(most) = key.limits.requests_a_minute {
        let room = turnstile.room(&key.id, most, Instant::now());
        said(&mut headers, "requests", most.into(), room.left.into(), room.all_after);
    }
    let tokens = key.limits.meters().find(|meter| meter.name.starts_with("tokens"));
    if let Some(meter) = tokens {
        let (state, now) = (store.used(&key.id).await?, now());
        let left = meter.most.saturating_sub((meter.of)(state.taken(meter.span, now)));
        said(
            &mut headers,
            "tokens",
            meter.most,
            left,
            all_after(&state, meter.span, now),
        );
    }
    Ok(headers)
}

fn all_after(state: &State, span: super::Span, now: u64) -> Duration {
    let last = state.of(span).iter().rfind(|bucket| bucket.used != Use::default());
    let ended = last.map_or(0, |bucket| span.end_of(bucket.start).saturating_sub(now));
    // What is under way counts for a whole span after its end.
    let held = if state.held == Use::default() { 0 } else { span.seconds };
    Duration::from_secs(ended.max(held))
}

fn said(headers: &mut Vec<(String, String)>, what: &str, most: u128, left: u128, all_after: Duration) {
    let mut say = |name: &str, value: String| headers.push((format!("x-ratelimit-{name}-{what}"), value));
    say("limit", most.to_string());
    say("remaining", left.to_string());
    say("reset", written(all_after));
}

/// As OpenAI writes it, `6m0s`; rounded up, because who comes back then finds room.
pub(super) fn written(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1_000);
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
