//! Who has read which prompts: a seller keeps what it has read for the buyer in its engine's memory, and need not read it
//! again. Sellers do not tell what they remember; that they were given a prompt is known here.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
};

use rialto_protocol::{
    Address, ModelId,
    job::{Job, Message},
};

/// Bytes of a prompt between two marks: less is not worth a detour.
const STEP: usize = 512;
/// Most marks of one prompt.
const MOST: usize = 64;
/// Most marks in each of the two generations that are remembered.
const KEPT: usize = 65_536;

/// A seller of a model.
type Who = (Address, ModelId);

/// A prompt as marks: hashes of its first 512 bytes, its first 1,024 bytes and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt(Vec<u64>);

/// Who was given which prompts last. The older half is forgotten when it is full.
#[derive(Debug, Default)]
pub struct Prefixes {
    hasher: RandomState,
    generations: Mutex<[HashMap<u64, Who>; 2]>,
}

impl Prefixes {
    /// The marks of a job's prompt; none where nothing is generated.
    pub fn prompt(&self, job: &Job) -> Prompt {
        let mut marks = Marks {
            hasher: self.hasher.build_hasher(),
            left: STEP,
            found: Vec::new(),
        };
        match job {
            Job::Chat { messages, tools, .. } => {
                for tool in &tools.offered {
                    let texts = [&tool.name, &tool.description, &tool.parameters];
                    texts.into_iter().for_each(|text| marks.add(text.as_bytes()));
                }
                messages.iter().for_each(|message| marks.message(message));
            }
            Job::Completion { prompt, .. } => marks.add(prompt.as_bytes()),
            Job::Embedding { .. } | Job::Predict { .. } => {}
        }
        Prompt(marks.found)
    }

    /// Who was given the longest beginning of this prompt.
    pub fn find(&self, prompt: &Prompt) -> Option<(Address, ModelId)> {
        if prompt.0.is_empty() {
            return None;
        }
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |mark: &u64| generations.iter().find_map(|generation| generation.get(mark).copied());
        prompt.0.iter().rev().find_map(known)
    }

    /// Notes who is given a prompt.
    pub fn note(&self, prompt: &Prompt, provider: Address, model: ModelId) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [new, old] = &mut *generations;
        if new.len().saturating_add(prompt.0.len()) > KEPT {
            *old = std::mem::take(new);
        }
        new.extend(prompt.0.iter().map(|mark| (*mark, (provider, model))));
    }
}

struct Marks<H> {
    hasher: H,
    left: usize,
    found: Vec<u64>,
}

impl<H: std::hash::Hasher + Clone> Marks<H> {
    fn message(&mut self, message: &Message) {
        self.add(message.role.as_bytes());
        self.add(&[0]);
        self.add(message.content.as_bytes());
        for call in &message.tool_calls {
            self.add(call.name.as_bytes());
            self.add(call.arguments.as_bytes());
        }
        self.add(&[0]);
    }

    fn add(&mut self, mut bytes: &[u8]) {
        while self.found.len() < MOST {
            let Some((now, later)) = bytes.split_at_checked(self.left) else {
                self.hasher.write(bytes);
                self.left -= bytes.len();
                return;
            };
            self.hasher.write(now);
            self.found.push(self.hasher.clone().finish());
            self.left = STEP;
            bytes = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rialto_protocol::job::{Generation, Tools};

    use super::*;

    fn chat(texts: &[&str]) -> Job {
        Job::Chat {
            messages: texts.iter().map(|text| Message::text("user", *text)).collect(),
            tools: Tools::default(),
            generation: Generation::default(),
        }
    }

    const ONE: Who = (Address([1; 20]), ModelId([1; 32]));
    const OTHER: Who = (Address([2; 20]), ModelId([1; 32]));

    #[test]
    fn the_longest_beginning_decides() {
        let prefixes = Prefixes::default();
        let system = "s".repeat(2_000);
        let (short, long) = (chat(&[&system, "a"]), chat(&[&system, &"b".repeat(2_000)]));
        let (short, long) = (prefixes.prompt(&short), prefixes.prompt(&long));
        assert_eq!(prefixes.find(&short), None);
        prefixes.note(&short, ONE.0, ONE.1);
        assert_eq!(prefixes.find(&long), Some(ONE), "the system's text is the same");
        prefixes.note(&long, OTHER.0, OTHER.1);
        let longer = prefixes.prompt(&chat(&[&system, &"b".repeat(2_000), "and more"]));
        assert_eq!(prefixes.find(&longer), Some(OTHER));
        let another = prefixes.prompt(&chat(&[&"t".repeat(2_000)]));
        assert_eq!(prefixes.find(&another), None);
    }

    #[test]
    fn little_text_and_what_is_not_text_have_no_marks() {
        let prefixes = Prefixes::default();
        let tensors = Job::Predict {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for job in [chat(&["hello"]), tensors] {
            let prompt = prefixes.prompt(&job);
            prefixes.note(&prompt, ONE.0, ONE.1);
            assert_eq!((prompt.clone(), prefixes.find(&prompt)), (Prompt::default(), None));
        }
    }

    #[test]
    fn old_prompts_are_forgotten_and_memory_is_bounded() {
        let prefixes = Prefixes::default();
        let first = prefixes.prompt(&chat(&[&"first".repeat(200)]));
        prefixes.note(&first, ONE.0, ONE.1);
        for number in 0..3 * KEPT / MOST {
            let text = format!("{number}").repeat(40_000);
            prefixes.note(&prefixes.prompt(&chat(&[&text])), OTHER.0, OTHER.1);
        }
        let kept: usize = prefixes.generations.lock().unwrap().iter().map(HashMap::len).sum();
        assert!(kept <= 2 * KEPT, "{kept}");
        assert_eq!(prefixes.find(&first), None);
    }

    proptest! {
        #[test]
        fn marks_depend_on_the_text_and_not_on_how_it_is_cut(text in "[a-z]{0,3000}", cut in 0usize..3_000) {
            let prefixes = Prefixes::default();
            let new = || Marks { hasher: prefixes.hasher.build_hasher(), left: STEP, found: Vec::new() };
            let (mut whole, mut parts) = (new(), new());
            whole.add(text.as_bytes());
            let (one, other) = text.split_at(cut.min(text.len()));
            parts.add(one.as_bytes());
            parts.add(other.as_bytes());
            prop_assert_eq!(whole.found.len(), text.len() / STEP);
            prop_assert_eq!(whole.found, parts.found);
        }
    }
}
