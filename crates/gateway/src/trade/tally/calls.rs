//! Calls of tools: only what was offered, one after the other.

use rialto_protocol::job::{Job, ToolChoice};

use super::Unasked;

/// Most calls of one answer.
const MAX_CALLS: u32 = 128;

/// What may be called, and what was.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    /// Names that may be called.
    names: Vec<String>,
    /// Calls that have begun.
    begun: u32,
}

impl Calls {
    pub(super) fn of(job: &Job) -> Self {
        let names = match job {
            Job::Chat { tools, .. } => match &tools.choice {
                ToolChoice::Never => Vec::new(),
                ToolChoice::Named(name) => vec![name.clone()],
                ToolChoice::Auto | ToolChoice::Required => tools.offered.iter().map(|tool| tool.name.clone()).collect(),
            },
            Job::Completion { .. } | Job::Embedding { .. } | Job::Predict { .. } => Vec::new(),
        };
        Self { names, begun: 0 }
    }

    /// Notes a piece of a call. Calls come one after the other: the hash of an answer does not say which call a later
    /// piece belongs to.
    pub(super) fn take(&mut self, index: u32, name: &str) -> Result<(), Unasked> {
        if self.names.is_empty() {
            return Err(Unasked("it called a tool, and none may be called"));
        }
        if name.is_empty() {
            return match self.begun.checked_sub(1) {
                Some(last) if last == index => Ok(()),
                _ => Err(Unasked("it went on with a call that is not the last one")),
            };
        }
        if index != self.begun {
            return Err(Unasked("it numbered its calls wrongly"));
        }
        if !self.names.iter().any(|offered| offered == name) {
            return Err(Unasked("it called a tool that may not be called"));
        }
        if self.begun == MAX_CALLS {
            return Err(Unasked("it called tools again and again"));
        }
        self.begun += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::job::{Generation, Message, Tool, Tools};

    use super::*;

    fn calls(choice: ToolChoice) -> Calls {
        let tool = |name: &str| Tool {
            name: name.into(),
            ..Tool::default()
        };
        Calls::of(&Job::Chat {
            messages: vec![Message::text("user", "hi")],
            tools: Tools {
                offered: vec![tool("look"), tool("wait")],
                choice,
            },
            generation: Generation::default(),
        })
    }

    #[test]
    fn calls_come_in_pieces_one_after_the_other() {
        let mut calls = calls(ToolChoice::Auto);
        for (index, name) in [(0, "look"), (0, ""), (0, ""), (1, "wait"), (2, "look"), (2, "")] {
            calls.take(index, name).unwrap();
        }
        for (index, name) in [(1, ""), (4, "look"), (2, "look"), (3, "")] {
            assert!(calls.clone().take(index, name).is_err(), "{index} {name}");
        }
    }

    #[test]
    fn nothing_is_called_that_may_not_be() {
        assert!(calls(ToolChoice::Auto).take(0, "format_disk").is_err());
        assert!(calls(ToolChoice::Auto).take(0, "").is_err());
        assert!(calls(ToolChoice::Never).take(0, "look").is_err());
        let mut named = calls(ToolChoice::Named("wait".into()));
        assert!(named.take(0, "look").is_err());
        named.take(0, "wait").unwrap();
        let mut many = calls(ToolChoice::Required);
        for index in 0..128 {
            many.take(index, "look").unwrap();
        }
        assert!(many.take(128, "look").is_err());
    }
}
