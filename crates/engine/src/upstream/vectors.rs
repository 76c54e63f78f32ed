//! Embeddings: texts in parts, vectors checked one by one.

use std::time::Duration;

use rialto_protocol::output::{FinishReason, Output};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Shared,
    call::{Server, Trouble},
};
use crate::{Ending, Error, Piece};

/// Texts that are sent in one request.
const PART: usize = 32;

/// Longest vector.
const MAX_VECTOR: usize = 65_536;

/// Most bytes of one answer: the vectors of a part, written out.
const MAX_ANSWER: usize = 64 << 20;

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

/// Embeds texts and gives the vectors out in their order.
pub(super) async fn run(
    shared: &Shared,
    inputs: &[String],
    sender: &mpsc::Sender<Result<Piece, Error>>,
) -> Result<Ending, Error> {
    let mut index = 0u32;
    let mut width = None;
    for texts in inputs.chunks(PART) {
        let patience = shared.config.first_token;
        let vectors = shared.noted(embed(&shared.server, &shared.config.model, texts, patience).await)?;
        for vector in vectors {
            if *width.get_or_insert(vector.len()) != vector.len() {
                return Err(Trouble::odd("vectors of different lengths").into());
            }
            let piece = Piece::Output(Output::Embedding { index, vector });
            // A reader that is gone is noticed by whoever runs this.
            let _ = sender.send(Ok(piece)).await;
            index = index.saturating_add(1);
        }
    }
    Ok(FinishReason::Stop.into())
}

/// The vectors of some texts, one for each.
pub(super) async fn embed(
    server: &Server,
    model: &str,
    texts: &[String],
    patience: Duration,
) -> Result<Vec<Vec<f32>>, Trouble> {
    let body = json!({ "model": model, "input": texts, "encoding_format": "float" });
    let answer = server.post("/v1/embeddings", &body, MAX_ANSWER, patience).await?;
    let rows = answer.get("data").unwrap_or(&Value::Null);
    let mut rows = Vec::<Row>::deserialize(rows).map_err(|_| Trouble::odd("no vectors"))?;
    rows.sort_by_key(|row| row.index);
    let is_whole = rows.len() == texts.len() && rows.iter().enumerate().all(|(place, row)| place == row.index);
    if !is_whole {
        return Err(Trouble::odd("not one vector for each text"));
    }
    let is_sound = |row: &Row| {
        (1..=MAX_VECTOR).contains(&row.embedding.len()) && row.embedding.iter().all(|value| value.is_finite())
    };
    if !rows.iter().all(is_sound) {
        return Err(Trouble::odd("a vector that is none"));
    }
    Ok(rows.into_iter().map(|row| row.embedding).collect())
}
