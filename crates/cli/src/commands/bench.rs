//! `rialto model bench`: how fast each model is here, and what a unit of it draws. What was measured is kept, so that it
//! is measured once for each model, engine, processor and version of this program.

mod measure;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rialto_engine::{Engine, LoadOptions};
use rialto_machine::{Energy, Hardware, Meter};
use rialto_protocol::{EnergySource, ManifestHash, manifest::TaskKind};
use serde::{Deserialize, Serialize};

use crate::{
    data_dir::DataDir,
    models::{self, Found},
    output,
    settings::Settings,
};

use measure::{Measured, STEPS};

/// The file of what was measured.
const FILE: &str = "benchmarks.json";

/// Most benchmarks that are kept; the oldest go first.
const MAX_KEPT: usize = 256;

/// What was measured of one model on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Benchmark {
    /// `publisher/name:tag`.
    pub(crate) model: String,
    /// The model's content. Its id on chain has its publisher in it too, which does not change its speed.
    pub(crate) manifest: ManifestHash,
    /// The engine's class.
    pub(crate) engine: String,
    /// The processor, and how many threads it was given.
    pub(crate) processor: String,
    /// The version of this program.
    pub(crate) version: String,
    /// `token` or `row`.
    pub(crate) unit: String,
    /// Units of input a second: prompt tokens, or rows.
    pub(crate) input_per_second: f64,
    /// Tokens generated a second, by one request alone; `None` where nothing is.
    pub(crate) output_per_second: Option<f64>,
    /// Millionths of a joule for a unit of input.
    pub(crate) input_microjoules: u64,
    /// The same of output.
    pub(crate) output_microjoules: Option<u64>,
    /// How the energy is known.
    pub(crate) energy_source: EnergySource,
}

impl Benchmark {
    /// Millijoules of a unit that offers tell: of output, or of input where there is none. Rounded up.
    pub(crate) fn millijoules(&self) -> u64 {
        self.output_microjoules
            .unwrap_or(self.input_microjoules)
            .div_ceil(1_000)
    }

    fn is_same_kind(&self, other: &Self) -> bool {
        self.manifest == other.manifest
            && self.engine == other.engine
            && self.processor == other.processor
            && self.version == other.version
    }

    /// In a line: speeds and energy.
    pub(crate) fn said(&self) -> String {
        let unit = &self.unit;
        let about = if self.energy_source == EnergySource::Measured {
            ""
        } else {
            "about "
        };
        let input = format!("{:.0} {unit}s/s in", self.input_per_second);
        match self.output_per_second {
            Some(output) => format!(
                "{input}, {output:.0} {unit}s/s out, {about}{} mJ a {unit} out",
                milli(self.output_microjoules.unwrap_or(0))
            ),
            None => format!("{input}, {about}{} mJ a {unit}", milli(self.input_microjoules)),
        }
    }
}

/// Thousandths, for people: `12.3`, and three digits below one.
fn milli(micro: u64) -> String {
    if micro < 1_000 {
        return format!("0.{micro:03}");
    }
    format!("{}.{}", micro / 1_000, micro % 1_000 / 100)
}

/// This machine, for one benchmark after the other.
#[derive(Debug)]
pub(crate) struct Bench {
    hardware: Hardware,
    meter: Arc<Meter>,
}

impl Bench {
    /// For a machine and the meter that learns of it.
    pub(crate) fn new(hardware: Hardware, meter: Arc<Meter>) -> Self {
        Self { hardware, meter }
    }

    /// For this machine.
    pub(crate) fn here() -> Self {
        let hardware = Hardware::detect();
        let meter = Arc::new(Meter::new(&hardware));
        Self::new(hardware, meter)
    }

    /// What was measured of this model with this engine here, if it was.
    pub(crate) fn kept(
        &self,
        dir: &DataDir,
        model: &Found,
        engine: &dyn Engine,
        load: &LoadOptions,
    ) -> Option<Benchmark> {
        let wanted = self.blank(model, engine, load);
        kept(dir).into_iter().rev().find(|one| one.is_same_kind(&wanted))
    }

    /// What was measured of this model here with any engine, the newest first, if anything was.
    pub(crate) fn kept_of(&self, dir: &DataDir, model: &Found, load: &LoadOptions) -> Option<Benchmark> {
        let (manifest, processor) = (model.manifest.hash(), self.processor(load));
        let is_here = |one: &Benchmark| {
            one.manifest == manifest && one.processor == processor && one.version == env!("CARGO_PKG_VERSION")
        };
        kept(dir).into_iter().rev().find(is_here)
    }

    /// Measures, for some seconds, and keeps it.
    pub(crate) async fn measure(
        &self,
        dir: &DataDir,
        model: &Found,
        engine: &dyn Engine,
        load: &LoadOptions,
    ) -> Result<Benchmark> {
        let name = model.manifest.listing();
        let bar = progress(&name);
        let measured = measure::all(engine, &model.manifest, &self.meter, &bar).await;
        bar.finish_and_clear();
        let measured = measured.with_context(|| format!("{name} could not be measured"))?;
        let benchmark = self.filled(self.blank(model, engine, load), &measured);
        keep(dir, &benchmark)?;
        Ok(benchmark)
    }

    fn blank(&self, model: &Found, engine: &dyn Engine, load: &LoadOptions) -> Benchmark {
        Benchmark {
            model: model.manifest.listing(),
            manifest: model.manifest.hash(),
            engine: engine.info().class.clone(),
            processor: self.processor(load),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unit: unit(model.manifest.task).to_owned(),
            input_per_second: 0.0,
            output_per_second: None,
            input_microjoules: 0,
            output_microjoules: None,
            energy_source: EnergySource::Unknown,
        }
    }

    fn processor(&self, load: &LoadOptions) -> String {
        let threads = load.threads.unwrap_or(self.hardware.cpu.logical_cores);
        format!("{}, {threads} threads", self.hardware.cpu.brand)
    }

    fn filled(&self, blank: Benchmark, measured: &Measured) -> Benchmark {
        let used = |cpu| rialto_machine::Used {
            cpu,
            ..Default::default()
        };
        let per_unit = |energy: Energy, units: u64| energy.microjoules.div_ceil(units.max(1));
        let input = self.meter.energy(used(measured.input.cpu));
        let output = measured
            .output
            .map(|output| (self.meter.energy(used(output.cpu)), output.units));
        Benchmark {
            input_per_second: measured.input.per_second(),
            output_per_second: measured.output.map(|output| output.per_second()),
            input_microjoules: per_unit(input, measured.input.units),
            output_microjoules: output.map(|(energy, units)| per_unit(energy, units)),
            energy_source: input.source,
            ..blank
        }
    }
}

/// What a model's units are called.
fn unit(task: TaskKind) -> &'static str {
    match task {
        TaskKind::Chat | TaskKind::Completion | TaskKind::Embedding => "token",
        TaskKind::Predict => "row",
    }
}

/// On standard error, and only when that is a terminal.
fn progress(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(STEPS);
    if let Ok(style) = ProgressStyle::with_template("  {prefix} [{bar:24}] {msg} ({elapsed})") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(format!("measuring {name}"));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Everything that is kept; a file that cannot be read is as good as none, since all of it can be measured anew.
fn kept(dir: &DataDir) -> Vec<Benchmark> {
    let text = dir.read(FILE).ok().flatten().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn keep(dir: &DataDir, benchmark: &Benchmark) -> Result<()> {
    let mut all = kept(dir);
    all.retain(|one| !one.is_same_kind(benchmark));
    all.push(benchmark.clone());
    let surplus = all.len().saturating_sub(MAX_KEPT);
    all.drain(..surplus);
    dir.write(FILE, &serde_json::to_string_pretty(&all)?)
}

/// Measures the named models, or those that are sold, whatever is kept of them.
pub(crate) async fn run(settings: &Settings, named: &[PathBuf]) -> Result<()> {
    let named = if named.is_empty() {
        &settings.file.provider.models
    } else {
        named
    };
    let bench = Bench::here();
    let mut benchmarks = Vec::new();
    for model in models::find(named)? {
        let load = super::provide::load_options(settings, None, None);
        let engine = super::provide::load(&model, &load).await?;
        benchmarks.push(bench.measure(&settings.dir, &model, engine.as_ref(), &load).await?);
    }
    output::either(settings.json, &benchmarks, || {
        for benchmark in &benchmarks {
            output::line(format_args!("{:<32} {}", benchmark.model, benchmark.said()));
        }
    })
}

#[cfg(test)]
mod tests;
