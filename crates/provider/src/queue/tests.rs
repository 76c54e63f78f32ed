//! The queue at work, on paused time.

use std::collections::HashMap;

use rialto_protocol::job::Generation;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const SERVICE: Duration = Duration::from_millis(100);

fn queue(slots: u32, bound: usize) -> Arc<Queue> {
    Arc::new(Queue::new(slots, bound, Arc::new(Notify::new())))
}

fn payer(number: u8) -> Address {
    Address([number; 20])
}

fn job(text: &str) -> Job {
    Job::Completion {
        prompt: text.to_owned(),
        generation: Generation::default(),
    }
}

impl Queue {
    fn ask(self: &Arc<Self>, number: u8, text: &str) -> Result<Place, Full> {
        self.join(payer(number), &job(text), PATIENCE)
    }
}

/// Waits for its turn and works.
async fn work(mut place: Place, service: Duration) -> Result<(), Full> {
    place.admitted().await?;
    let turn = place.turn().await;
    tokio::time::sleep(service).await;
    drop(turn);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_more_than_slots_and_queue_is_refused_with_a_measured_delay() {
    let queue = queue(2, 1);
    for _ in 0..2 {
        work(queue.ask(1, "first").unwrap(), Duration::from_secs(4))
            .await
            .unwrap();
    }
    let places: Vec<_> = (0..3).map(|_| queue.ask(1, "x").unwrap()).collect();
    assert_eq!(queue.load(), 3);
    assert_eq!(queue.ask(1, "a").unwrap_err().retry_after_ms, 2_000);
    assert_eq!(
        queue.ask(1, "b").unwrap_err().retry_after_ms,
        4_000,
        "not at the same time"
    );
    assert_eq!(
        queue.ask(1, "b").unwrap_err().retry_after_ms,
        4_000,
        "what it was told already"
    );
    drop(places);
    assert_eq!(queue.load(), 0);
    queue.ask(1, "c").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_turn_comes_when_another_ends_and_slots_are_never_exceeded() {
    let queue = queue(1, 2);
    let (mut first, mut second, mut third) = (
        queue.ask(1, "1").unwrap(),
        queue.ask(1, "2").unwrap(),
        queue.ask(1, "3").unwrap(),
    );
    first.admitted().await.unwrap();
    let turn = first.turn().await.unwrap();
    // One is let in ahead, so that it can be opened; it gets no slot.
    second.admitted().await.unwrap();
    let mut waiting = Box::pin(second.turn());
    assert!(futures::poll!(&mut waiting).is_pending());
    let mut outside = Box::pin(third.admitted());
    assert!(futures::poll!(&mut outside).is_pending());
    drop(turn);
    drop(first);
    assert!(waiting.await.is_some());
    outside.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_longer_than_it_can_is_refused_at_once() {
    let queue = queue(1, 100);
    work(queue.ask(1, "measured").unwrap(), Duration::from_secs(10))
        .await
        .unwrap();
    let _running = queue.ask(1, "running").unwrap();
    let ask = |seconds| queue.join(payer(1), &job("next"), Duration::from_secs(seconds));
    let full = ask(12).unwrap_err();
    assert!((1_000..=10_000).contains(&full.retry_after_ms), "{full:?}");
    let place = ask(14).unwrap();
    drop(place);
    assert!(ask(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn whose_patience_ends_in_the_queue_leaves_it() {
    let queue = queue(1, 10);
    let mut running = queue.ask(1, "running").unwrap();
    running.admitted().await.unwrap();
    let mut ahead = queue.ask(1, "ahead").unwrap();
    ahead.admitted().await.unwrap();
    let mut place = queue.ask(1, "impatient").unwrap();
    let before = Instant::now();
    let full = place.admitted().await.unwrap_err();
    assert_eq!(before.elapsed(), PATIENCE);
    assert!(full.retry_after_ms > 0);
    assert_eq!(queue.load(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_room_for_a_payer_with_fewer_requests() {
    let queue = queue(1, 4);
    let mut flood: Vec<_> = (0..5)
        .map(|number| queue.ask(1, &number.to_string()).unwrap())
        .collect();
    assert!(queue.ask(1, "one more").is_err());
    let mut modest = queue.ask(2, "modest").unwrap();
    let last = flood.last_mut().unwrap();
    assert!(last.admitted().await.is_err(), "the flood's last request made room");
    // The next but the one that is let in already.
    drop(flood.remove(0));
    modest.admitted().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_waits_for_its_buyer_keeps_nobody_waiting() {
    let queue = queue(1, 4);
    let mut first = queue.ask(1, "1").unwrap();
    let mut second = queue.ask(1, "2").unwrap();
    let mut third = queue.ask(1, "3").unwrap();
    first.admitted().await.unwrap();
    second.admitted().await.unwrap();
    let mut outside = Box::pin(third.admitted());
    assert!(futures::poll!(&mut outside).is_pending());
    first.pause();
    outside.await.unwrap();
    first.resume();
    let mut back = Box::pin(first.admitted());
    assert!(futures::poll!(&mut back).is_pending());
    drop(second);
    back.await.unwrap();
}

/// What became of the callers of a simulated market.
#[derive(Debug, Default)]
struct Tally {
    served: HashMap<u8, u64>,
    /// Refusals of callers that had come as they were told.
    again: u64,
    refused: u64,
    dropped: u64,
}

/// Callers come at `gap` for `long`; each comes back as it is told until it is served.
async fn market(queue: Arc<Queue>, payers: &'static [u8], gap: Duration, long: Duration) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let end = Instant::now() + long;
    let mut callers = Vec::new();
    let mut serial = 0u64;
    while Instant::now() < end {
        serial += 1;
        let number = payers[usize::try_from(serial).unwrap() % payers.len()];
        let (queue, tally, text) = (queue.clone(), tally.clone(), serial.to_string());
        callers.push(tokio::spawn(async move {
            for attempt in 0.. {
                let full = match queue.join(payer(number), &job(&text), PATIENCE) {
                    Ok(place) => match work(place, SERVICE).await {
                        Ok(()) if Instant::now() < end => {
                            *tally.lock().unwrap().served.entry(number).or_default() += 1;
                            return;
                        }
                        Ok(()) => return,
                        Err(full) => {
                            tally.lock().unwrap().dropped += 1;
                            full
                        }
                    },
                    Err(full) => {
                        assert_eq!(full.as_told, attempt > 0, "{text}");
                        full
                    }
                };
                {
                    let mut tally = tally.lock().unwrap();
                    tally.refused += 1;
                    tally.again += u64::from(attempt > 0);
                }
                if Instant::now() >= end {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(full.retry_after_ms)).await;
            }
        }));
        tokio::time::sleep(gap).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    Arc::try_unwrap(tally).unwrap().into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_as_told_is_admitted_in_a_steady_overload() {
    // Four slots of a tenth of a second: forty a second, asked for twice as often. (Paused time goes in whole milliseconds.)
    for payers in [&[1u8][..], &[1, 2, 3]] {
        let tally = market(queue(4, 16), payers, Duration::from_millis(12), Duration::from_secs(60)).await;
        let served: u64 = tally.served.values().sum();
        assert!(served >= 40 * 60 * 95 / 100, "{tally:?}");
        assert!(tally.refused > 1_000, "{tally:?}");
        assert_eq!((tally.again, tally.dropped), (0, 0), "{tally:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_leaves_a_modest_payer_its_share() {
    // Nine of ten requests are the first payer's, at three times the capacity: the other asks for less than its share.
    let payers = &[1, 1, 1, 1, 1, 1, 1, 1, 1, 2];
    let tally = market(queue(4, 16), payers, Duration::from_millis(8), Duration::from_secs(30)).await;
    let modest = tally.served[&2];
    assert!(modest >= 370, "all but the last few of 375: {tally:?}");
    assert!(tally.served.values().sum::<u64>() >= 40 * 30 * 95 / 100, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_that_never_come_back_leave_no_slot_empty() {
    let queue = queue(4, 16);
    let mut served = 0u32;
    let end = Instant::now() + Duration::from_secs(30);
    let done = Arc::new(Mutex::new(0u32));
    while Instant::now() < end {
        served += 1;
        if let Ok(place) = queue.ask(1, &served.to_string()) {
            let done = done.clone();
            tokio::spawn(async move {
                if work(place, SERVICE).await.is_ok() {
                    *done.lock().unwrap() += 1;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    let done = *done.lock().unwrap();
    assert!(done >= 40 * 30 * 95 / 100, "{done}");
}

#[test]
fn the_same_question_with_another_seed_is_the_same_job() {
    let queue = queue(1, 1);
    let with_seed = |seed| Job::Completion {
        prompt: "again".into(),
        generation: Generation {
            seed,
            ..Generation::default()
        },
    };
    assert_eq!(queue.likeness(&with_seed(1)), queue.likeness(&with_seed(2)));
    assert_ne!(queue.likeness(&with_seed(1)), queue.likeness(&job("other")));
}
