//! `xtask/exceptions.toml`: places that may break a rule, each with a reason and a last day.
//!
//! An exception past its day is a finding, and so is one that no longer covers anything, so the list only shrinks.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use toml::value::Datetime;

use crate::finding::Finding;
use crate::repo::Repo;

const FILE: &str = "xtask/exceptions.toml";

/// A calendar day (UTC): year, month, day.
pub(crate) type Day = (u16, u8, u8);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    exception: Vec<WrittenException>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenException {
    path: String,
    rule: String,
    reason: String,
    until: Datetime,
}

#[derive(Debug)]
struct Exception {
    path: String,
    rule: String,
    until: Day,
}

/// The exceptions that hold, and the day they are judged on.
#[derive(Debug)]
pub(crate) struct Exceptions {
    list: Vec<Exception>,
    today: Day,
}

impl Exceptions {
    /// Reads the repository's list; a missing file means no exceptions.
    pub(crate) fn read(repo: &Repo, today: Day) -> Result<Self> {
        let Some(text) = repo.text(FILE) else {
            return Ok(Self {
                list: Vec::new(),
                today,
            });
        };
        let written: Written = toml::from_str(text).with_context(|| format!("{FILE} cannot be read"))?;
        let list = written.exception.into_iter().map(meaning).collect::<Result<_>>()?;
        Ok(Self { list, today })
    }

    /// Takes out what an exception covers; adds the exceptions that are over or cover nothing. Sorted by path and line.
    pub(crate) fn apply(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let mut left: Vec<Finding> = findings
            .iter()
            .filter(|finding| !self.list.iter().any(|exception| self.holds(exception, finding)))
            .cloned()
            .collect();
        for exception in &self.list {
            let (year, month, day) = exception.until;
            if exception.until < self.today {
                left.push(Finding::file(
                    FILE,
                    "exception",
                    format!(
                        "the exception of {} from {} ended on {year}-{month:02}-{day:02}",
                        exception.path, exception.rule
                    ),
                ));
            } else if !findings.iter().any(|finding| self.holds(exception, finding)) {
                left.push(Finding::file(
                    FILE,
                    "exception",
                    format!(
                        "{} no longer breaks {}: delete its exception",
                        exception.path, exception.rule
                    ),
                ));
            }
        }
        left.sort();
        left
    }

    fn holds(&self, exception: &Exception, finding: &Finding) -> bool {
        exception.until >= self.today && exception.path == finding.path && exception.rule == finding.rule
    }
}

fn meaning(written: WrittenException) -> Result<Exception> {
    if written.reason.trim().is_empty() {
        bail!(
            "{FILE}: the exception of {} from {} gives no reason",
            written.path,
            written.rule
        );
    }
    let Some(date) = written.until.date else {
        bail!("{FILE}: `until` of {} must be a day, such as 2027-01-31", written.path);
    };
    Ok(Exception {
        path: written.path,
        rule: written.rule,
        until: (date.year, date.month, date.day),
    })
}

/// Today in UTC.
pub(crate) fn today() -> Result<Day> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    day_of(since.as_secs() / 86_400)
}

/// The civil day that lies this many days after 1970-01-01 (proleptic Gregorian calendar, years begun in March).
fn day_of(days: u64) -> Result<Day> {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Ok((u16::try_from(year)?, u8::try_from(month)?, u8::try_from(day)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        [[exception]]
        path = "a.rs"
        rule = "file-length"
        reason = "being split in two"
        until = 2026-12-31
    "#;

    fn long_file() -> Vec<Finding> {
        vec![Finding::file("a.rs", "file-length", "too long")]
    }

    fn exceptions(list: &str, today: Day) -> Result<Exceptions> {
        Exceptions::read(&Repo::of(&[(FILE, list)]), today)
    }

    #[test]
    fn an_exception_covers_its_file_and_rule_only() {
        let read = exceptions(LIST, (2026, 12, 31)).unwrap();
        assert_eq!(read.apply(long_file()), vec![]);
        let mut findings = long_file();
        findings.push(Finding::file("b.rs", "file-length", "too long"));
        findings.push(Finding::file("a.rs", "function-length", "too long"));
        assert_eq!(read.apply(findings).len(), 2);
    }

    #[test]
    fn an_exception_ends_after_its_day() {
        let left = exceptions(LIST, (2027, 1, 1)).unwrap().apply(long_file());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(
            left.iter()
                .any(|finding| finding.message.contains("ended on 2026-12-31"))
        );
    }

    #[test]
    fn an_exception_that_covers_nothing_is_said() {
        let left = exceptions(LIST, (2026, 11, 1)).unwrap().apply(vec![]);
        assert_eq!(left.len(), 1);
        assert!(left[0].message.contains("delete its exception"));
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_day() {
        assert!(exceptions(&LIST.replace("being split in two", " "), (2026, 1, 1)).is_err());
        assert!(exceptions(&LIST.replace("2026-12-31", "12:00:00"), (2026, 1, 1)).is_err());
        assert!(exceptions(&LIST.replace("rule =", "rules ="), (2026, 1, 1)).is_err());
    }

    #[test]
    fn days_are_civil_days() {
        assert_eq!(day_of(0).unwrap(), (1970, 1, 1));
        assert_eq!(day_of(11_016).unwrap(), (2000, 2, 29));
        assert_eq!(day_of(20_780).unwrap(), (2026, 11, 23));
    }
}
