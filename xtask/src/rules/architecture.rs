//! Every path that a page of ours names exists.
//!
//! In ARCHITECTURE.md, CONTRIBUTING.md and SECURITY.md each word in backticks that is a path from the top of the
//! repository, and in every page each relative link.

use crate::finding::Finding;
use crate::repo::Repo;

const RULE: &str = "path-exists";
const PAGES: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
/// First parts of the paths that are ours; a word that begins otherwise, such as a route or a model's name, is no path.
const TOPS: [&str; 14] = [
    "crates",
    "contracts",
    "models",
    "tests",
    "benches",
    "fuzz",
    "examples",
    "docs",
    "config",
    "xtask",
    "script",
    ".ci",
    ".config",
    "src",
];
/// Endings of the files that a page may name without a folder.
const ENDINGS: [&str; 8] = [".rs", ".md", ".toml", ".sol", ".sh", ".py", ".json", ".mjs"];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (page, text) in repo.texts().filter(|(path, _)| path.ends_with(".md")) {
        let mut fenced = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for missing in missing_on(repo, page, line) {
                findings.push(Finding::line(
                    page,
                    index + 1,
                    RULE,
                    format!("`{missing}` does not exist"),
                ));
            }
        }
    }
    findings
}

fn missing_on(repo: &Repo, page: &str, line: &str) -> Vec<String> {
    let mut missing = Vec::new();
    if PAGES.contains(&page) {
        let words = line.split('`').skip(1).step_by(2).filter(|word| is_path(word));
        missing.extend(words.filter(|word| !named(repo, word)).map(str::to_owned));
    }
    let targets = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next());
    let relative = targets.filter(|target| !target.is_empty() && !target.contains(':') && !target.starts_with('/'));
    missing.extend(relative.filter(|target| !linked(repo, page, target)).map(str::to_owned));
    missing
}

fn is_path(word: &str) -> bool {
    if word.contains([' ', '<', '>', '{', '*', '$', '(', ':', '…', '=']) || word.starts_with("target/") {
        return false;
    }
    match word.split_once('/') {
        Some((top, _)) => TOPS.contains(&top),
        None => ENDINGS
            .iter()
            .any(|ending| word.len() > ending.len() && word.ends_with(ending)),
    }
}

/// A page may name a file from the top, or, where the text is about one room, by the end of its path.
fn named(repo: &Repo, word: &str) -> bool {
    let word = word.trim_end_matches('/');
    let tail = format!("/{word}");
    repo.has(word) || repo.files.keys().any(|path| path.ends_with(&tail))
}

fn linked(repo: &Repo, page: &str, target: &str) -> bool {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                if parts.pop().is_none() {
                    return false;
                }
            }
            part => parts.push(part),
        }
    }
    parts.is_empty() || repo.has(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str, text: &str) -> Vec<String> {
        let repo = Repo::of(&[
            (page, text),
            ("crates/network/src/dial.rs", ""),
            ("docs/status-codes.md", ""),
        ]);
        check(&repo).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_path_that_is_gone_is_found() {
        for text in [
            "see `crates/networks/`",
            "`fuzz/`",
            "in `accept.rs`",
            "`NOTES.md`",
            "`src/nat.rs`",
        ] {
            assert_eq!(found("ARCHITECTURE.md", text).len(), 1, "{text}");
        }
        assert_eq!(
            found("docs/use.md", "[codes](status-code.md) [up](../../a.md)").len(),
            2
        );
    }

    #[test]
    fn a_path_that_exists_is_not() {
        let text = "`crates/network/` `crates/network/src/dial.rs` `src/dial.rs` `dial.rs` [codes](docs/status-codes.md#a) [x](https://a.b/c.md)";
        assert_eq!(found("ARCHITECTURE.md", text), Vec::<String>::new());
        assert_eq!(
            found("docs/use.md", "[codes](status-codes.md) [top](../ARCHITECTURE.md)"),
            vec!["`../ARCHITECTURE.md` does not exist"]
        );
    }

    #[test]
    fn other_words_are_no_paths() {
        let text = "`/v1/models` `rialto/shakespeare:q8_0` `crates/*/src` `target/release` `application/json` `docs/NAME <x>`\n```sh\n`docs/no`\n```\n";
        assert_eq!(found("ARCHITECTURE.md", text), Vec::<String>::new());
    }
}
