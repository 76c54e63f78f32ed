//! Finds calls in what a model writes, piece by piece.

use super::{Marks, Style, json, llama3::PYTHON_TAG};

/// A call that a model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON, or what the model took for it.
    pub(crate) arguments: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Text(String),
    Call(Call),
}

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct Reader {
    marks: Marks,
    style: Style,
    /// What may be the beginning of a mark, or the call that is being written.
    held: String,
    inside: bool,
    /// Whether anything but space came; what is a whole answer can only begin one.
    begun: bool,
    /// Whether a call was the last that was found: space between calls is nobody's text.
    after_call: bool,
}

impl Reader {
    pub(crate) fn new(style: Style) -> Self {
        Self {
            marks: style.marks(),
            style,
            held: String::new(),
            inside: false,
            begun: false,
            after_call: false,
        }
    }

    /// Adds text; gives what is certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Event> {
        self.held.push_str(text);
        let mut events = Vec::new();
        while self.step(&mut events) {}
        self.without_space(events)
    }

    /// Nothing more comes: what was held is a call, or text.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let rest = std::mem::take(&mut self.held);
        if self.inside {
            self.inside = false;
            self.found(&rest, &mut events);
        } else {
            text(rest, &mut events);
        }
        self.without_space(events)
    }

    /// Drops the space that follows a call.
    fn without_space(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            match event {
                Event::Text(text) if self.after_call => {
                    let text = text.trim_start();
                    self.after_call = text.is_empty();
                    if !text.is_empty() {
                        kept.push(Event::Text(text.to_owned()));
                    }
                }
                event => {
                    self.after_call = matches!(event, Event::Call(_));
                    kept.push(event);
                }
            }
        }
        kept
    }

    /// Says whether there may be more to find.
    fn step(&mut self, events: &mut Vec<Event>) -> bool {
        if self.inside {
            return self.close(events);
        }
        if self.style == Style::Llama3 {
            return self.open_whole(events);
        }
        match self.held.find(self.marks.open) {
            Some(place) => {
                let after = self.held.split_off(place);
                text(std::mem::take(&mut self.held), events);
                self.held = after.get(self.marks.open.len()..).unwrap_or_default().to_owned();
                self.inside = true;
                true
            }
            None => {
                let safe = safe(&self.held, self.marks.open);
                let rest = self.held.split_off(safe);
                text(std::mem::replace(&mut self.held, rest), events);
                false
            }
        }
    }

    /// An answer that begins like an object is taken for a call until its end tells.
    fn open_whole(&mut self, events: &mut Vec<Event>) -> bool {
        let trimmed = self.held.trim_start();
        if self.begun {
            text(std::mem::take(&mut self.held), events);
            return false;
        }
        if trimmed.is_empty() || (PYTHON_TAG.starts_with(trimmed) && trimmed.len() < PYTHON_TAG.len()) {
            return false;
        }
        self.begun = true;
        if let Some(rest) = trimmed.strip_prefix(PYTHON_TAG) {
            self.held = rest.to_owned();
            self.inside = true;
        } else {
            self.inside = trimmed.starts_with('{');
        }
        !self.inside
    }

    fn close(&mut self, events: &mut Vec<Event>) -> bool {
        if self.marks.close.is_empty() {
            return false;
        }
        let Some(place) = self.held.find(self.marks.close) else {
            return false;
        };
        let rest = self.held.split_off(place);
        let inner = std::mem::replace(
            &mut self.held,
            rest.get(self.marks.close.len()..).unwrap_or_default().to_owned(),
        );
        self.inside = false;
        self.found(&inner, events);
        true
    }

    /// What stood between the marks: calls, or text that is given back as it was written.
    fn found(&self, inner: &str, events: &mut Vec<Event>) {
        match json::calls(inner, self.marks) {
            Some(calls) => events.extend(calls.into_iter().map(Event::Call)),
            None => text(format!("{}{inner}{}", self.marks.open, self.marks.close), events),
        }
    }
}

fn text(text: String, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Text(text));
    }
}

/// How much of a text cannot be part of a mark any more.
fn safe(text: &str, mark: &str) -> usize {
    let starts = text.char_indices().map(|(at, _)| at);
    let from = text.len().saturating_sub(mark.len());
    let mut starts = starts.skip_while(|at| *at < from);
    let found = starts.find(|at| text.get(*at..).is_some_and(|tail| mark.starts_with(tail)));
    found.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(style: Style, whole: &str, width: usize) -> Vec<Event> {
        let mut reader = Reader::new(style);
        let characters: Vec<char> = whole.chars().collect();
        let mut events = Vec::new();
        for piece in characters.chunks(width) {
            events.extend(reader.push(&piece.iter().collect::<String>()));
        }
        events.extend(reader.finish());
        // Text may come in as many pieces as it likes.
        events.into_iter().fold(Vec::new(), |mut joined, event| {
            match (joined.last_mut(), event) {
                (Some(Event::Text(before)), Event::Text(more)) => before.push_str(&more),
                (_, event) => joined.push(event),
            }
            joined
        })
    }

    /// The text that is shown before more comes, and what waits.
    fn before_the_end(style: Style, whole: &str, width: usize) -> (String, String, bool) {
        let mut reader = Reader::new(style);
        let characters: Vec<char> = whole.chars().collect();
        let mut shown = String::new();
        for piece in characters.chunks(width) {
            for event in reader.push(&piece.iter().collect::<String>()) {
                match event {
                    Event::Text(text) => shown.push_str(&text),
                    Event::Call(call) => shown.push_str(&call.name),
                }
            }
        }
        (shown, reader.held, reader.inside)
    }

    fn call(name: &str, arguments: &str) -> Event {
        Event::Call(Call {
            name: name.into(),
            arguments: arguments.into(),
        })
    }

    #[test]
    fn calls_are_found_wherever_the_text_is_cut() {
        let hermes = "Let me see. <tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"<moon>\"}}\n</tool_call>\n\
            <tool_call>{\"name\": \"wait\"}</tool_call>";
        let mistral =
            "Well.[TOOL_CALLS][{\"name\": \"look\", \"arguments\": {}}, {\"name\": \"wait\", \"arguments\": {}}]";
        let llama = "  {\"name\": \"look\", \"parameters\": {\"at\": 1}}";
        for width in 1..40 {
            assert_eq!(
                read(Style::Hermes, hermes, width),
                [
                    Event::Text("Let me see. ".into()),
                    call("look", "{\"at\":\"<moon>\"}"),
                    call("wait", "{}")
                ]
            );
            assert_eq!(
                read(Style::Mistral, mistral, width),
                [Event::Text("Well.".into()), call("look", "{}"), call("wait", "{}")]
            );
            assert_eq!(read(Style::Llama3, llama, width), [call("look", "{\"at\":1}")]);
            let tagged = format!("{PYTHON_TAG}{}", llama.trim());
            assert_eq!(read(Style::Llama3, &tagged, width), [call("look", "{\"at\":1}")]);
        }
    }

    #[test]
    fn what_only_looks_like_a_call_is_text_as_it_was_written() {
        for width in [1, 3, 100] {
            for (style, whole) in [
                (Style::Hermes, "a <tool_ call> and <tool"),
                (Style::Hermes, "<tool_call>not JSON</tool_call>"),
                (Style::Mistral, "[TOOL_CALLS] [1]"),
                (Style::Llama3, "{\"a\": 1}"),
                (Style::Llama3, "To be {\"name\": \"x\"}"),
            ] {
                assert_eq!(read(style, whole, width), [Event::Text(whole.into())], "{whole}");
            }
            let open = read(Style::Hermes, "x <tool_call>{\"name\": \"look\"}", width);
            assert_eq!(
                open,
                [Event::Text("x ".into()), call("look", "{}")],
                "the end closes too"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_and_wherever_it_is_cut_the_same_is_found(
            whole in "(</?tool_call>|\\[TOOL_CALLS\\]|<\\|python_tag\\|>|[\\[\\]{}\":, \n]|\\{\"name\": \"look\", \"arguments\": \\{\\}\\}|é|x){0,12}",
            width in 1usize..9,
        ) {
            for style in [Style::Hermes, Style::Mistral, Style::Llama3] {
                prop_assert_eq!(read(style, &whole, width), read(style, &whole, 10_000));
                prop_assert_eq!(before_the_end(style, &whole, width), before_the_end(style, &whole, 10_000));
            }
        }
    }
}
