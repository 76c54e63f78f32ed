//! Every file of every corpus goes through its target, as in the fuzzer: what was found once is not found again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use rialto_fuzz::{Body, TARGETS, seeds};

/// The content of a target's corpus, with names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let file = files.map(|file| {
        let path = file.unwrap().path();
        (path.display().to_string(), fs::read(path).unwrap())
    });
    file.collect()
}

/// The body with bytes that it was not made for: cut short, and with single bytes changed.
fn disturb(body: Body, bytes: &[u8]) {
    for length in 0..bytes.len().min(2_048) {
        body(bytes.get(..length).unwrap_or_default());
    }
    let mut changed = bytes.to_vec();
    for place in 0..bytes.len().min(2_048) {
        for mask in [0x01, 0x80, 0xff] {
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= mask;
            }
            body(&changed);
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= mask;
            }
        }
    }
}

#[test]
fn every_file_of_every_corpus_is_borne() {
    for (target, body) in TARGETS {
        for (name, bytes) in corpus(target) {
            let outcome = std::panic::catch_unwind(|| {
                body(&bytes);
                disturb(body, &bytes);
            });
            assert!(outcome.is_ok(), "{target} does not bear {name}");
        }
    }
}

#[test]
fn every_target_starts_behind_its_first_checks() {
    for (target, body) in TARGETS {
        let seeds = seeds::all().unwrap().into_iter().filter(|seed| seed.target == target);
        let refused: Vec<_> = seeds.filter(|seed| !body(&seed.bytes)).map(|seed| seed.name).collect();
        assert!(refused.is_empty(), "{target} refuses its own seeds {refused:?}");
        let accepted = corpus(target).iter().filter(|(_, bytes)| body(bytes)).count();
        assert!(
            accepted > 0,
            "{target} accepts nothing of its corpus; did a type change? `cargo run --release -p rialto-fuzz --bin seeds`"
        );
    }
}

#[test]
fn every_corpus_has_a_target_and_every_target_a_program() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| -> BTreeSet<String> {
        let files = fs::read_dir(here.join(folder)).unwrap();
        files
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("targets/fuzz_targets"), targets);
}
