//! No tracked file says where it was written: no path of one person's machine, no word of one workplace.
//!
//! The words are found where they apply and are themselves not in the repository: the folder that holds the checkout,
//! the home folder, and, one a line, whatever `.git/info/words-to-keep-out` lists (a customer's name, an inner tool).

use anyhow::{Context as _, Result};

use crate::finding::Finding;
use crate::repo::Repo;

const RULE: &str = "place";
const LIST: &str = ".git/info/words-to-keep-out";
const EVERYWHERE: [&str; 9] = ["", "/", "/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/var"];

/// The words that no tracked file of this checkout may hold.
pub(crate) fn words(repo: &Repo) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let folders = [
        repo.top.parent().map(std::path::Path::to_path_buf),
        std::env::home_dir(),
    ];
    for folder in folders.into_iter().flatten() {
        let folder = folder.display().to_string();
        // A folder that every machine has would be found in any text.
        if !EVERYWHERE.contains(&folder.as_str()) {
            words.push(format!("{folder}/"));
        }
    }
    let list = repo.top.join(LIST);
    if list.exists() {
        let text = std::fs::read_to_string(&list).with_context(|| format!("cannot read {LIST}"))?;
        words.extend(
            text.lines()
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned),
        );
    }
    words.sort();
    words.dedup();
    Ok(words)
}

pub(crate) fn check(repo: &Repo, words: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repo.texts() {
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| holds(line, word)) {
                findings.push(Finding::line(
                    path,
                    index + 1,
                    RULE,
                    format!("`{word}` is of one machine or workplace"),
                ));
            }
        }
    }
    findings
}

/// True when the line holds the word and, where the word is a path, it begins there and not in the middle of another.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !word.starts_with('/') || !before.is_some_and(|one| one.is_alphanumeric() || "_-.}*)".contains(one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> usize {
        let words = ["/farmhouse/".to_owned(), "inner-tool".to_owned()];
        check(&Repo::of(&[("a.md", line)]), &words).len()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(found("see /farmhouse/rialto/README.md"), 1);
        assert_eq!(found("`/farmhouse/`"), 1);
        assert_eq!(found("run inner-tool first"), 1);
    }

    #[test]
    fn other_paths_are_not() {
        assert_eq!(
            found("https://example.org/farmhouse/x models/farmhouse/x $HOME/farmhouse/"),
            0
        );
    }

    #[test]
    fn the_folder_of_the_checkout_is_a_word() {
        assert!(words(&Repo::of(&[])).unwrap().contains(&"/nowhere/".to_owned()));
    }
}
