//! Where every dependency comes from and under which licence, by what `cargo metadata` says and `deny.toml` allows.
//!
//! `cargo deny` checks the same and more (advisories, duplicates) where it is installed; this check needs nothing and
//! so runs in every gate.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::finding::Finding;
use crate::repo::Repo;

const LICENCE: &str = "licence";
const SOURCE: &str = "source";
const BAN: &str = "ban";
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Deny {
    licenses: DenyLicences,
    #[serde(default)]
    bans: DenyBans,
}

#[derive(Debug, Default, Deserialize)]
struct DenyBans {
    deny: Vec<DenyBan>,
}

#[derive(Debug, Deserialize)]
struct DenyBan {
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct DenyLicences {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<DenyException>,
    #[serde(default)]
    clarify: Vec<DenyClarified>,
}

#[derive(Debug, Deserialize)]
struct DenyException {
    #[serde(rename = "crate")]
    package: String,
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct DenyClarified {
    #[serde(rename = "crate")]
    package: String,
    expression: String,
}

/// Asks cargo for every package that this platform's build takes from the lock file, and judges each.
pub(crate) fn check(repo: &Repo) -> Result<Vec<Finding>> {
    let text = repo.text("deny.toml").context("deny.toml is missing")?;
    let deny: Deny = toml::from_str(text).context("deny.toml cannot be read")?;
    // Asked for all platforms, cargo would first download packages that nothing here builds.
    let version = run(repo, "rustc", &["-vV"])?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc names no host")?;
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        host,
    ];
    let metadata: Metadata =
        serde_json::from_str(&run(repo, "cargo", &arguments)?).context("cargo metadata cannot be read")?;
    Ok(metadata
        .packages
        .iter()
        .flat_map(|package| judge(package, &deny))
        .collect())
}

fn run(repo: &Repo, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .current_dir(&repo.top)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed what is not UTF-8"))
}

fn judge(package: &Package, deny: &Deny) -> Vec<Finding> {
    let place = format!("{} {}", package.name, package.version);
    let mut findings = Vec::new();
    if let Some(ban) = deny.bans.deny.iter().find(|ban| ban.package == package.name) {
        findings.push(Finding::file(&place, BAN, ban.reason.clone()));
    }
    if package.source.as_deref().is_some_and(|source| source != REGISTRY) {
        let source = package.source.as_deref().unwrap_or_default();
        findings.push(Finding::file(
            &place,
            SOURCE,
            format!("comes from {source}, not from the registry"),
        ));
    }
    let deny = &deny.licenses;
    let clarified = deny
        .clarify
        .iter()
        .find(|one| one.package == package.name)
        .map(|one| one.expression.as_str());
    let extra = deny
        .exceptions
        .iter()
        .filter(|one| one.package == package.name)
        .flat_map(|one| &one.allow);
    let allowed: BTreeSet<&str> = deny.allow.iter().chain(extra).map(String::as_str).collect();
    match clarified.or(package.license.as_deref()) {
        None if package.license_file.is_some() => {
            findings.push(Finding::file(
                &place,
                LICENCE,
                "states a licence file only: read it and clarify it in deny.toml",
            ));
        }
        None => findings.push(Finding::file(&place, LICENCE, "states no licence")),
        Some(expression) if !allows(expression, &allowed) => {
            findings.push(Finding::file(
                &place,
                LICENCE,
                format!("`{expression}` is not allowed by deny.toml"),
            ));
        }
        Some(_) => {}
    }
    findings
}

/// Whether an SPDX expression can be met with these licences. What cannot be read is not allowed.
fn allows(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // `MIT/Apache-2.0` is how old manifests write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed) == Some(true) && rest.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut met = all_of(words, allowed)?;
    while let Some(("OR", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        met |= all_of(words, allowed)?;
    }
    Some(met)
}

fn all_of(words: &mut &[&str], allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while let Some(("AND", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut &[&str], allowed: &BTreeSet<&str>) -> Option<bool> {
    let (word, rest) = words.split_first()?;
    *words = rest;
    if *word == "(" {
        let met = any_of(words, allowed)?;
        let (closing, rest) = words.split_first()?;
        *words = rest;
        return (*closing == ")").then_some(met);
    }
    if let [with, exception, rest @ ..] = *words
        && *with == "WITH"
    {
        *words = rest;
        return Some(allowed.contains(format!("{word} WITH {exception}").as_str()));
    }
    Some(allowed.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        allows(
            expression,
            &["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"]
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn expressions_are_read() {
        for expression in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(met(expression), "{expression}");
        }
        for expression in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "",
            "MIT OR",
            "(MIT",
            "MIT MIT",
            "(GPL-3.0 OR AGPL-3.0) AND MIT",
            "OR",
            "MIT WITH LLVM-exception",
        ] {
            assert!(!met(expression), "{expression}");
        }
    }

    #[test]
    fn a_package_from_elsewhere_or_without_a_licence_is_found() {
        let deny: Deny = toml::from_str(
            "[licenses]\nallow = [\"MIT\"]\nclarify = [{ crate = \"b\", expression = \"MIT\", license-files = [] }]\n\
             exceptions = [{ crate = \"c\", allow = [\"MPL-2.0\"] }]\n[bans]\n\
             deny = [{ crate = \"d\", reason = \"another stands in its place\" }]",
        )
        .unwrap();
        let rules = |name: &str, licence: Option<&str>, source: &str| -> Vec<&'static str> {
            let package = Package {
                name: name.into(),
                version: "1.0.0".into(),
                license: licence.map(str::to_owned),
                license_file: None,
                source: Some(source.into()),
            };
            judge(&package, &deny).into_iter().map(|finding| finding.rule).collect()
        };
        assert_eq!(rules("a", Some("MIT"), REGISTRY), Vec::<&str>::new());
        assert_eq!(
            rules("a", Some("MPL-2.0"), "git+https://example.org/a"),
            vec![SOURCE, LICENCE]
        );
        assert_eq!(rules("a", None, REGISTRY), vec![LICENCE]);
        assert_eq!(rules("b", None, REGISTRY), Vec::<&str>::new());
        assert_eq!(rules("c", Some("MPL-2.0"), REGISTRY), Vec::<&str>::new());
        assert_eq!(rules("d", Some("MIT"), REGISTRY), vec![BAN]);
    }
}
