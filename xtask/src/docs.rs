//! Commands in the documentation, each with a word on whether it is tested.
//!
//! A block of shell commands (` ```sh `, `bash`, `shell` or `console`) in README.md, CONTRIBUTING.md or a page of
//! `docs/` has a comment on the line before it: `<!-- test: NAME -->` when the gate runs it, or
//! `<!-- not tested: REASON -->`. `script/test` asks this program for every tested block and runs it in bash.
//! In a `console` block the lines that begin with `$ ` are the commands and the others are what they print.

use anyhow::{Result, bail};

use crate::finding::Finding;
use crate::repo::Repo;

/// The rule's name.
pub(crate) const RULE: &str = "docs-tested";

/// A block of shell commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The page it stands on.
    pub(crate) path: String,
    /// Line of the opening fence, counted from 1.
    pub(crate) line: usize,
    /// What the comment before it says.
    pub(crate) mark: Mark,
    /// The commands, a line each.
    pub(crate) script: String,
}

/// The comment before a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The gate runs it under this name.
    Tested(String),
    /// The gate does not run it, and the page says why.
    NotTested,
    /// No comment, or one that cannot be read.
    Missing,
}

/// A block that the gate runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tested {
    pub(crate) name: String,
    pub(crate) script: String,
}

/// Every tested block, in the order of the pages. Fails when a name is used twice.
pub(crate) fn tested_blocks(repo: &Repo) -> Result<Vec<Tested>> {
    let mut tested: Vec<Tested> = Vec::new();
    for block in blocks(repo) {
        let Mark::Tested(name) = block.mark else {
            continue;
        };
        if tested.iter().any(|other| other.name == name) {
            bail!("{}:{}: the test name {name} is used twice", block.path, block.line);
        }
        tested.push(Tested {
            name,
            script: block.script,
        });
    }
    Ok(tested)
}

/// Says which blocks carry no mark.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let blocks = blocks(repo);
    let unmarked = blocks.iter().filter(|block| block.mark == Mark::Missing).map(|block| {
        let help = "mark these commands with `<!-- test: NAME -->` or `<!-- not tested: REASON -->` on the line before";
        Finding::line(&block.path, block.line, RULE, help)
    });
    let empty = blocks
        .iter()
        .filter(|block| block.script.trim().is_empty())
        .map(|block| {
            let help = "this block holds no command; in a `console` block a command begins with `$ `";
            Finding::line(&block.path, block.line, RULE, help)
        });
    unmarked.chain(empty).collect()
}

fn blocks(repo: &Repo) -> Vec<Block> {
    let pages = repo.texts().filter(|(path, _)| is_page(path));
    pages.flat_map(|(path, text)| blocks_of(path, text)).collect()
}

fn is_page(path: &str) -> bool {
    path == "README.md" || path == "CONTRIBUTING.md" || (path.starts_with("docs/") && path.ends_with(".md"))
}

fn blocks_of(path: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut before = "";
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            before = line;
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.trim_start().starts_with("```"))
            .collect();
        let script = match language.trim() {
            "sh" | "bash" | "shell" => body.iter().map(|line| format!("{line}\n")).collect(),
            "console" => body
                .iter()
                .filter_map(|line| line.trim_start().strip_prefix("$ "))
                .map(|line| format!("{line}\n"))
                .collect(),
            _ => {
                before = "";
                continue;
            }
        };
        found.push(Block {
            path: path.to_owned(),
            line: index + 1,
            mark: mark_of(before),
            script,
        });
        before = "";
    }
    found
}

fn mark_of(line: &str) -> Mark {
    let Some(comment) = line
        .trim()
        .strip_prefix("<!--")
        .and_then(|rest| rest.strip_suffix("-->"))
    else {
        return Mark::Missing;
    };
    match comment.trim().split_once(':') {
        Some(("test", name)) if is_name(name.trim()) => Mark::Tested(name.trim().to_owned()),
        Some(("not tested", reason)) if !reason.trim().is_empty() => Mark::NotTested,
        _ => Mark::Missing,
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(
        "# Page\n\n<!-- test: first-one -->\n```sh\necho one\necho two\n```\n\n",
        "<!-- not tested: it installs packages -->\n```console\n$ apt-get install jq\nReading…\n```\n",
        "```json\n{}\n```\n",
    );

    #[test]
    fn tested_blocks_are_read_by_name() {
        let blocks = tested_blocks(&Repo::of(&[("README.md", PAGE), ("notes.md", PAGE)])).unwrap();
        assert_eq!(
            blocks,
            vec![Tested {
                name: "first-one".into(),
                script: "echo one\necho two\n".into()
            }]
        );
        assert_eq!(check(&Repo::of(&[("README.md", PAGE)])), vec![]);
    }

    #[test]
    fn console_blocks_keep_their_commands_only() {
        let blocks = blocks_of("README.md", PAGE);
        assert_eq!(blocks[1].script, "apt-get install jq\n");
        assert_eq!(blocks[1].mark, Mark::NotTested);
    }

    #[test]
    fn a_block_without_a_mark_is_found() {
        for before in [
            "",
            "<!-- test: -->",
            "<!-- test: Two Words -->",
            "<!-- not tested: -->",
            "<!-- later -->",
        ] {
            let page = format!("{before}\n```sh\necho\n```\n");
            let findings = check(&Repo::of(&[("docs/use.md", &page)]));
            assert_eq!(findings.len(), 1, "{before}");
            assert_eq!(findings[0].line, 2);
        }
    }

    #[test]
    fn a_name_cannot_be_used_twice() {
        assert!(tested_blocks(&Repo::of(&[("README.md", PAGE), ("docs/a.md", PAGE)])).is_err());
    }
}
