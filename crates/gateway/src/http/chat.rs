//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use rialto_api::openai::{ChatChoice, ChatCompletion, ChatMessage, ChatRequest};
use rialto_protocol::{
    job::{Job, Message, Tools},
    manifest::TaskKind,
};

use super::{
    Shared,
    answer::{Source, finish_reason, generation, new_id, order, require, text_of},
    serving::{Caller, Reply, serve},
    stream::{Script, Shape, events},
};
use crate::{Error, desk::Desk, store::now};

pub(crate) async fn handle(State(desk): Shared, request: Request) -> Response {
    serve(desk, request, "chat", answer).await
}

async fn answer(desk: Arc<Desk>, caller: Caller, body: Bytes) -> Result<Reply, Error> {
    let request = ChatRequest::parse(&body)?;
    drop(body);
    let model = desk.resolve(&request.model)?;
    let manifest = &model.listing.manifest;
    require(&request.model, manifest.task, &[TaskKind::Chat])?;
    let generation = generation(&request.sampling, manifest, desk.config.default_max_tokens);
    let turns = request.messages.into_iter();
    let job = Job::Chat {
        messages: turns.map(|turn| Message::text(turn.role, turn.content)).collect(),
        tools: Tools::default(),
        generation,
    };
    let order = order(&desk, model, job, &caller)?;
    let purchase = desk.buy(order).await?;
    let source = Source::of(&purchase);
    if request.sampling.streams() {
        let script = Script {
            shape: Shape::Chat,
            id: new_id("chatcmpl"),
            created: now(),
            model: request.model,
            include_usage: request.sampling.includes_usage(),
        };
        let headers = source.headers();
        return Ok(Reply::events(events(desk, purchase, caller.presence, script), headers));
    }
    caller.presence.first_output();
    let (outputs, bill) = purchase.collect().await?;
    desk.metrics.bill(&bill);
    let reason = finish_reason(&bill)?;
    caller.presence.ended("ok");
    let completion = ChatCompletion {
        id: new_id("chatcmpl"),
        object: "chat.completion".into(),
        created: now(),
        model: request.model,
        choices: vec![ChatChoice {
            index: 0,
            message: ChatMessage {
                role: "assistant".into(),
                content: text_of(&outputs),
                refusal: None,
            },
            finish_reason: Some(reason.into()),
            logprobs: None,
        }],
        usage: source.usage(&bill, true),
    };
    Ok(Reply::json(&completion, source.final_headers(&bill)))
}
