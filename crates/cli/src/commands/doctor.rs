//! `rialto doctor`: what is wrong here, and how to mend it. What is only less than it could be is said, and fails nothing.

mod models;
mod place;

use anyhow::{Result, bail};
use rialto_machine::{CpuReadout, Gpu, Hardware, Meter, Obstacle};
use serde::Serialize;

use super::machine;
use crate::{output, settings::Settings};

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Good,
    /// It works, and could do better.
    Fair,
    /// It does not work.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    state: State,
    /// Not wrong.
    ok: bool,
    said: String,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, said: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state,
            ok: state != State::Wrong,
            said: said.into(),
        }
    }

    /// Good, or wrong with the error's words, which say how to mend it.
    fn of(what: impl Into<String>, result: Result<String>) -> Self {
        match result {
            Ok(said) => Self::new(what, State::Good, said),
            Err(error) => Self::new(what, State::Wrong, format!("{error:#}")),
        }
    }
}

/// Looks at everything; fails when something is wrong.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let hardware = Hardware::detect();
    let mut findings = of_machine(&hardware, &Meter::new(&hardware));
    findings.extend(models::look(settings, &hardware).await);
    findings.extend(place::look(settings).await);
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    output::either(settings.json, &findings, || {
        for finding in &findings {
            let mark = match finding.state {
                State::Good => "✓",
                State::Fair => "!",
                State::Wrong => "✗",
            };
            output::line(format_args!("{mark} {:<16} {}", finding.what, finding.said));
        }
    })?;
    if wrong > 0 {
        bail!(
            "{wrong} of {} checks failed: each line above says what to do",
            findings.len()
        );
    }
    Ok(())
}

fn of_machine(hardware: &Hardware, meter: &Meter) -> Vec<Finding> {
    let mut findings = vec![processor(hardware)];
    findings.extend(hardware.gpus.iter().map(gpu));
    findings.push(sandbox(hardware));
    findings.push(energy(meter));
    findings
}

fn processor(hardware: &Hardware) -> Finding {
    let said = machine::processor(hardware);
    let is_slow = cfg!(target_arch = "x86_64") && !hardware.cpu.features.contains(&"avx2");
    if is_slow {
        let advice = "it has no avx2, so that language models are several times slower: sell from a processor of 2013 or \
                      later, or from a virtual machine that passes its host's processor on";
        return Finding::new("processor", State::Fair, format!("{said}; {advice}"));
    }
    Finding::new("processor", State::Good, said)
}

fn gpu(gpu: &Gpu) -> Finding {
    let features = gpu.worker_features;
    let build: Vec<String> = features
        .iter()
        .map(|feature| format!("`--features {feature}`"))
        .collect();
    let said = if gpu.has_driver {
        format!(
            "{}: only a worker that is built for it uses it: `cargo build --release -p rialto-worker` with {}",
            gpu.name,
            build.join(" or ")
        )
    } else {
        format!(
            "{}: no driver answers for it: install the maker's driver, and try `nvidia-smi`",
            gpu.name
        )
    };
    Finding::new("GPU", State::Fair, said)
}

fn sandbox(hardware: &Hardware) -> Finding {
    let said = machine::sandbox(hardware);
    if hardware.sandbox.is_whole() {
        return Finding::new(
            "sandbox",
            State::Good,
            format!("{said}: a model's process can be closed in"),
        );
    }
    let advice = if cfg!(target_os = "linux") {
        "a hostile model file is held less firmly here: use a kernel of 5.13 or later with Landlock among its modules \
         (add `lsm=landlock,…` to its command line), and a container that allows `landlock_*` and `seccomp`"
    } else {
        "this system has neither: sell only models whose makers you trust, or sell from Linux"
    };
    Finding::new("sandbox", State::Fair, format!("{said}: {advice}"))
}

fn energy(meter: &Meter) -> Finding {
    let state = match meter.cpu_readout() {
        // Nothing that a seller could change here.
        CpuReadout::Rapl(_) | CpuReadout::Estimated(Obstacle::Virtual) => State::Good,
        CpuReadout::Estimated(_) => State::Fair,
    };
    Finding::new("energy", state, machine::energy(meter))
}

#[cfg(test)]
mod tests {
    use rialto_machine::{Root, Vendor};

    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Hardware, Meter) {
        let folder = tempfile::tempdir().unwrap();
        for (relative, text) in files {
            let path = folder.path().join(relative);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::at(folder.path());
        let hardware = Hardware::detect_in(&root);
        let meter = Meter::in_root(root, &hardware);
        (folder, hardware, meter)
    }

    fn one<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.what == what).unwrap()
    }

    #[test]
    fn an_old_machine_is_told_what_it_lacks_and_fails_nothing() {
        let cpuinfo = "processor: 0\nmodel name: Old\nflags: sse avx\n";
        let (_folder, hardware, meter) = machine(&[("proc/cpuinfo", cpuinfo)]);
        let findings = of_machine(&hardware, &meter);
        assert!(findings.iter().all(|finding| finding.ok));
        assert_eq!(one(&findings, "energy").state, State::Fair);
        assert!(one(&findings, "energy").said.contains("modprobe"));
        assert_eq!(one(&findings, "sandbox").state, State::Fair);
        assert!(one(&findings, "sandbox").said.contains("no Landlock"));
        if cfg!(target_arch = "x86_64") {
            assert!(one(&findings, "processor").said.contains("avx2"));
        }
    }

    #[test]
    fn a_card_is_told_which_build_uses_it_or_that_its_driver_is_missing() {
        let cpuinfo = "processor: 0\nmodel name: New\nflags: avx avx2\n";
        let (_folder, hardware, meter) = machine(&[
            ("proc/cpuinfo", cpuinfo),
            ("sys/class/drm/card0/device/vendor", "0x1002"),
            ("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de"),
            ("sys/bus/pci/devices/0000:01:00.0/class", "0x030000"),
        ]);
        assert_eq!(hardware.gpus.len(), 2);
        for gpu in &hardware.gpus {
            let finding = super::gpu(gpu);
            match gpu.vendor {
                Vendor::Nvidia => assert!(finding.said.contains("nvidia-smi"), "{}", finding.said),
                _ => assert!(finding.said.contains("`--features rocm`"), "{}", finding.said),
            }
        }
        assert_eq!(one(&of_machine(&hardware, &meter), "processor").state, State::Good);
    }

    #[test]
    fn a_virtual_machine_cannot_be_mended_from_within() {
        let (_folder, hardware, meter) = machine(&[("proc/cpuinfo", "processor: 0\nflags: avx avx2 hypervisor\n")]);
        let findings = of_machine(&hardware, &meter);
        assert_eq!(one(&findings, "energy").state, State::Good);
        assert!(one(&findings, "energy").said.contains("estimated at"));
    }
}
