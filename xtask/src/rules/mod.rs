//! The house rules, one file each. A rule reads the repository and says what breaks it; it changes nothing.

mod architecture;
mod dependencies;
mod names;
mod place;
mod sizes;
mod status_codes;

use anyhow::Result;

use crate::docs;
use crate::finding::Finding;
use crate::repo::Repo;

/// What every rule says, unsorted.
pub(crate) fn check_all(repo: &Repo) -> Result<Vec<Finding>> {
    let mut findings = sizes::check(repo);
    findings.extend(dependencies::check(repo)?);
    findings.extend(names::check(repo));
    findings.extend(architecture::check(repo));
    findings.extend(docs::check(repo));
    findings.extend(status_codes::check(repo));
    findings.extend(place::check(repo, &place::words(repo)?));
    Ok(findings)
}
