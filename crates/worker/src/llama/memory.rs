//! What a slot still remembers of earlier prompts, and how much of it a new prompt may use.
//!
//! Fast mode uses whole chunks of an earlier prompt only: they were computed just as the new prompt's would be, so that an
//! answer does not depend on what was asked before. In exact mode every token was, generated ones too.

use llama_cpp_2::token::LlamaToken;
use rialto_engine::{Mode, Scope};

/// The tokens that llama.cpp holds keys and values of, for one slot.
#[derive(Debug, Default)]
pub(super) struct Memory {
    tokens: Vec<LlamaToken>,
    /// How many of them were read in chunks of a prompt.
    read: usize,
    scope: Scope,
    /// When it was last used; larger is later.
    used: u64,
}

impl Memory {
    /// Notes tokens of a prompt that were read.
    pub(super) fn read(&mut self, tokens: &[LlamaToken]) {
        self.tokens.extend_from_slice(tokens);
        self.read = self.tokens.len();
    }

    /// Notes a token that was generated and read.
    pub(super) fn generated(&mut self, token: LlamaToken) {
        self.tokens.push(token);
    }

    /// Begins anew for this buyer with what is reused.
    pub(super) fn begin(&mut self, scope: Scope, reused: usize, used: u64) {
        self.tokens.truncate(reused);
        self.read = self.read.min(reused);
        self.scope = scope;
        self.used = used;
    }

    /// When it was last used.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Whether another prompt of anybody could use it.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.scope != Scope::Alone && !self.tokens.is_empty()
    }

    /// How many tokens of a prompt need not be read again. At least one always is, because its logits are wanted.
    pub(super) fn reusable(&self, prompt: &[LlamaToken], scope: Scope, mode: Mode, chunk: usize) -> usize {
        if scope == Scope::Alone || scope != self.scope {
            return 0;
        }
        let common = self
            .tokens
            .iter()
            .zip(prompt)
            .take_while(|(one, other)| one == other)
            .count();
        let common = common.min(prompt.len().saturating_sub(1));
        match mode {
            Mode::Exact => common,
            Mode::Fast => {
                let whole = common.min(self.read) / chunk.max(1);
                whole.saturating_mul(chunk)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: std::ops::Range<i32>) -> Vec<LlamaToken> {
        ids.map(LlamaToken).collect()
    }

    #[test]
    fn only_the_same_buyers_prompts_are_reused_and_in_fast_mode_only_whole_chunks_of_prompts() {
        let (mine, other) = (Scope::Of([1; 32]), Scope::Of([2; 32]));
        let mut memory = Memory::default();
        memory.begin(mine, 0, 1);
        memory.read(&tokens(0..25));
        for id in 25..40 {
            memory.generated(LlamaToken(id));
        }
        let next = tokens(0..60);
        assert_eq!(memory.reusable(&next, mine, Mode::Fast, 10), 20);
        assert_eq!(memory.reusable(&next, mine, Mode::Exact, 10), 40);
        assert_eq!(
            memory.reusable(&tokens(0..40), mine, Mode::Exact, 10),
            39,
            "one is always read"
        );
        assert_eq!(memory.reusable(&tokens(0..20), mine, Mode::Fast, 10), 10);
        for scope in [other, Scope::Alone] {
            assert_eq!(memory.reusable(&next, scope, Mode::Exact, 10), 0);
        }
        memory.begin(mine, 20, 2);
        assert_eq!(memory.reusable(&next, mine, Mode::Exact, 10), 20);
        memory.begin(Scope::Alone, 0, 3);
        assert!(!memory.is_worth_keeping());
    }
}
