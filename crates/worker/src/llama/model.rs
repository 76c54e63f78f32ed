//! A GGUF file in memory: its vocabulary, its template, and how text becomes tokens.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::OnceLock,
};

use llama_cpp_2::{
    LogOptions,
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
    send_logs_to_tracing,
    token::LlamaToken,
};
use rialto_protocol::{
    hash::keccak256,
    manifest::{Manifest, TaskKind},
};

use llguidance::api::TopLevelGrammar;
use rialto_engine::{Error, LoadOptions};

use super::{
    chat::{ChatTemplate, ControlTexts, Part},
    grammar::{Grammar, Grammars},
    tools::Style,
};

/// llama.cpp is set up once for each process.
static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();

/// Metadata of a file that is one of several.
const SPLIT_COUNT: &str = "split.count";

/// Metadata that says what kind of vocabulary a file has.
const TOKENIZER: &str = "tokenizer.ggml.model";

/// A loaded model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) llama: LlamaModel,
    /// Most tokens of prompt and answer together.
    pub(super) limit: u32,
    template: Option<ChatTemplate>,
    /// How the model writes calls of tools; `None` when its template knows none.
    style: Option<Style>,
    grammars: Grammars,
    /// Text of the token that begins every prompt, when the model has one.
    bos: Option<String>,
    /// Bytes of the longest token.
    longest: u64,
    /// A token for computations whose result nobody wants.
    filler: LlamaToken,
}

/// llama.cpp, set up and with its log sent to ours.
pub(super) fn backend() -> Result<&'static LlamaBackend, Error> {
    let backend = BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().ok()
    });
    let backend = backend.as_ref();
    backend.ok_or_else(|| Error::Model("llama.cpp is set up elsewhere in this process".to_owned()))
}

impl Model {
    /// Loads a verified file and checks it against the manifest. Blocks.
    pub(super) fn load(manifest: &Manifest, path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let backend = backend()?;
        let parameters = LlamaModelParams::default().with_n_gpu_layers(options.gpu_layers);
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let llama = LlamaModel::load_from_file(backend, path, &parameters)
                .map_err(|_| Error::Model("llama.cpp refuses the file; its log says why".to_owned()))?;
            Self::new(manifest, llama, options)
        }));
        // The binding asserts where a file's numbers do not fit its types.
        loaded.unwrap_or_else(|_| Err(Error::Model("its numbers are out of range".to_owned())))
    }

    fn new(manifest: &Manifest, llama: LlamaModel, options: &LoadOptions) -> Result<Self, Error> {
        if llama.meta_val_str(SPLIT_COUNT).is_ok_and(|count| count.trim() != "1") {
            return Err(Error::Model("files in several parts are not supported".to_owned()));
        }
        if llama
            .meta_val_str(TOKENIZER)
            .is_ok_and(|kind| matches!(kind.trim(), "" | "none" | "no_vocab"))
        {
            return Err(Error::Model("it has no vocabulary".to_owned()));
        }
        let limit = limit(manifest, llama.n_ctx_train(), options)?;
        let vocabulary = llama.vocab();
        let text = |token: LlamaToken| {
            let text = vocabulary.text(token);
            text.map(|text| text.to_string_lossy().into_owned())
        };
        // llama.cpp aborts when it is asked about the token that stands for "none".
        let known = |token: LlamaToken| if token.0 >= 0 { text(token) } else { None };
        let control = vocabulary.tokens().filter(|token| vocabulary.is_control(*token));
        let control: ControlTexts = control.filter_map(text).collect();
        let lengths = vocabulary
            .tokens()
            .filter_map(|token| vocabulary.text(token))
            .map(|text| text.to_bytes().len());
        let longest = lengths.max().unwrap_or(1).max(1);
        let bos = known(vocabulary.bos());
        let eos = known(vocabulary.eos()).unwrap_or_default();
        let filler = vocabulary.tokens().next().unwrap_or(LlamaToken(0));
        let source = source(manifest, &llama)?;
        let style = source.as_deref().and_then(Style::of);
        let template = source
            .map(|source| ChatTemplate::new(source, bos.clone().unwrap_or_default(), eos, control))
            .transpose()?;
        Ok(Self {
            limit,
            template,
            style,
            grammars: Grammars::default(),
            filler,
            bos: bos.filter(|_| vocabulary.should_add_bos()),
            longest: u64::try_from(longest).unwrap_or(u64::MAX),
            llama,
        })
    }

    /// The chat template, if the model has one.
    pub(super) fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// How the model writes calls of tools.
    pub(super) fn style(&self) -> Option<Style> {
        self.style
    }

    /// A token for computations whose result nobody wants.
    pub(super) fn filler(&self) -> LlamaToken {
        self.filler
    }

    /// Begins an answer that has to be of a form. `field` is the field of the request that asked for it.
    pub(super) fn grammar(&self, form: TopLevelGrammar, field: &'static str) -> Result<Grammar, Error> {
        self.grammars.begin(&self.llama.vocab(), form, field)
    }

    /// Whether this text is one control token.
    pub(super) fn is_control(&self, text: &str) -> bool {
        let vocabulary = self.llama.vocab();
        match vocabulary.tokenize(text.as_bytes(), false, true).as_slice() {
            [token] => vocabulary.is_control(*token),
            _ => false,
        }
    }

    /// Tokens of a text, with the tokens that the model wants around it. Control tokens are not recognised inside.
    pub(super) fn tokenize(&self, text: &str) -> Vec<LlamaToken> {
        self.llama.vocab().tokenize(text.as_bytes(), true, false)
    }

    /// Tokens of a text that goes on after other tokens.
    pub(super) fn tokenize_rest(&self, text: &str) -> Vec<LlamaToken> {
        self.llama.vocab().tokenize(text.as_bytes(), false, false)
    }

    /// A token of the vocabulary by its id; `None` when there is no such token.
    pub(super) fn token(&self, id: u32) -> Option<LlamaToken> {
        let id = i32::try_from(id).ok();
        id.filter(|id| *id < self.llama.n_vocab()).map(LlamaToken)
    }

    /// Tokens of a rendered conversation. A template that prints the beginning token itself does not get a second.
    pub(super) fn tokenize_parts(&self, parts: &[Part]) -> Vec<LlamaToken> {
        let vocabulary = self.llama.vocab();
        let mut tokens = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let (text, special) = match part {
                Part::Rendered(text) => (text, true),
                Part::Plain(text) => (text, false),
            };
            let has_bos = special && self.bos.as_ref().is_some_and(|bos| text.starts_with(bos.as_str()));
            tokens.extend(vocabulary.tokenize(text.as_bytes(), index == 0 && !has_bos, special));
        }
        tokens
    }

    /// Fails when a text of so many bytes cannot fit, however it is cut into tokens. Cheaper than cutting it.
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), Error> {
        let least = u64::try_from(bytes).unwrap_or(u64::MAX) / self.longest;
        self.check_tokens(least)
    }

    /// Fails unless at least one token of answer fits after so many of prompt.
    pub(super) fn check_tokens(&self, prompt: u64) -> Result<(), Error> {
        let limit = u64::from(self.limit);
        if prompt >= limit {
            return Err(Error::ContextExceeded { prompt, limit });
        }
        Ok(())
    }
}

/// Most tokens by manifest, file and options.
fn limit(manifest: &Manifest, trained: u32, options: &LoadOptions) -> Result<u32, Error> {
    let promised = u32::try_from(manifest.context_length).unwrap_or(u32::MAX);
    if promised < 2 {
        return Err(Error::Model("the manifest gives it no context".to_owned()));
    }
    if promised > trained {
        return Err(Error::Model(format!(
            "the manifest promises a context of {promised} tokens, the file has {trained}"
        )));
    }
    Ok(options.context.unwrap_or(promised).clamp(2, promised))
}

/// The file's chat template, which must be the one that the manifest hashes; `None` where the model does not chat.
fn source(manifest: &Manifest, llama: &LlamaModel) -> Result<Option<String>, Error> {
    let source = llama.chat_template(None).ok();
    let source = source.and_then(|template| template.to_string().ok());
    let Some(source) = source else {
        return match manifest.task {
            TaskKind::Chat => Err(Error::Model("it has no chat template".to_owned())),
            _ => Ok(None),
        };
    };
    let expected = manifest.chat_template_hash.trim_start_matches("0x");
    let found = rialto_protocol::Digest(keccak256(&[source.as_bytes()])).to_string();
    if !expected.is_empty() && !found.trim_start_matches("0x").eq_ignore_ascii_case(expected) {
        return Err(Error::Model(format!(
            "its chat template has the hash {found}, the manifest says {expected}"
        )));
    }
    Ok((manifest.task == TaskKind::Chat).then_some(source))
}
