//! Which room may know which: of our own rooms, and of the libraries that only some rooms may touch.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use crate::finding::Finding;
use crate::repo::Repo;

const DIRECTION: &str = "dependency-direction";
const LIBRARY: &str = "library-place";
const LINTS: &str = "workspace-lints";

/// Our rooms, each with the rooms it may know. Dependencies point downward only.
const ROOMS: [(&str, &[&str]); 12] = [
    ("rialto-protocol", &[]),
    ("rialto-api", &[]),
    ("rialto-network", &["rialto-protocol"]),
    ("rialto-engine", &["rialto-protocol", "rialto-api"]),
    // A program of its own: no room of the market links what it links.
    ("rialto-worker", &["rialto-protocol", "rialto-engine"]),
    ("rialto-settlement", &["rialto-protocol"]),
    ("rialto-machine", &["rialto-protocol"]),
    (DEVCHAIN, &[]),
    (
        "rialto-provider",
        &[
            "rialto-protocol",
            "rialto-network",
            "rialto-engine",
            "rialto-settlement",
            "rialto-machine",
        ],
    ),
    (
        "rialto-gateway",
        &["rialto-protocol", "rialto-network", "rialto-settlement", "rialto-api"],
    ),
    ("rialto-cli", &ALL_BELOW),
    ("rialto-testkit", &ALL_BELOW),
];
const ALL_BELOW: [&str; 9] = [
    "rialto-protocol",
    "rialto-api",
    "rialto-network",
    "rialto-engine",
    "rialto-settlement",
    "rialto-machine",
    "rialto-devchain",
    "rialto-provider",
    "rialto-gateway",
];
/// Packages that stand around the market and may know every room: they are in no release.
const AROUND: [&str; 5] = [
    "rialto-stories",
    "rialto-benches",
    "rialto-differential",
    "rialto-fuzz",
    "rialto-fuzz-targets",
];
/// Knows nothing of the market.
const CHORES: &str = "xtask";
const TESTKIT: &str = "rialto-testkit";
/// Knows no room, so that a room's tests may run on it.
const DEVCHAIN: &str = "rialto-devchain";

/// Libraries by the beginning of their name, and the packages that may depend on them.
const LIBRARIES: [(&str, &[&str]); 16] = [
    (
        "alloy",
        &[
            "rialto-settlement",
            "rialto-devchain",
            "rialto-testkit",
            "rialto-stories",
            "rialto-benches",
            "rialto-differential",
        ],
    ),
    ("revm", &["rialto-devchain", "rialto-differential"]),
    ("iroh", &["rialto-network"]),
    ("quinn", &["rialto-network"]),
    ("llama-cpp", &["rialto-worker"]),
    ("ort", &["rialto-worker"]),
    ("ndarray", &["rialto-worker"]),
    ("candle", &["rialto-worker"]),
    ("tract", &["rialto-worker"]),
    ("tokenizers", &["rialto-worker"]),
    ("llguidance", &["rialto-worker"]),
    ("landlock", &["rialto-worker", "rialto-machine"]),
    ("seccompiler", &["rialto-worker"]),
    ("nvml-wrapper", &["rialto-machine"]),
    ("sqlx", &["rialto-provider", "rialto-gateway"]),
    (
        "anyhow",
        &[
            "rialto-cli",
            "rialto-testkit",
            "rialto-stories",
            "rialto-benches",
            "rialto-differential",
            CHORES,
        ],
    ),
];

/// A dependency as one manifest states it.
struct Stated {
    name: String,
    development: bool,
}

pub(crate) fn check(repo: &Repo) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in repo.texts().filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        let manifest: Table = toml::from_str(text).with_context(|| format!("{path} cannot be read"))?;
        let Some(package) = manifest
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(Value::as_str)
        else {
            continue;
        };
        let ours = known_rooms(package);
        if ours.is_none() {
            let help = "is no room of the table in xtask/src/rules/dependencies.rs: say there what it may know";
            findings.push(Finding::file(path, DIRECTION, format!("`{package}` {help}")));
        }
        for stated in dependencies(&manifest) {
            findings.extend(judge(path, package, ours.as_ref(), &stated));
        }
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(Value::as_bool);
        if lints != Some(true) {
            findings.push(Finding::file(path, LINTS, "`[lints] workspace = true` is missing"));
        }
    }
    Ok(findings)
}

/// The rooms that a package may know; none when the package is not in the table.
fn known_rooms(package: &str) -> Option<BTreeSet<&'static str>> {
    if package == CHORES {
        return Some(BTreeSet::new());
    }
    if AROUND.contains(&package) {
        return Some(
            ALL_BELOW
                .into_iter()
                .chain([TESTKIT, "rialto-cli", "rialto-worker", "rialto-fuzz"])
                .collect(),
        );
    }
    let (_, rooms) = ROOMS.iter().find(|(room, _)| *room == package)?;
    Some(rooms.iter().copied().collect())
}

fn judge(path: &str, package: &str, ours: Option<&BTreeSet<&'static str>>, stated: &Stated) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = stated.name.as_str();
    if let Some(rooms) = ours.filter(|_| name.starts_with("rialto-")) {
        // A room's own tests may use the testkit and a chain; nothing that is released may.
        let testing = stated.development && [TESTKIT, DEVCHAIN].contains(&name) && package != "rialto-cli";
        if !rooms.contains(name) && !testing {
            findings.push(Finding::file(
                path,
                DIRECTION,
                format!("`{package}` must not know `{name}`"),
            ));
        }
    }
    for (library, places) in LIBRARIES {
        if is_of(name, library) && !places.contains(&package) {
            let places = places.join(", ");
            findings.push(Finding::file(
                path,
                LIBRARY,
                format!("`{name}` belongs to {places} only, not to `{package}`"),
            ));
        }
    }
    findings
}

/// True for the library itself and for its parts, such as `alloy` and `alloy-primitives`.
fn is_of(name: &str, library: &str) -> bool {
    name.strip_prefix(library)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// Every dependency of every kind and platform, by the name of the package that it is.
fn dependencies(manifest: &Table) -> Vec<Stated> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = platforms.filter_map(|(_, table)| table.as_table()).chain([manifest]);
    let mut stated = Vec::new();
    for table in tables {
        for (kind, development) in [
            ("dependencies", false),
            ("build-dependencies", false),
            ("dev-dependencies", true),
        ] {
            for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let renamed = value.get("package").and_then(Value::as_str);
                stated.push(Stated {
                    name: renamed.unwrap_or(key).to_owned(),
                    development,
                });
            }
        }
    }
    stated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(package: &str, dependencies: &str) -> Vec<&'static str> {
        let manifest = format!("[package]\nname = \"{package}\"\n[lints]\nworkspace = true\n{dependencies}");
        let found = check(&Repo::of(&[("crates/a/Cargo.toml", &manifest)])).unwrap();
        found.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_room_may_know_what_lies_below() {
        let below = "[dependencies]\nrialto-protocol.workspace = true\nrialto-network.workspace = true\nsqlx = \"0.9\"";
        assert_eq!(rules("rialto-gateway", below), Vec::<&str>::new());
    }

    #[test]
    fn gateway_and_provider_never_know_each_other() {
        assert_eq!(
            rules("rialto-gateway", "[dependencies]\nrialto-provider.workspace = true"),
            vec![DIRECTION]
        );
        assert_eq!(
            rules("rialto-provider", "[dev-dependencies]\nrialto-gateway.workspace = true"),
            vec![DIRECTION]
        );
        assert_eq!(
            rules("rialto-protocol", "[dependencies]\nrialto-api.workspace = true"),
            vec![DIRECTION]
        );
    }

    #[test]
    fn the_testkit_is_for_tests() {
        assert_eq!(
            rules("rialto-gateway", "[dev-dependencies]\nrialto-testkit.workspace = true"),
            Vec::<&str>::new()
        );
        assert_eq!(
            rules("rialto-gateway", "[dependencies]\nrialto-testkit.workspace = true"),
            vec![DIRECTION]
        );
        assert_eq!(
            rules("rialto-cli", "[dependencies]\nrialto-testkit.workspace = true"),
            vec![DIRECTION]
        );
    }

    #[test]
    fn libraries_stay_in_their_rooms() {
        for (package, library) in [
            ("rialto-gateway", "alloy-primitives = \"1\""),
            ("rialto-provider", "iroh = \"1\""),
            ("rialto-cli", "ort = \"2\""),
            ("rialto-settlement", "sqlx = \"0.9\""),
            ("rialto-network", "anyhow = \"1\""),
            ("rialto-gateway", "chain = { package = \"revm\", version = \"43\" }"),
        ] {
            assert_eq!(
                rules(package, &format!("[dependencies]\n{library}")),
                vec![LIBRARY],
                "{package} {library}"
            );
            assert_eq!(
                rules(package, &format!("[target.'cfg(unix)'.dependencies]\n{library}")),
                vec![LIBRARY]
            );
        }
        assert_eq!(
            rules("rialto-gateway", "[dependencies]\northography = \"1\""),
            Vec::<&str>::new()
        );
    }

    #[test]
    fn a_new_package_is_put_in_the_table_and_under_the_lints() {
        assert_eq!(rules("rialto-moon", ""), vec![DIRECTION]);
        let found = check(&Repo::of(&[(
            "crates/a/Cargo.toml",
            "[package]\nname = \"rialto-api\"",
        )]))
        .unwrap();
        assert_eq!(found.first().map(|finding| finding.rule), Some(LINTS));
    }
}
