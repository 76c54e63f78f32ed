//! One place that breaks a rule.

use std::fmt;

/// What a rule says about one place of the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the top of the repository, with `/` between its parts.
    pub(crate) path: String,
    /// Line, counted from 1; 0 when the finding is about the whole file.
    pub(crate) line: usize,
    /// The rule's name, as `exceptions.toml` writes it.
    pub(crate) rule: &'static str,
    /// What is wrong and, where it is not plain, what to do.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn file(path: &str, rule: &'static str, message: impl Into<String>) -> Self {
        Self::line(path, 0, rule, message)
    }

    pub(crate) fn line(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            rule,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(out, "{}: {}: {}", self.path, self.rule, self.message)
        } else {
            write!(out, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
        }
    }
}
