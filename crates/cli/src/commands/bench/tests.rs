use std::path::Path;

use rialto_engine::{SimulatedConfig, SimulatedEngine};

use super::*;

fn model(relative: &str) -> Found {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    Found::read(&models.join(relative)).unwrap()
}

fn dir(folder: &tempfile::TempDir) -> DataDir {
    DataDir::open(folder.path().join("market")).unwrap()
}

#[tokio::test]
async fn what_was_measured_is_kept_for_the_same_model_engine_and_machine() {
    let folder = tempfile::tempdir().unwrap();
    let dir = dir(&folder);
    let model = model("shakespeare/manifest-q8_0.toml");
    let engine = SimulatedEngine::new(SimulatedConfig::default());
    let (bench, load) = (Bench::here(), LoadOptions::default());
    assert_eq!(bench.kept(&dir, &model, &engine, &load), None);
    let measured = bench.measure(&dir, &model, &engine, &load).await.unwrap();
    assert!(
        measured.input_per_second > 0.0 && measured.output_per_second.unwrap() > 0.0,
        "{measured:?}"
    );
    assert_eq!(measured.unit, "token");
    assert_eq!(bench.kept(&dir, &model, &engine, &load), Some(measured.clone()));
    assert_eq!(bench.kept_of(&dir, &model, &load), Some(measured));

    // Another quantisation, or fewer threads, are something else.
    let other = self::model("shakespeare/manifest-q4_0.toml");
    assert_eq!(bench.kept(&dir, &other, &engine, &load), None);
    let fewer = LoadOptions {
        threads: Some(64),
        ..load.clone()
    };
    assert_eq!(bench.kept(&dir, &model, &engine, &fewer), None);

    // A damaged file is measured anew.
    dir.write(FILE, "{").unwrap();
    assert_eq!(bench.kept(&dir, &model, &engine, &load), None);
    bench.measure(&dir, &model, &engine, &load).await.unwrap();
    assert!(bench.kept(&dir, &model, &engine, &load).is_some());
}

#[test]
fn a_newer_measurement_takes_the_place_of_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = dir(&folder);
    let engine = SimulatedEngine::new(SimulatedConfig::default());
    let (bench, load) = (Bench::here(), LoadOptions::default());
    let blank = bench.blank(&model("shakespeare/manifest-q8_0.toml"), &engine, &load);
    for speed in [1.0, 2.0] {
        let benchmark = Benchmark {
            input_per_second: speed,
            ..blank.clone()
        };
        keep(&dir, &benchmark).unwrap();
    }
    let kept = super::kept(&dir);
    assert_eq!(kept.len(), 1);
    assert!((kept[0].input_per_second - 2.0).abs() < 1e-9);
    for number in 0..MAX_KEPT {
        let benchmark = Benchmark {
            engine: format!("engine {number}"),
            ..blank.clone()
        };
        keep(&dir, &benchmark).unwrap();
    }
    let all = super::kept(&dir);
    assert_eq!(all.len(), MAX_KEPT);
    assert_eq!(all[0].engine, "engine 0", "the oldest is forgotten");
}

#[test]
fn small_energies_are_told_with_their_digits() {
    assert_eq!(
        (milli(12), milli(999), milli(12_340)),
        ("0.012".into(), "0.999".into(), "12.3".into())
    );
}
