//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use rialto_api::openai::{ChatChoice, ChatCompletion, ChatRequest, ChatTurn, Choice, Format, Toolbox};
use rialto_protocol::{
    job::{AnswerFormat, Job, Message, Tool, ToolCall, ToolChoice, Tools},
    manifest::TaskKind,
};

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
    serve(desk, request, "chat", answer).await
}

pub(super) async fn answer(desk: Arc<Desk>, caller: Caller, body: Bytes) -> Result<Reply, Error> {
    let request = ChatRequest::parse(&body)?;
    drop(body);
    let model = desk.resolve(&request.model)?;
    let manifest = &model.listing.manifest;
    require(&request.model, manifest.task, &[TaskKind::Chat])?;
    let logprobs = request.logprobs;
    let mut generation = generation(&request.sampling, logprobs, manifest, desk.config.default_max_tokens);
    generation.format = format(request.format);
    let parallel = request.tools.parallel;
    let tools = tools(request.tools);
    let may_call = !tools.offered.is_empty();
    let job = Job::Chat {
        messages: request.messages.into_iter().map(message).collect(),
        tools,
        generation,
    };
    let order = order(&desk, model, job, &request.sampling.provider, &caller)?;
    let mut purchase = desk.buy(order).await?;
    if request.sampling.streams() {
        let script = Script {
            shape: Shape::Chat,
            id: new_id("chatcmpl"),
            created: now(),
            model: request.model,
            include_usage: request.sampling.includes_usage(),
            tools: may_call,
            parallel,
            logprobs: logprobs.is_some(),
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
    let said = Said::of(outputs, parallel);
    said.check(&bill)?;
    caller.presence.ended("ok");
    let completion = ChatCompletion {
        id: new_id("chatcmpl"),
        object: "chat.completion".into(),
        created: now(),
        model: request.model,
        choices: vec![ChatChoice {
            index: 0,
            logprobs: said.chat_logprobs(logprobs.is_some()),
            message: said.message(),
            finish_reason: Some(reason.into()),
        }],
        usage: source.usage(&bill, true),
    };
    Ok(Reply::json(&completion, source.final_headers(&bill)))
}

fn message(turn: ChatTurn) -> Message {
    let calls = turn.tool_calls.into_iter().map(|call| ToolCall {
        id: call.id,
        name: call.function.name,
        arguments: call.function.arguments,
    });
    Message {
        role: turn.role,
        content: turn.content,
        tool_calls: calls.collect(),
        tool_call_id: turn.tool_call_id,
    }
}

/// Tools as the market knows them. What must not be called is not sent at all: nobody pays for reading it.
fn tools(toolbox: Toolbox) -> Tools {
    let choice = match toolbox.choice {
        Choice::Never => return Tools::default(),
        Choice::Auto => ToolChoice::Auto,
        Choice::Required => ToolChoice::Required,
        Choice::Named(name) => ToolChoice::Named(name),
    };
    let offered = toolbox.offered.into_iter().map(|tool| Tool {
        name: tool.name,
        description: tool.description,
        parameters: tool.parameters,
    });
    Tools {
        offered: offered.collect(),
        choice,
    }
}

fn format(format: Format) -> AnswerFormat {
    match format {
        Format::Text => AnswerFormat::Text,
        Format::JsonObject => AnswerFormat::JsonObject,
        Format::JsonSchema(schema) => AnswerFormat::JsonSchema(schema),
    }
}

#[cfg(test)]
mod tests {
    use rialto_api::openai;
    use rialto_protocol::job;

    #[test]
    fn the_api_accepts_as_much_as_the_market_and_no_more() {
        // Within these the API names the very field that is too large; the market's own check names only its kind.
        assert_eq!(openai::MAX_TOOLS, job::MAX_TOOLS);
        assert_eq!(openai::MAX_SCHEMA_BYTES, job::MAX_SCHEMA_BYTES);
    }
}
