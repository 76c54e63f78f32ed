//! A small reader of Rust source: enough to count lines of functions without being misled by text in strings.

/// A function as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of the `fn`, counted from 1.
    pub(crate) line: usize,
    /// Lines from the `fn` to its closing brace, both counted.
    pub(crate) length: usize,
}

/// The source with comments, strings and character literals turned to blanks. Every line break stays in its place.
pub(crate) fn code_only(source: &str) -> Vec<char> {
    let mut reader = Reader {
        chars: source.chars().collect(),
        at: 0,
        code: Vec::with_capacity(source.len()),
    };
    while let Some(now) = reader.peek(0) {
        match now {
            '/' if reader.peek(1) == Some('/') => reader.blank_line_comment(),
            '/' if reader.peek(1) == Some('*') => reader.blank_block_comment(),
            '"' => reader.blank_string(),
            'r' | 'b' | 'c' if !reader.inside_word() => reader.prefixed_string(),
            '\'' => reader.character_or_lifetime(),
            _ => reader.keep(1),
        }
    }
    reader.code
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    code: Vec<char>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn inside_word(&self) -> bool {
        self.code.last().is_some_and(|last| is_word(*last))
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(now) = self.peek(0) {
                self.code.push(now);
            }
            self.at += 1;
        }
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(now) = self.peek(0) {
                self.code.push(if now == '\n' { '\n' } else { ' ' });
            }
            self.at += 1;
        }
    }

    fn blank_line_comment(&mut self) {
        while self.peek(0).is_some_and(|now| now != '\n') {
            self.blank(1);
        }
    }

    fn blank_block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.blank(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.blank(2);
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.blank(1),
                (None, _) => return,
            }
        }
    }

    /// A string with escapes; stands on its opening quote.
    fn blank_string(&mut self) {
        self.blank(1);
        while let Some(now) = self.peek(0) {
            match now {
                '\\' => self.blank(2),
                '"' => return self.blank(1),
                _ => self.blank(1),
            }
        }
    }

    /// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`, `b'…'`; anything else, such as `r#match`, is code.
    fn prefixed_string(&mut self) {
        let mut ahead = 1;
        let mut raw = self.peek(0) == Some('r');
        if !raw && self.peek(1) == Some('r') {
            raw = true;
            ahead = 2;
        }
        let mut hashes = 0;
        while raw && self.peek(ahead + hashes) == Some('#') {
            hashes += 1;
        }
        match self.peek(ahead + hashes) {
            Some('"') if raw => self.blank_raw_string(ahead + hashes + 1, hashes),
            Some('"') => {
                self.blank(ahead);
                self.blank_string();
            }
            Some('\'') if !raw && self.peek(0) == Some('b') => {
                self.blank(ahead);
                self.character_or_lifetime();
            }
            _ => self.keep(1),
        }
    }

    fn blank_raw_string(&mut self, opening: usize, hashes: usize) {
        self.blank(opening);
        while let Some(now) = self.peek(0) {
            if now == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                return self.blank(1 + hashes);
            }
            self.blank(1);
        }
    }

    fn character_or_lifetime(&mut self) {
        if self.peek(1) == Some('\\') {
            self.blank(3);
            while self.peek(0).is_some_and(|now| now != '\'' && now != '\n') {
                self.blank(1);
            }
            self.blank(1);
        } else if self.peek(2) == Some('\'') {
            self.blank(3);
        } else {
            self.keep(1);
        }
    }
}

fn is_word(one: char) -> bool {
    one.is_alphanumeric() || one == '_'
}

/// Every function outside test code, in order. A nested function is counted by itself and as part of its outer one.
pub(crate) fn functions(source: &str) -> Vec<Function> {
    let mut code = code_only(source);
    blank_test_items(&mut code);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = find_word(&code, "fn", at) {
        at = start + 2;
        let name: String = code
            .iter()
            .skip(at)
            .skip_while(|one| **one == ' ')
            .take_while(|one| is_word(**one))
            .collect();
        if name.is_empty() {
            continue; // A function pointer type, `fn(u8) -> u8`.
        }
        if let Some((_, end)) = item_body(&code, at) {
            let line = lines_before(&code, start) + 1;
            let length = lines_before(&code, end) + 2 - line;
            found.push(Function { name, line, length });
        }
    }
    found
}

/// Blanks what stands behind `#[cfg(test)]`, `#[test]` and `#[…::test]`: tests may be as long as their story.
fn blank_test_items(code: &mut [char]) {
    let mut at = 0;
    while let Some(start) = find(code, "#[", at) {
        let Some(end) = closing(code, start + 1, '[', ']') else {
            return;
        };
        at = end + 1;
        let attribute: String = code
            .iter()
            .skip(start + 2)
            .take(end - start - 2)
            .filter(|one| !one.is_whitespace())
            .collect();
        let path = attribute.split('(').next().unwrap_or_default();
        let tests = attribute == "cfg(test)" || path == "test" || path.ends_with("::test");
        if tests && let Some((_, last)) = item_body(code, at) {
            for one in code.iter_mut().take(last + 1).skip(start) {
                if *one != '\n' {
                    *one = ' ';
                }
            }
            at = last + 1;
        }
    }
}

/// Positions of the braces of the item that begins here; none when it ends with a semicolon before any brace.
fn item_body(code: &[char], from: usize) -> Option<(usize, usize)> {
    let mut depth = 0_i32;
    for (at, one) in code.iter().enumerate().skip(from) {
        match one {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some((at, closing(code, at, '{', '}')?)),
            _ => {}
        }
    }
    None
}

/// Position of the bracket that closes the one at `from`.
fn closing(code: &[char], from: usize, open: char, close: char) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, one) in code.iter().enumerate().skip(from) {
        if *one == open {
            depth += 1;
        } else if *one == close {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

fn find(code: &[char], text: &str, from: usize) -> Option<usize> {
    (from..code.len()).find(|at| {
        text.chars()
            .enumerate()
            .all(|(ahead, one)| code.get(at + ahead) == Some(&one))
    })
}

fn find_word(code: &[char], word: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let start = find(code, word, at)?;
        let before = start.checked_sub(1).and_then(|index| code.get(index));
        let after = code.get(start + word.len());
        if !before.is_some_and(|one| is_word(*one) || *one == '#') && !after.is_some_and(|one| is_word(*one)) {
            return Some(start);
        }
        at = start + word.len();
    }
}

fn lines_before(code: &[char], at: usize) -> usize {
    code.iter().take(at).filter(|one| **one == '\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<(String, usize, usize)> {
        functions(source)
            .into_iter()
            .map(|one| (one.name, one.line, one.length))
            .collect()
    }

    #[test]
    fn a_function_is_counted_from_its_fn_to_its_brace() {
        let source =
            "\nfn one() {\n    two();\n}\n\npub async fn two<'a>(x: &'a [u8; 3])\nwhere\n    u8: Copy,\n{\n}\n";
        assert_eq!(names(source), vec![("one".into(), 2, 3), ("two".into(), 6, 5)]);
    }

    #[test]
    fn braces_in_text_do_not_count() {
        let source = concat!(
            "fn f() {\n    let a = \"}\\\"}\"; // }\n    let b = r#\"}\"}\"#; /* } /* } */ } */\n",
            "    let c = '}'; let d = b'}'; let e = '\\''; let g = '\\u{7d}';\n    let h = br\"}\";\n}\nfn z() {}\n"
        );
        assert_eq!(names(source), vec![("f".into(), 1, 6), ("z".into(), 7, 1)]);
    }

    #[test]
    fn lifetimes_raw_identifiers_and_pointers_are_code() {
        let source =
            "fn f<'a>(r#fn: fn(u8) -> u8, x: &'a str) -> &'a str {\n    x\n}\ntrait T {\n    fn only_said(&self);\n}\n";
        assert_eq!(names(source), vec![("f".into(), 1, 3)]);
    }

    #[test]
    fn tests_are_left_out() {
        let source = concat!(
            "#[cfg(test)]\nmod tests;\nfn kept() {}\n#[cfg(test)]\nmod more {\n    fn inner() {}\n}\n",
            "#[tokio::test(start_paused = true)]\nasync fn story() {\n}\n#[test]\n#[ignore]\nfn plain() {}\nfn last() {}\n"
        );
        assert_eq!(names(source), vec![("kept".into(), 3, 1), ("last".into(), 14, 1)]);
    }

    #[test]
    fn unfinished_source_ends() {
        for source in [
            "fn f() {",
            "fn",
            "\"",
            "r#\"",
            "'",
            "b'",
            "/*",
            "#[cfg(test)",
            "fn f(",
            "'\\",
        ] {
            assert_eq!(names(source), vec![], "{source}");
        }
    }
}
