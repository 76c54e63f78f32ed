//! `docs/status-codes.md` has a row for every variant of every room's `Error`.
//!
//! A row names its variant as `` `room::Variant` ``, or as `` `Variant` `` under a heading that names the room in
//! backticks. The rule begins to hold when the page exists.

use crate::finding::Finding;
use crate::repo::Repo;
use crate::rust_text;

const RULE: &str = "status-codes";
const PAGE: &str = "docs/status-codes.md";
/// Rooms whose errors no client of the public API can meet: tools for developers and tests.
const INSIDE: [&str; 2] = ["testkit", "devchain"];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(page) = repo.text(PAGE) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (path, text) in repo.texts() {
        let Some(room) = room_of(path).filter(|room| !INSIDE.contains(room)) else {
            continue;
        };
        for (line, variant) in error_variants(text) {
            if !has_row(page, room, &variant) {
                findings.push(Finding::line(
                    path,
                    line,
                    RULE,
                    format!("{PAGE} has no row for `{room}::{variant}`"),
                ));
            }
        }
    }
    findings
}

fn room_of(path: &str) -> Option<&str> {
    let (room, rest) = path.strip_prefix("crates/")?.split_once('/')?;
    (rest.starts_with("src/") && rest.ends_with(".rs")).then_some(room)
}

fn has_row(page: &str, room: &str, variant: &str) -> bool {
    let whole = format!("`{room}::{variant}`");
    let short = format!("`{variant}`");
    let heading = format!("`{room}`");
    let mut in_room = false;
    page.lines().any(|line| {
        if line.starts_with('#') {
            in_room = line.contains(&heading);
        }
        line.contains(&whole) || (in_room && line.starts_with('|') && line.contains(&short))
    })
}

/// Lines and names of the variants of `pub enum Error`.
fn error_variants(source: &str) -> Vec<(usize, String)> {
    let code: String = rust_text::code_only(source).into_iter().collect();
    let Some(start) = code.find("pub enum Error {") else {
        return Vec::new();
    };
    let mut variants = Vec::new();
    let mut depth = 0_i32;
    let mut word = String::new();
    let mut waiting = true;
    let mut line = 1 + code.get(..start).unwrap_or_default().matches('\n').count();
    for one in code.get(start..).unwrap_or_default().chars() {
        if depth == 1 && waiting && (one.is_alphanumeric() || one == '_') {
            word.push(one);
        } else if !word.is_empty() {
            variants.push((line, std::mem::take(&mut word)));
            waiting = false;
        }
        match one {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 1 => waiting = true,
            '\n' => line += 1,
            _ => {}
        }
        if one == '}' && depth == 0 {
            break;
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: &str = concat!(
        "/// Why.\n#[derive(Debug)]\npub enum Error {\n    /// A, b.\n    #[error(\"no {0}, {1}\")]\n    UnknownModel(String, u8),\n",
        "    #[error(transparent)]\n    Store(#[from] sqlx::Error),\n    Late { by: Duration, at: u64 },\n    Closed\n}\nfn f() { A::B; }\n"
    );

    #[test]
    fn variants_are_read() {
        let names: Vec<(usize, String)> = error_variants(ERROR);
        let expected = [(6, "UnknownModel"), (8, "Store"), (9, "Late"), (10, "Closed")];
        assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn a_variant_without_a_row_is_found() {
        let page = "# Codes\n| `gateway::UnknownModel` | 404 |\n## The gateway (`gateway`)\n| `Store` | 500 |\n| `Late` | 504 |\n## `provider`\n| `Closed` | 500 |\n";
        let files = [
            ("crates/gateway/src/error.rs", ERROR),
            (PAGE, page),
            ("crates/devchain/src/error.rs", ERROR),
        ];
        let found = check(&Repo::of(&files));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.ends_with("`gateway::Closed`"));
    }

    #[test]
    fn without_the_page_there_is_no_rule_yet() {
        assert_eq!(check(&Repo::of(&[("crates/gateway/src/error.rs", ERROR)])), vec![]);
    }
}
