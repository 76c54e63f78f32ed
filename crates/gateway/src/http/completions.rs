//! `POST /v1/completions`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use rialto_api::openai::{Completion, CompletionChoice, CompletionRequest};
use rialto_protocol::{job::Job, manifest::TaskKind};

use super::{
    Shared,
    answer::{Source, finish_reason, generation, new_id, order, require},
    said::Said,
    script::{Script, Shape},
    serving::{Caller, Reply, serve},
    stream::events,
};
use crate::{Error, desk::Desk, store::now};

pub(crate) async fn handle(State(desk): Shared, request: Request) -> Response {
    serve(desk, request, "completion", answer).await
}

pub(super) async fn answer(desk: Arc<Desk>, caller: Caller, body: Bytes) -> Result<Reply, Error> {
    let request = CompletionRequest::parse(&body)?;
    drop(body);
    let model = desk.resolve(&request.model)?;
    let manifest = &model.listing.manifest;
    require(&request.model, manifest.task, &[TaskKind::Chat, TaskKind::Completion])?;
    let job = Job::Completion {
        generation: generation(
            &request.sampling,
            request.logprobs,
            manifest,
            desk.config.default_max_tokens,
        ),
        prompt: request.prompt,
    };
    let order = order(&desk, model, job, &request.sampling.provider, &caller)?;
    let mut purchase = desk.buy(order).await?;
    if request.sampling.streams() {
        let script = Script {
            shape: Shape::Completion,
            id: new_id("cmpl"),
            created: now(),
            model: request.model,
            include_usage: request.sampling.includes_usage(),
            tools: false,
            parallel: false,
            logprobs: request.logprobs.is_some(),
            offset: 0,
        };
        let headers = Source::of(&purchase).headers();
        return Ok(Reply::events(events(desk, purchase, caller.presence, script), headers));
    }
    caller.presence.first_output();
    let (outputs, bill) = purchase.collect().await?;
    let source = Source::of(&purchase);
    desk.metrics.bill(&bill);
    let reason = finish_reason(&bill)?;
    let said = Said::of(outputs, false);
    said.check(&bill)?;
    caller.presence.ended("ok");
    let completion = Completion {
        id: new_id("cmpl"),
        object: "text_completion".into(),
        created: now(),
        model: request.model,
        choices: vec![CompletionChoice {
            index: 0,
            finish_reason: Some(reason.into()),
            logprobs: said.completion_logprobs(request.logprobs.is_some()),
            text: said.text,
        }],
        usage: Some(source.usage(&bill, true)),
    };
    Ok(Reply::json(&completion, source.final_headers(&bill)))
}
