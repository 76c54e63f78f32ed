//! The thread of an embedding model: one text at a time through the model, pooled as the model says.

use std::num::NonZeroU32;

use llama_cpp_2::{
    context::{
        LlamaContext,
        params::{LlamaContextParams, LlamaPoolingType},
    },
    llama_batch::LlamaBatch,
    token::LlamaToken,
};
use rialto_protocol::output::{FinishReason, Output};
use tokio::sync::mpsc;

use super::model::{Model, backend};
use crate::steps::Steps;
use rialto_engine::{Error, Piece};

/// Texts to embed, as tokens.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) texts: Vec<Vec<LlamaToken>>,
    /// With room for every vector and the end.
    pub(super) pieces: mpsc::Sender<Result<Piece, Error>>,
}

/// The thread's state.
pub(super) struct Worker<'m> {
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    requests: mpsc::Receiver<Request>,
    steps: Steps,
}

impl<'m> Worker<'m> {
    /// Makes the context. A model that does not say how to pool is pooled by the mean.
    pub(super) fn new(
        model: &'m Model,
        threads: usize,
        requests: mpsc::Receiver<Request>,
        steps: Steps,
    ) -> Result<Self, Error> {
        let threads = i32::try_from(threads).unwrap_or(1);
        let architecture = model.llama.meta_val_str("general.architecture").unwrap_or_default();
        let pooling = model.llama.meta_val_str(&format!("{architecture}.pooling_type"));
        let pooling = match pooling.as_deref().map(str::trim) {
            Ok("1" | "2" | "3") => LlamaPoolingType::Unspecified,
            Ok("4") => return Err(Error::Model("it ranks texts and gives no vectors".to_owned())),
            _ => LlamaPoolingType::Mean,
        };
        let parameters = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(model.limit))
            .with_n_seq_max(1)
            // A text must go through in one piece when attention looks both ways.
            .with_n_batch(model.limit)
            .with_n_ubatch(model.limit)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_embeddings(true)
            .with_pooling_type(pooling)
            .with_no_perf(true);
        let context = model
            .llama
            .new_context(backend()?, parameters)
            .map_err(|_| Error::Model("llama.cpp cannot make a context; its log says why".to_owned()))?;
        let batch = LlamaBatch::new(usize::try_from(model.limit).unwrap_or(512), 1);
        Ok(Self {
            context,
            batch,
            requests,
            steps,
        })
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self) {
        while let Some(request) = self.requests.blocking_recv() {
            let last = self.answer(&request);
            if let Some(last) = last.transpose() {
                // There is room for every piece; a reader that left needs none.
                let _ = request.pieces.try_send(last);
            }
        }
    }

    /// Sends the vectors. Nothing follows when the reader left.
    fn answer(&mut self, request: &Request) -> Result<Option<Piece>, Error> {
        for (index, text) in (0u32..).zip(&request.texts) {
            if request.pieces.is_closed() {
                return Ok(None);
            }
            let vector = self.embed(text)?;
            let piece = Piece::Output(Output::Embedding { index, vector });
            let _ = request.pieces.try_send(Ok(piece));
        }
        Ok(Some(Piece::Finished(FinishReason::Stop.into())))
    }

    /// The vector of a text, of length one.
    fn embed(&mut self, tokens: &[LlamaToken]) -> Result<Vec<f32>, Error> {
        let failed = |error: String| Error::Failed(error);
        self.context.clear_kv_cache();
        self.batch.clear();
        for (position, token) in (0i32..).zip(tokens) {
            self.batch
                .add(*token, position, &[0], true)
                .map_err(|error| failed(error.to_string()))?;
        }
        let step = self.steps.begin(tokens.len());
        let decoded = self.context.decode(&mut self.batch);
        step.end();
        decoded.map_err(|error| failed(error.to_string()))?;
        let vector = self
            .context
            .embeddings_seq_ith(0)
            .map_err(|_| failed("llama.cpp gave no vector".to_owned()))?;
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !length.is_finite() || length <= 0.0 {
            return Err(failed("the model gave a vector without a direction".to_owned()));
        }
        Ok(vector.iter().map(|value| value / length).collect())
    }
}
