//! What a prediction costs: in this process, through a worker, and through Python's onnxruntime, in turns.
//!
//! `cargo run --release -p rialto-benches --bin predict -- [PYTHON [MODEL FOLDER]]`. The folder holds a `manifest.toml` of
//! a model with one FP32 input of two dimensions; the shipped classifier if none is named. Without a Python that has
//! onnxruntime, only the first two are measured.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use rialto_benches::{Report, median, processor_nanos};
use rialto_engine::{Engine, LoadOptions, Piece, Sandboxed, Scope};
use rialto_protocol::{
    job::{Datatype, Job, Tensor},
    manifest::Manifest,
};
use rialto_worker::{Steps, onnx::OnnxEngine};
use serde_json::Value;
use tokio::sync::watch;

/// Rows of a request, and runs of each turn.
const SIZES: [(u64, usize); 3] = [(1, 4_000), (32, 1_000), (1_000, 60)];
const TURNS: usize = 9;

/// What one turn showed.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    cpu_nanos: f64,
    p50: f64,
    p99: f64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let python = arguments.next();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = arguments
        .next()
        .map_or_else(|| root.join("models/breast-cancer"), PathBuf::from);
    // The worker's own kind of runtime: what is measured of this process is what happens in that one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench(&root, &folder, python.as_deref()))
}

async fn bench(root: &Path, folder: &Path, python: Option<&str>) -> Result<()> {
    let manifest = Manifest::from_toml(&std::fs::read_to_string(folder.join("manifest.toml"))?)?;
    let spec = manifest.inputs.first().context("the model has no input")?;
    ensure!(
        spec.datatype == Datatype::Fp32 && spec.shape.len() == 2,
        "one table of FP32 is what is measured"
    );
    let columns = u64::try_from(*spec.shape.get(1).context("no columns")?)?;
    let table = made_up(1_000 * columns);
    let shared = root.join("target/onnxruntime/libonnxruntime.so");
    let options = LoadOptions {
        onnxruntime: shared.is_file().then_some(shared),
        ..LoadOptions::default()
    };
    let here = OnnxEngine::load(&manifest, folder, &options, &Steps::default())?;
    let there = Sandboxed::load(&manifest, folder, &options).await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &table)?;
    let model = folder.join(&manifest.artifacts.first().context("no file")?.path);
    let mut python = python
        .map(|python| Python::start(python, &model, file.path(), columns))
        .transpose()?;

    let mut report = Report::new("predict");
    for (rows, runs) in SIZES {
        let tensor = Tensor {
            name: spec.name.clone(),
            datatype: Datatype::Fp32,
            shape: vec![rows, columns],
            data: table
                .get(..usize::try_from(rows * columns * 4)?)
                .context("rows")?
                .to_vec(),
        };
        let mut turns: [Vec<Turn>; 3] = Default::default();
        let [own, border, other] = &mut turns;
        for _ in 0..TURNS {
            own.push(turn(&here, &tensor, runs, None).await?);
            border.push(turn(&there, &tensor, runs, there.process_id()).await?);
            if let Some(python) = &mut python {
                other.push(python.turn(rows, runs)?);
            }
        }
        tell(&mut report, rows, &turns);
    }
    report.finish()
}

fn tell(report: &mut Report, rows: u64, turns: &[Vec<Turn>; 3]) {
    let of = |turns: &[Turn], figure: fn(&Turn) -> f64| median(turns.iter().map(figure).collect());
    for (name, turns) in ["in process", "through a worker", "Python"].iter().zip(turns) {
        if turns.is_empty() {
            continue;
        }
        report.row(format!("{rows} rows, {name}: p50"), of(turns, |turn| turn.p50), "µs");
        report.row(format!("{rows} rows, {name}: p99"), of(turns, |turn| turn.p99), "µs");
        report.row(
            format!("{rows} rows, {name}: processor"),
            of(turns, |turn| turn.cpu_nanos) / 1e3,
            "µs",
        );
    }
    let [own, border, other] = turns;
    let crossing = own.iter().zip(border).map(|(own, border)| border.p50 - own.p50);
    report.row(
        format!("{rows} rows: the border, p50"),
        median(crossing.collect()),
        "µs",
    );
    if !other.is_empty() {
        let ratio = own
            .iter()
            .zip(other)
            .map(|(own, other)| own.cpu_nanos / other.cpu_nanos);
        report.row(
            format!("{rows} rows: processor against Python's"),
            median(ratio.collect()),
            "×",
        );
    }
}

/// Sends requests one after the other.
async fn turn(engine: &dyn Engine, tensor: &Tensor, runs: usize, worker: Option<u32>) -> Result<Turn> {
    let (_grant, paid) = watch::channel(0);
    let mut times = Vec::with_capacity(runs);
    let before = processor_nanos()? + worker.map_or(Ok(0), processor_nanos_of)?;
    for _ in 0..runs {
        let began = Instant::now();
        let job = Job::Predict {
            inputs: vec![tensor.clone()],
            outputs: Vec::new(),
        };
        let mut answer = engine.prepare(job, Scope::Alone).await?.start(paid.clone());
        while let Piece::Output(_) = answer.pieces.recv().await.context("the engine died")?? {}
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let after = processor_nanos()? + worker.map_or(Ok(0), processor_nanos_of)?;
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(part).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a bench's figures")]
    let cpu_nanos = (after - before) as f64 / runs as f64;
    Ok(Turn {
        cpu_nanos,
        p50: at(runs / 2),
        p99: at(runs * 99 / 100),
    })
}

/// Processor time of another process, in nanoseconds.
fn processor_nanos_of(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(sum)
}

/// Numbers of the size of the classifier's measurements.
fn made_up(count: u64) -> Vec<u8> {
    let number = |place: u64| {
        let mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        f32::from(u16::try_from(mixed).unwrap_or_default()) / 1_000.0
    };
    (0..count).flat_map(|place| number(place).to_le_bytes()).collect()
}

struct Python {
    child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Python {
    fn start(python: &str, model: &Path, rows: &Path, columns: u64) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/onnx_rows.py");
        let mut child = Command::new(python)
            .args([&script, model, rows])
            .arg(columns.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = child.stdin.take().context("no way in")?;
        let told = BufReader::new(child.stdout.take().context("no way out")?);
        Ok(Self { child, ask, told })
    }

    fn turn(&mut self, rows: u64, runs: usize) -> Result<Turn> {
        writeln!(self.ask, "{rows} {runs}")?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).context("Python with onnxruntime is needed")?;
        let figure = |name: &str| told.get(name).and_then(Value::as_f64).context("a figure is missing");
        Ok(Turn {
            cpu_nanos: figure("cpu_nanos")?,
            p50: figure("p50")?,
            p99: figure("p99")?,
        })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
