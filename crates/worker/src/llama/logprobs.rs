//! Log-probabilities as clients ask for them.

use llama_cpp_2::{token::LlamaToken, vocab::LlamaVocab};
use rialto_protocol::{
    fingerprint::logprob,
    output::{Alternative, TokenLogprob},
    softmax,
};

/// How likely a token was, with so many of the likeliest.
pub(super) fn of(id: u32, logits: &[f32], top: u8, vocabulary: &LlamaVocab<'_>) -> Option<TokenLogprob> {
    let normaliser = softmax::log_sum_exp(logits)?;
    let chosen = logits.get(usize::try_from(id).ok()?)?;
    let top = softmax::top(logits, top.into()).into_iter().map(|one| Alternative {
        id: one.id,
        bytes: bytes(one.id, vocabulary),
        logprob: logprob(one.logit, normaliser),
    });
    Some(TokenLogprob {
        bytes: bytes(id, vocabulary),
        logprob: logprob(*chosen, normaliser),
        top: top.collect(),
    })
}

/// A token's bytes; a control token's text.
fn bytes(id: u32, vocabulary: &LlamaVocab<'_>) -> Vec<u8> {
    let token = LlamaToken(i32::try_from(id).unwrap_or_default());
    vocabulary.token_to_piece(token, true, None)
}
