//! Whether a worker is well: it answers, and no step of its computation takes for ever.
//!
//! A machine with too much to do must not look like a worker that hangs, so a silent worker that waits for a processor is
//! given more time than one that sleeps, is stopped, or runs in circles.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use super::link::{Link, Pulse};
use crate::border::ToWorker;

/// Time between two questions.
const BEAT: Duration = Duration::from_millis(200);

/// Silence after which a worker that does not wait for a processor has hung.
const SILENCE: Duration = Duration::from_millis(1_000);

/// Silence after which any worker has hung.
const LONG_SILENCE: Duration = Duration::from_secs(15);

/// The longest that a step of computation may take, whatever the worker says.
const LONGEST_STEP: u64 = 600_000;

/// Ends when the worker has hung, and says how.
pub(super) async fn stops(link: &Link) -> String {
    let mut pulse = link.pulse();
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0u64;
    loop {
        beat.tick().await;
        number = number.wrapping_add(1);
        let before = processor_time(link.process_id());
        link.send(&ToWorker::Ping { number });
        let asked = Instant::now();
        let mut answered = answer(&mut pulse, number, asked + SILENCE).await;
        if answered.is_none() && waits_for_processor(link.process_id(), before) {
            answered = answer(&mut pulse, number, asked + LONG_SILENCE).await;
        }
        let Some(pulse) = answered else {
            return format!("it was silent for {} ms", asked.elapsed().as_millis());
        };
        let limit = pulse.limit_millis.min(LONGEST_STEP);
        if pulse.step_millis > limit {
            return format!("one step of computation took more than {limit} ms");
        }
    }
}

/// The answer to this question, if it comes in time.
async fn answer(pulse: &mut watch::Receiver<Pulse>, number: u64, deadline: Instant) -> Option<Pulse> {
    let answered = timeout_at(deadline, pulse.wait_for(|pulse| pulse.number == number)).await;
    answered.ok()?.ok().map(|pulse| *pulse)
}

/// Whether the process could run and is not let: it is runnable, and got little of a processor meanwhile.
fn waits_for_processor(process_id: u32, before: Option<u64>) -> bool {
    let (Some(before), Some(after)) = (before, processor_time(process_id)) else {
        return false;
    };
    // In hundredths of a second: half of the silence.
    state(process_id) == Some('R') && after.saturating_sub(before) < 50
}

/// User and system time of a process, in hundredths of a second; `None` where there is no `/proc`.
fn processor_time(process_id: u32) -> Option<u64> {
    let fields = stat(process_id)?;
    let mut numbers = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Some(numbers.next()?.ok()?.saturating_add(numbers.next()?.ok()?))
}

/// `R`, `S`, `D`, `T`, `Z`, …
fn state(process_id: u32) -> Option<char> {
    stat(process_id)?.trim_start().chars().next()
}

/// What follows the program's name, which may contain anything.
fn stat(process_id: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    text.rsplit_once(')').map(|(_, fields)| fields.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_can_be_looked_at() {
        let own = std::process::id();
        assert!(matches!(state(own), Some('R' | 'S')));
        let begin = processor_time(own).unwrap();
        while processor_time(own).unwrap() <= begin {
            std::hint::spin_loop();
        }
        assert_eq!(processor_time(u32::MAX), None);
    }
}
