//! Limits that hold at every moment, and refusals that come true.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rialto_protocol::{MicroDollars, NanoDollars};

use super::{door::Room, said::written, *};

const TOKENS: Limits = Limits {
    tokens_a_minute: Some(100),
    ..NONE
};
const NONE: Limits = Limits {
    requests_a_minute: None,
    at_a_time: None,
    tokens_a_minute: None,
    tokens_a_day: None,
    dollars_a_minute: None,
    dollars_a_day: None,
};

fn tokens(tokens: u64) -> Use {
    Use {
        tokens,
        cost: NanoDollars(u128::from(tokens) * 1_000),
    }
}

fn bucket(start: u64, count: u64) -> Bucket {
    Bucket {
        start,
        used: tokens(count),
    }
}

fn pause(found: Result<(), Reached>) -> Option<u64> {
    found.unwrap_err().retry_ms
}

#[test]
fn a_request_fits_until_the_limit_and_what_is_reserved_counts() {
    let state = State {
        minute: vec![bucket(1_000, 40)],
        held: tokens(30),
        ..State::default()
    };
    assert_eq!(check(&TOKENS, &state, tokens(30), 1_010), Ok(()));
    assert!(check(&TOKENS, &state, tokens(31), 1_010).is_err());
    assert_eq!(check(&NONE, &state, tokens(31), 1_010), Ok(()));
}

#[test]
fn the_pause_is_until_enough_is_forgotten() {
    let state = State {
        minute: vec![bucket(1_000, 40), bucket(1_030, 60)],
        ..State::default()
    };
    // A bucket counts until its last moment is a minute ago.
    assert_eq!(pause(check(&TOKENS, &state, tokens(40), 1_040)), Some(25_000));
    assert_eq!(pause(check(&TOKENS, &state, tokens(41), 1_040)), Some(55_000));
    assert_eq!(check(&TOKENS, &state, tokens(40), 1_065), Ok(()));
    assert_eq!(check(&TOKENS, &state, tokens(100), 1_095), Ok(()));
    // Nobody knows when those end that are under way.
    let busy = State {
        held: tokens(90),
        ..State::default()
    };
    assert_eq!(pause(check(&TOKENS, &busy, tokens(40), 1_040)), Some(60_000));
}

#[test]
fn a_request_over_the_limit_by_itself_is_never_asked_again() {
    let reached = check(&TOKENS, &State::default(), tokens(101), 5).unwrap_err();
    assert_eq!((reached.retry_ms, reached.limit), (None, "tokens a minute"));
    assert!(reached.to_string().contains("100 tokens a minute"), "{reached}");
}

#[test]
fn the_limit_that_lasts_longest_is_named() {
    let limits = Limits {
        dollars_a_day: Some(MicroDollars::new(50)),
        ..TOKENS
    };
    let state = State {
        minute: vec![bucket(1_000, 100)],
        day: vec![bucket(0, 50)],
        held: Use::default(),
    };
    let reached = check(&limits, &state, tokens(10), 1_005).unwrap_err();
    assert_eq!(
        (reached.limit, reached.retry_ms),
        ("a day", Some((86_400 + 1_800 - 1_005) * 1_000))
    );
    assert!(reached.to_string().contains("$0.00005"), "{reached}");
}

proptest! {
    /// Requests that begin and end at any time: what ended within any minute and what is under way never passes the limit,
    /// and who waits as long as it was told is let in if nothing else came.
    #[test]
    fn no_minute_holds_more_than_the_limit(
        steps in proptest::collection::vec((0_u64..30, 1_u64..80, 0_u64..=100, 0_usize..8), 1..200),
    ) {
        let (mut now, mut state) = (1_000_000_u64, State::default());
        let mut open: Vec<u64> = Vec::new();
        let mut ended: Vec<(u64, u64)> = Vec::new();
        for (pause, most, percent, which) in steps {
            now += pause;
            if which < open.len() {
                let most = open.swap_remove(which);
                let used = most * percent / 100;
                state.held.tokens -= most;
                ended.push((now, used));
                let start = MINUTE.bucket_of(now);
                match state.minute.last_mut() {
                    Some(last) if last.start == start => last.used = last.used.plus(tokens(used)),
                    _ => state.minute.push(bucket(start, used)),
                }
            }
            match check(&TOKENS, &state, Use { tokens: most, ..Use::default() }, now) {
                Ok(()) => {
                    open.push(most);
                    state.held.tokens += most;
                }
                Err(reached) => {
                    let wait = reached.retry_ms.unwrap() / 1_000;
                    let alone = State { held: Use::default(), ..state.clone() };
                    let then = check(&TOKENS, &alone, Use { tokens: most, ..Use::default() }, now + wait);
                    prop_assert_eq!(then, Ok(()));
                }
            }
            let lately: u64 = ended.iter().filter(|(at, _)| at + 60 > now).map(|(_, used)| used).sum();
            prop_assert!(lately + open.iter().sum::<u64>() <= 100);
        }
    }
}

#[test]
fn requests_are_let_in_by_the_minute_and_by_how_many_are_inside() {
    let turnstile = Arc::new(Turnstile::default());
    let begin = Instant::now();
    let limits = Limits {
        requests_a_minute: Some(3),
        at_a_time: Some(2),
        ..NONE
    };
    let one = turnstile.enter("a", &limits, begin).unwrap();
    let _two = turnstile.enter("a", &limits, begin).unwrap();
    let reached = turnstile.enter("a", &limits, begin).err().unwrap();
    assert_eq!((reached.limit, reached.retry_ms), ("requests at a time", Some(1_000)));
    assert!(turnstile.enter("b", &limits, begin).unwrap().is_some(), "another key");
    drop(one);
    let _three = turnstile.enter("a", &limits, begin).unwrap();
    drop(_two);
    let reached = turnstile.enter("a", &limits, begin).err().unwrap();
    assert_eq!((reached.limit, reached.retry_ms), ("requests a minute", Some(65_000)));
    let later = begin + Duration::from_secs(65);
    assert_eq!(turnstile.room("a", 3, begin).left, 0);
    let free = Room {
        left: 3,
        all_after: Duration::ZERO,
    };
    assert_eq!(turnstile.room("a", 3, later), free);
    assert!(turnstile.enter("a", &limits, later).is_ok());
    assert!(
        turnstile.enter("a", &NONE, begin).unwrap().is_none(),
        "no limit, no count"
    );
}

#[test]
fn times_are_written_as_openai_writes_them() {
    let times = [(0, "0s"), (1_001, "2s"), (60_000, "1m0s"), (3_661_000, "1h1m1s")];
    for (milliseconds, text) in times {
        assert_eq!(written(Duration::from_millis(milliseconds)), text);
    }
}
