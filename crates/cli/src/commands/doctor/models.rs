//! What sells: the worker, ONNX Runtime, and each model with the memory for all of them.

use anyhow::{Context, Result};
use rialto_engine::Error;
use rialto_machine::{Hardware, Memory};
use rialto_protocol::manifest::Format;

use super::{Finding, State, machine};
use crate::{
    commands::provide,
    models::{self, Found},
    settings::Settings,
};

/// Memory of a worker besides its model: the program, its libraries, buffers of computation.
const WORKER_BYTES: u64 = 256 << 20;

/// Loads every model that would be sold: files, hashes and engines.
pub(super) async fn look(settings: &Settings, hardware: &Hardware) -> Vec<Finding> {
    let load = provide::load_options(settings, None, None);
    let program = rialto_engine::worker_program(load.worker.as_deref());
    let has_worker = program.is_ok();
    let program = program
        .map(|path| path.display().to_string())
        .map_err(anyhow::Error::from);
    let mut findings = vec![Finding::of("worker", program)];
    let found = match models::find(&settings.file.provider.models) {
        Ok(found) => found,
        Err(error) => {
            findings.push(Finding::of("models", Err(error)));
            return findings;
        }
    };
    findings.push(memory(&found, hardware.memory));
    if !has_worker {
        // Each model would say the same.
        return findings;
    }
    let mut runtime = Finding::new("ONNX Runtime", State::Good, "no model here needs it");
    for model in &found {
        let name = model.manifest.listing();
        let loaded = rialto_engine::load(&model.manifest, model.folder(), &load).await;
        if model.manifest.format == Format::Onnx {
            runtime = of_runtime(loaded.as_ref().err());
        }
        let said = loaded.map(|engine| format!("{name}: its files are whole, {} loads it", engine.info().class));
        findings.push(Finding::of(
            "model",
            said.map_err(|error| mend(error, model)).context(name),
        ));
    }
    findings.push(runtime);
    findings
}

/// What is said of ONNX Runtime, by what became of a model that needs it.
fn of_runtime(error: Option<&Error>) -> Finding {
    match error {
        Some(error @ Error::RuntimeMissing { .. }) => Finding::new("ONNX Runtime", State::Wrong, error.to_string()),
        _ => Finding::new("ONNX Runtime", State::Good, "found"),
    }
}

/// An engine's complaint says what is wrong; this adds what to do.
fn mend(error: Error, model: &Found) -> anyhow::Error {
    let advice = match &error {
        Error::Artifact { path, .. } => format!("fetch {path} again from where the model was published"),
        Error::Model(_) => format!(
            "correct {}, or no longer name it in `provider.models`",
            model.path.display()
        ),
        // These say it themselves.
        Error::RuntimeMissing { .. } | Error::WorkerMissing(_) => return error.into(),
        _ => "start again with `--verbose`, and see what the worker says".to_owned(),
    };
    anyhow::anyhow!("{error}: {advice}")
}

/// Whether all models fit into what is free.
fn memory(found: &[Found], memory: Memory) -> Finding {
    let needed = found.iter().map(|model| {
        let artifacts = model.manifest.artifacts.iter().map(|artifact| artifact.size);
        artifacts.fold(WORKER_BYTES, u64::saturating_add)
    });
    let needed = needed.fold(0, u64::saturating_add);
    let there = format!(
        "{} models need about {} of {}, {} are free",
        found.len(),
        machine::size(needed),
        machine::size(memory.total_bytes),
        machine::size(memory.available_bytes)
    );
    let result: Result<String> = if needed > memory.total_bytes {
        Err(anyhow::anyhow!("{there}: sell fewer or smaller models, or add memory"))
    } else {
        Ok(there)
    };
    let fits = needed <= memory.available_bytes;
    match result {
        Ok(there) if !fits => Finding::new(
            "memory",
            State::Fair,
            format!("{there}: end other programs before you sell"),
        ),
        result => Finding::of("memory", result),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn model() -> Found {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/breast-cancer/manifest.toml");
        Found::read(Path::new(path)).unwrap()
    }

    #[test]
    fn models_that_do_not_fit_are_told_so_before_they_fail() {
        let of = |total: u64, available: u64| {
            let memory = Memory {
                total_bytes: total << 20,
                available_bytes: available << 20,
            };
            super::memory(&[model(), model()], memory)
        };
        assert_eq!(of(8_192, 4_096).state, State::Good);
        assert_eq!(of(8_192, 100).state, State::Fair);
        let wrong = of(100, 100);
        assert_eq!(wrong.state, State::Wrong);
        assert!(wrong.said.contains("add memory"), "{}", wrong.said);
    }

    #[test]
    fn every_complaint_of_an_engine_comes_with_what_to_do() {
        let missing = Error::Artifact {
            path: "a.onnx".into(),
            fault: rialto_engine::ArtifactFault::Missing,
        };
        assert!(mend(missing, &model()).to_string().contains("fetch a.onnx again"));
        let wrong = mend(Error::Model("no".into()), &model()).to_string();
        assert!(
            wrong.contains("manifest.toml") && wrong.contains("provider.models"),
            "{wrong}"
        );
        let runtime = Error::RuntimeMissing {
            reason: "gone".into(),
            looked: Vec::new(),
        };
        let finding = of_runtime(Some(&runtime));
        assert!(!finding.ok && finding.said.contains("ORT_DYLIB_PATH"), "{finding:?}");
        assert!(of_runtime(None).ok);
    }
}
