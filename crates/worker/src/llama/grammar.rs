//! Answers that have to be of a form: which tokens may come next.
//!
//! The grammar is followed token by token by the `llguidance` library, which reads JSON schemas and works within bounds of
//! time and memory, whatever a stranger's schema says.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::{token::LlamaToken, vocab::LlamaVocab};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use rialto_engine::Error;
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};

/// Most bytes of a message about a schema.
const MESSAGE: usize = 500;

/// What a model's vocabulary looks like to a grammar; made when the first answer needs it.
#[derive(Default)]
pub(super) struct Grammars(OnceLock<Option<Arc<ParserFactory>>>);

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammars")
    }
}

/// A schema as it is followed: with the spaces that Python's `json.dumps` writes and no others. Where any space is allowed a
/// small model can write nothing but space, for as long as somebody pays.
pub(super) fn without_idle_space(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(fields) => {
            let spaces = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
            fields.insert("x-guidance".to_owned(), spaces);
            schema
        }
        // `true` is a schema too.
        _ => without_idle_space(json!({ "allOf": [schema] })),
    }
}

/// Follows one answer.
pub(super) struct Grammar {
    matcher: Matcher,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

/// The tokens that may come next.
pub(super) struct Mask(SimpleVob);

impl Mask {
    /// One bit for each token.
    pub(super) fn bits(&self) -> &[u32] {
        self.0.as_slice()
    }
}

impl Grammars {
    /// Begins an answer that has to be of this form. `field` is the field of the request that asked for it.
    pub(super) fn begin(
        &self,
        vocabulary: &LlamaVocab<'_>,
        form: TopLevelGrammar,
        field: &'static str,
    ) -> Result<Grammar, Error> {
        let factory = self.0.get_or_init(|| factory(vocabulary).map(Arc::new));
        let factory = factory
            .as_ref()
            .ok_or_else(|| Error::bad(field, "this model's vocabulary cannot follow a form"))?;
        let parser = factory.create_parser(form);
        let mut matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(Error::bad(field, short(&error)));
        }
        // A form that nothing fits is told before anything is paid.
        match matcher.compute_mask() {
            Ok(_) => Ok(Grammar { matcher }),
            Err(error) => Err(Error::bad(field, short(&error.to_string()))),
        }
    }
}

impl Grammar {
    /// What may come next. Ends of the answer are among them where the form is complete.
    pub(super) fn mask(&mut self) -> Result<Mask, Error> {
        let mask = self.matcher.compute_mask_or_eos();
        mask.map(Mask).map_err(|error| Error::Failed(short(&error.to_string())))
    }

    /// Goes on past a token that came from elsewhere. Says whether the form allows it there.
    pub(super) fn follow(&mut self, token: u32) -> bool {
        !self.matcher.is_stopped() && self.matcher.consume_token(token).is_ok()
    }

    /// Goes on past a token that the mask allowed.
    pub(super) fn accept(&mut self, token: u32) -> Result<(), Error> {
        if self.matcher.is_stopped() {
            return Ok(());
        }
        let accepted = self.matcher.consume_token(token);
        accepted.map_err(|error| Error::Failed(short(&error.to_string())))
    }
}

fn factory(vocabulary: &LlamaVocab<'_>) -> Option<ParserFactory> {
    let environment = environment(vocabulary)?;
    let mut factory = ParserFactory::new_simple(&environment).ok()?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    Some(factory)
}

fn environment(vocabulary: &LlamaVocab<'_>) -> Option<TokEnv> {
    let count = u32::try_from(vocabulary.n_tokens()).ok()?;
    let words: Vec<Vec<u8>> = vocabulary.tokens().map(|token| word(vocabulary, token)).collect();
    let ends: Vec<u32> = vocabulary
        .tokens()
        .filter(|token| vocabulary.is_eog(*token))
        .filter_map(|token| u32::try_from(token.0).ok())
        .collect();
    let info = TokRxInfo::new(count, *ends.first()?);
    let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
    Some(Arc::new(ApproximateTokEnv::new(trie)))
}

/// A token's bytes; control tokens are marked, so that no text of an answer can be one.
fn word(vocabulary: &LlamaVocab<'_>, token: LlamaToken) -> Vec<u8> {
    let plain = vocabulary.token_to_piece(token, false, None);
    if !plain.is_empty() {
        return plain;
    }
    let text = vocabulary.token_to_piece(token, true, None);
    if text.is_empty() {
        return text;
    }
    let mut marked = vec![TokTrie::SPECIAL_TOKEN_MARKER];
    marked.extend(text);
    marked
}

fn short(message: &str) -> String {
    let clean = message.chars().map(|one| if one.is_control() { ' ' } else { one });
    clean.take(MESSAGE).collect()
}
