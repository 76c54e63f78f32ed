//! Sizes: a file of code, a function, a tracked file of any kind.

use crate::finding::Finding;
use crate::repo::Repo;
use crate::rust_text;

const FILE_LENGTH: &str = "file-length";
const FUNCTION_LENGTH: &str = "function-length";
const FILE_SIZE: &str = "file-size";

/// Lines of a file of code; 400 are typical.
const LONGEST_FILE: usize = 600;
/// Lines of a function outside tests; 40 are typical.
const LONGEST_FUNCTION: usize = 80;
/// Bytes of a tracked file: the shipped models are the largest.
const LARGEST_FILE: u64 = 12_000_000;
/// Endings of files that people write and read as code.
const CODE: [&str; 8] = [".rs", ".sol", ".py", ".sh", ".js", ".mjs", ".ts", ".sql"];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &repo.files {
        if file.size > LARGEST_FILE {
            let message = format!("{} bytes; the limit is {LARGEST_FILE}", file.size);
            findings.push(Finding::file(path, FILE_SIZE, message));
        }
    }
    for (path, text) in repo.texts() {
        let lines = text.lines().count();
        if is_code(path, text) && lines > LONGEST_FILE {
            findings.push(Finding::file(
                path,
                FILE_LENGTH,
                format!("{lines} lines; the limit is {LONGEST_FILE}"),
            ));
        }
        if path.ends_with(".rs") && !is_test(path) {
            findings.extend(long_functions(path, text));
        }
    }
    findings
}

fn long_functions(path: &str, text: &str) -> Vec<Finding> {
    let functions = rust_text::functions(text).into_iter();
    let long = functions.filter(|function| function.length > LONGEST_FUNCTION);
    let finding = |function: rust_text::Function| {
        let message = format!(
            "`{}` has {} lines; the limit is {LONGEST_FUNCTION}",
            function.name, function.length
        );
        Finding::line(path, function.line, FUNCTION_LENGTH, message)
    };
    long.map(finding).collect()
}

fn is_code(path: &str, text: &str) -> bool {
    CODE.iter().any(|ending| path.ends_with(ending)) || text.starts_with("#!")
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::File;

    fn rules(files: &[(&str, &str)]) -> Vec<(String, &'static str)> {
        check(&Repo::of(files))
            .into_iter()
            .map(|one| (one.path, one.rule))
            .collect()
    }

    #[test]
    fn a_file_of_601_lines_is_too_long() {
        assert_eq!(rules(&[("a.rs", &"//\n".repeat(600))]), vec![]);
        assert_eq!(
            rules(&[("a.rs", &"//\n".repeat(601))]),
            vec![("a.rs".into(), FILE_LENGTH)]
        );
        assert_eq!(
            rules(&[("script/a", &format!("#!/bin/sh\n{}", ":\n".repeat(600)))]),
            vec![("script/a".into(), FILE_LENGTH)]
        );
        assert_eq!(rules(&[("package-lock.json", &"{\n".repeat(9_000))]), vec![]);
    }

    #[test]
    fn a_function_of_81_lines_is_too_long() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(rules(&[("crates/a/src/lib.rs", &function(80))]), vec![]);
        assert_eq!(
            rules(&[("crates/a/src/lib.rs", &function(81))]),
            vec![("crates/a/src/lib.rs".into(), FUNCTION_LENGTH)]
        );
        assert_eq!(
            rules(&[("crates/a/src/lib.rs", &format!("#[test]\n{}", function(81)))]),
            vec![]
        );
        assert_eq!(rules(&[("tests/stories/a.rs", &function(81))]), vec![]);
    }

    #[test]
    fn a_file_over_12_megabytes_is_too_large() {
        let mut repo = Repo::of(&[]);
        repo.files.insert(
            "models/a.gguf".into(),
            File {
                size: LARGEST_FILE,
                text: None,
            },
        );
        assert_eq!(check(&repo), vec![]);
        repo.files.insert(
            "models/a.gguf".into(),
            File {
                size: LARGEST_FILE + 1,
                text: None,
            },
        );
        assert_eq!(check(&repo).len(), 1);
    }
}
