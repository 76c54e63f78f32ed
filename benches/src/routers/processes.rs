//! What the kernel says of a process and its children.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};

/// Clock ticks in a second: what `getconf CLK_TCK` says on every Linux.
const TICKS: f64 = 100.0;

/// A process and everything that it started.
#[derive(Debug, Clone, Copy)]
pub struct Tree(pub u32);

impl Tree {
    /// Processor time of all of it so far, in microseconds, with threads and children that have ended. Ticks are ten
    /// milliseconds: only the difference over much work says something.
    pub fn processor_micros(self) -> Result<f64> {
        let mut ticks = 0.0;
        for pid in self.members()? {
            ticks += ticks_of(pid).unwrap_or(0.0);
        }
        Ok(ticks / TICKS * 1e6)
    }

    /// Memory in use now and at most so far, in MiB.
    pub fn memory(self) -> Result<(f64, f64)> {
        let (mut now, mut most) = (0.0, 0.0);
        for pid in self.members()? {
            now += status_kib(pid, "VmRSS:").unwrap_or(0.0) / 1_024.0;
            most += status_kib(pid, "VmHWM:").unwrap_or(0.0) / 1_024.0;
        }
        Ok((now, most))
    }

    fn members(self) -> Result<Vec<u32>> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may end while we look.
            let parent = fields(pid).and_then(|fields| fields.get(1)?.parse().ok());
            if let Some(parent) = parent {
                children.entry(parent).or_default().push(pid);
            }
        }
        let (mut members, mut next) = (Vec::new(), vec![self.0]);
        while let Some(pid) = next.pop() {
            next.extend(children.get(&pid).into_iter().flatten());
            members.push(pid);
        }
        ticks_of(self.0).context("the process is gone")?;
        Ok(members)
    }
}

/// The fields of `/proc/PID/stat` from the state on: what stands before may hold anything.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// utime, stime, cutime and cstime.
fn ticks_of(pid: u32) -> Option<f64> {
    let fields = fields(pid)?;
    let times = fields.get(11..15)?;
    times.iter().map(|time| time.parse::<f64>().ok()).sum()
}

fn status_kib(pid: u32, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The figure that so many percent are not above.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}
