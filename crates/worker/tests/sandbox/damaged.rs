//! Files whose damage no check of a header sees: they reach the library that runs models, and it may do as it likes. The
//! node goes on, and says what is the matter.

use super::*;
use rialto_protocol::{
    job::{Datatype, Job, Tensor},
    manifest::Manifest,
};
use support::{options, with_artifact};

const FILES: u64 = 60;

/// Loads a file of this content and asks it; what it says is worth nothing, that it says it, or why not, is what counts.
async fn ask(manifest: &Manifest, content: &[u8], job: Job) -> Result<(), Error> {
    let (folder, manifest) = with_artifact(manifest, content);
    let options = LoadOptions {
        worker: Some(env!("CARGO_BIN_EXE_rialto-worker").into()),
        threads: Some(1),
        ..options()
    };
    let engine = Sandboxed::load(&manifest, folder.path(), &options).await?;
    let prepared = engine.prepare(job, Scope::Alone).await?;
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = prepared.start(paid);
    while let Some(piece) = answer.pieces.recv().await {
        piece?;
    }
    Ok(())
}

/// Asks files of a model with up to three bits turned among their first bytes.
async fn bear(manifest: &Manifest, whole: &[u8], range: usize, job: Job) {
    let (mut random, mut refused, mut answered) = (0x2545_f491_4f6c_dd1du64, 0, 0);
    for round in 0..FILES {
        let mut content = whole.to_vec();
        for _ in 0..=round % 3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = usize::try_from(random >> 20).unwrap() % range;
            *content.get_mut(place).unwrap() ^= 1 << (random >> 17 & 7);
        }
        let outcome = tokio::time::timeout(PATIENCE, ask(manifest, &content, job.clone())).await;
        match outcome.expect("neither an answer nor an error") {
            Ok(()) => answered += 1,
            Err(error) => {
                let said = error.to_string();
                assert!(!said.is_empty() && said.len() < 2_000, "{said}");
                refused += 1;
            }
        }
    }
    // Where only one of the two happens, the range hits nothing, or a check of ours sees everything.
    assert!(refused > 0 && answered > 0, "{refused} refused, {answered} answered");
}

#[tokio::test]
async fn a_gguf_file_that_is_broken_inside_is_an_error_and_no_crash() {
    let folder = model_folder("shakespeare");
    let generation = Generation {
        max_tokens: 4,
        ..Generation::default()
    };
    let whole = fs::read(folder.join("shakespeare-q4_0.gguf")).unwrap();
    let job = completion("KING", generation);
    bear(&manifest(&folder, "manifest-q4_0.toml"), &whole, 100_000, job).await;
}

#[tokio::test]
async fn an_onnx_file_that_is_broken_inside_is_an_error_and_no_crash() {
    let folder = model_folder("breast-cancer");
    let whole = fs::read(folder.join("breast-cancer.onnx")).unwrap();
    let row = Tensor {
        name: "input".into(),
        datatype: Datatype::Fp32,
        shape: vec![1, 30],
        data: vec![0; 4 * 30],
    };
    let job = Job::Predict {
        inputs: vec![row],
        outputs: vec![],
    };
    bear(&manifest(&folder, "manifest.toml"), &whole, whole.len(), job).await;
}
