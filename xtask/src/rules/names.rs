//! Names that say nothing: a room, folder or module is named by what it is in the market.

use crate::finding::Finding;
use crate::repo::Repo;

const RULE: &str = "name";
const BANNED: [&str; 6] = ["common", "utils", "util", "core", "types", "shared"];
/// Where the names are ours to choose.
const OURS: [&str; 6] = ["crates/", "tests/", "benches/", "xtask/", "models/", "script/"];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in repo
        .files
        .keys()
        .filter(|path| OURS.iter().any(|folder| path.starts_with(folder)))
    {
        let mut parts: Vec<&str> = path.split('/').collect();
        let file = parts.pop().unwrap_or_default();
        if let Some(module) = file.strip_suffix(".rs") {
            parts.push(module);
        }
        for part in parts {
            let word = part.strip_prefix("rialto-").unwrap_or(part);
            if BANNED.contains(&word) {
                findings.push(Finding::file(
                    path,
                    RULE,
                    format!("`{part}` names nothing of the market"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_found() {
        for path in [
            "crates/core/src/lib.rs",
            "crates/gateway/src/utils.rs",
            "tests/stories/common/mod.rs",
            "crates/rialto-types/a.md",
        ] {
            assert_eq!(check(&Repo::of(&[(path, "")])).len(), 1, "{path}");
        }
    }

    #[test]
    fn other_names_are_free() {
        let files = [
            ("crates/gateway/src/corelation.rs", ""),
            ("contracts/utils/a.sol", ""),
            ("crates/api/src/core.json", ""),
        ];
        assert_eq!(check(&Repo::of(&files)), vec![]);
    }
}
