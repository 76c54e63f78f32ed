//! The channel state machine of `rialto-protocol`, and the escrow's books around it, against the compiled contracts in
//! an EVM: random traces, both sides compared after every step.
//!
//! - `RIALTO_TRACE_STEPS=100000` is the long run; without it, ten thousand steps are made.
//! - `RIALTO_TRACE_SEED=7` makes that one trace alone, as a failure names it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

mod abi;
mod choose;
mod claims;
mod evm;
mod model;
mod ops;
mod orders;
mod outcomes;
mod parties;
mod rng;
mod trace;

use std::time::Instant;

use trace::{Tally, Trace};

/// Steps of one trace, each with a market of its own.
const TRACE: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Makes one trace and adds up what it saw.
fn run(seed: u64, steps: u64, tally: &mut Tally) {
    let mut trace = Trace::begin(seed).unwrap();
    for _ in 0..steps {
        if let Err(error) = trace.advance() {
            panic!("trace {seed} (RIALTO_TRACE_SEED={seed}): {error}\n{}", trace.story());
        }
    }
    for (what, times) in trace.tally {
        *tally.entry(what).or_default() += times;
    }
}

#[test]
fn the_state_machine_and_the_evm_agree_on_every_step() {
    let (started, mut tally) = (Instant::now(), Tally::new());
    if let Some(seed) = number("RIALTO_TRACE_SEED") {
        run(seed, TRACE, &mut tally);
        return;
    }
    let steps = number("RIALTO_TRACE_STEPS").unwrap_or(10_000);
    for seed in 0..steps.div_ceil(TRACE) {
        run(seed, TRACE.min(steps - seed * TRACE), &mut tally);
    }
    for ((op, ended), times) in &tally {
        println!("{times:>8} {op}: {ended}");
    }
    println!("{steps} steps in {:.1} s", started.elapsed().as_secs_f64());
    if steps >= 10_000 {
        assert_eq!(
            outcomes::missing(&tally),
            Vec::<String>::new(),
            "the traces are too tame"
        );
    }
}
