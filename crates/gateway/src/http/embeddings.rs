//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::Engine as _;
use bytes::Bytes;
use rialto_api::openai::{Embedding, EmbeddingList, EmbeddingRequest, Vector};
use rialto_protocol::{job::Job, manifest::TaskKind, output::Output};

use super::{
    Shared,
    answer::{Source, finish_reason, order, require},
    serving::{Caller, Reply, serve},
};
use crate::{Error, desk::Desk};

pub(crate) async fn handle(State(desk): Shared, request: Request) -> Response {
    serve(desk, request, "embedding", answer).await
}

pub(super) async fn answer(desk: Arc<Desk>, caller: Caller, body: Bytes) -> Result<Reply, Error> {
    let request = EmbeddingRequest::parse(&body)?;
    drop(body);
    let model = desk.resolve(&request.model)?;
    require(&request.model, model.listing.manifest.task, &[TaskKind::Embedding])?;
    let wanted = request.input.len();
    let job = Job::Embedding { inputs: request.input };
    let order = order(&desk, model, job, &request.provider, &caller)?;
    let mut purchase = desk.buy(order).await?;
    caller.presence.first_output();
    let (outputs, bill) = purchase.collect().await?;
    let source = Source::of(&purchase);
    desk.metrics.bill(&bill);
    finish_reason(&bill)?;
    let data = vectors(outputs, wanted, request.base64)?;
    caller.presence.ended("ok");
    let list = EmbeddingList {
        object: "list".into(),
        data,
        model: request.model,
        usage: source.usage(&bill, false),
    };
    Ok(Reply::json(&list, source.final_headers(&bill)))
}

/// One vector for each text, in order.
fn vectors(outputs: Vec<Output>, wanted: usize, base64: bool) -> Result<Vec<Embedding>, Error> {
    let mut data = Vec::with_capacity(outputs.len());
    for output in outputs {
        if let Output::Embedding { index, vector } = output {
            data.push(Embedding {
                object: "embedding".into(),
                index,
                embedding: if base64 {
                    encode(&vector)
                } else {
                    Vector::Numbers(vector)
                },
            });
        }
    }
    data.sort_by_key(|embedding| embedding.index);
    let complete = data
        .iter()
        .enumerate()
        .all(|(place, one)| u32::try_from(place) == Ok(one.index));
    if data.len() != wanted || !complete {
        return Err(Error::ProviderFailed {
            reason: "it did not answer every text".into(),
            charged: true,
        });
    }
    Ok(data)
}

fn encode(vector: &[f32]) -> Vector {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    Vector::Base64(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_put_in_order_and_must_be_complete() {
        let vector = |index| Output::Embedding {
            index,
            vector: vec![1.0, -2.5],
        };
        let data = vectors(vec![vector(1), vector(0)], 2, true).unwrap();
        assert_eq!((data[0].index, data[1].index), (0, 1));
        assert_eq!(data[0].embedding, Vector::Base64("AACAPwAAIMA=".into()));
        assert!(vectors(vec![vector(0), vector(0)], 2, false).is_err());
        assert!(vectors(vec![vector(0)], 2, false).is_err());
    }
}
