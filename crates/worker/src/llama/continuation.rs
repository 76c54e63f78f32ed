//! Going on with an answer that another seller began.
//!
//! Its tokens are read after the prompt, and go through everything that tokens of an answer go through on their way out:
//! the form of the answer, whole characters, stop texts, calls of tools. Nothing of it is given out, but all of it stands
//! afterwards where it stood when the answer broke off: half a character, text that may be a stop text, half a call. The
//! sampler goes on too, with its place and its counts. So, in exact mode, what follows is what would have followed there.
//!
//! What cannot be is refused as a bad `so_far`: a text that these tokens do not have, and an answer that has ended or that
//! has called a tool, after which nothing can be checked by its text.

use llama_cpp_2::token::LlamaToken;
use rialto_engine::{Error, is_told};
use rialto_protocol::job::SoFar;

use super::{
    asked::Asked,
    model::Model,
    sequence::bytes,
    tools::{Event, Reader},
};

/// The field that is complained of.
const FIELD: &str = "so_far";

/// Appends what came of the answer to the prompt, and brings everything to where it stood then.
pub(super) fn follow(model: &Model, asked: &mut Asked) -> Result<(), Error> {
    if asked.generation.so_far.is_empty() {
        return Ok(());
    }
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    if is_told(&asked.generation.so_far) {
        // Its length first: nothing else is looked at of what does not fit.
        model.check_tokens(count(asked.prompt.len()).saturating_add(count(asked.generation.so_far.ids.len())))?;
    }
    let tokens = tokens(model, &asked.generation.so_far)?;
    model.check_tokens(count(asked.prompt.len()).saturating_add(count(tokens.len())))?;
    let ids: Result<Vec<u32>, _> = tokens.iter().map(|token| u32::try_from(token.0)).collect();
    // The sampler counts by these.
    asked.generation.so_far.ids = ids.map_err(|error| Error::bad(FIELD, error.to_string()))?;
    if let Some(grammar) = &mut asked.grammar
        && !asked.generation.so_far.ids.iter().all(|id| grammar.follow(*id))
    {
        return Err(Error::bad(FIELD, "is not of the form that the answer has to have"));
    }
    show(model, asked, &tokens)?;
    asked.prompt.extend(tokens);
    Ok(())
}

/// The tokens that came: as they were told, or those of the text where they were not.
fn tokens(model: &Model, so_far: &SoFar) -> Result<Vec<LlamaToken>, Error> {
    if !is_told(so_far) {
        return of_text(model, &so_far.text);
    }
    let vocabulary = model.llama.vocab();
    let token = |id: &u32| {
        let token = model.token(*id);
        let token = token.ok_or_else(|| Error::bad(FIELD, format!("the model has no token {id}")))?;
        if vocabulary.is_eog(token) {
            return Err(Error::bad(FIELD, format!("token {id} ends an answer")));
        }
        Ok(token)
    };
    so_far.ids.iter().map(token).collect()
}

/// The tokens of a text that goes on after others. Some vocabularies put a space before a text, and none after a line
/// break.
fn of_text(model: &Model, text: &str) -> Result<Vec<LlamaToken>, Error> {
    model.check_bytes(text.len())?;
    let vocabulary = model.llama.vocab();
    let says_it = |tokens: &[LlamaToken]| {
        let said = tokens.iter().flat_map(|token| bytes(&vocabulary, *token, false));
        said.eq(text.bytes())
    };
    let plain = model.tokenize_rest(text);
    if says_it(&plain) {
        return Ok(plain);
    }
    let (line, both) = (model.tokenize_rest("\n"), model.tokenize_rest(&format!("\n{text}")));
    let rest = both.strip_prefix(line.as_slice()).filter(|rest| says_it(rest));
    rest.map(<[LlamaToken]>::to_vec)
        .ok_or_else(|| Error::bad(FIELD, "the model's tokens cannot say its text"))
}

/// Has the tokens shown to nobody: what would have been shown must be the text that came. All at once, because it makes no
/// difference where text is cut, and because a call that does not end is looked through once so, and not once for each token.
fn show(model: &Model, asked: &mut Asked, tokens: &[LlamaToken]) -> Result<(), Error> {
    let vocabulary = model.llama.vocab();
    let seeks_calls = asked.calls.is_some();
    let said: Vec<u8> = tokens
        .iter()
        .flat_map(|token| bytes(&vocabulary, *token, seeks_calls))
        .collect();
    let added = asked.text.push(&said);
    if added.stopped {
        return Err(Error::bad(FIELD, "has a text in it that ends the answer"));
    }
    let shown = match &mut asked.calls {
        Some(reader) => words(reader, &added.text)?,
        None => added.text,
    };
    if shown != asked.generation.so_far.text {
        return Err(Error::bad(FIELD, "its tokens have another text for this model"));
    }
    Ok(())
}

/// What is text of this; a call is none.
fn words(reader: &mut Reader, added: &str) -> Result<String, Error> {
    let mut shown = String::new();
    for event in reader.push(added) {
        match event {
            Event::Text(text) => shown.push_str(&text),
            Event::Call(_) => return Err(Error::bad(FIELD, "has called a tool, and waits for what it says")),
        }
    }
    Ok(shown)
}
