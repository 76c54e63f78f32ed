//! What a server is and can, found out before anything of it is sold.

use std::time::Duration;

use rialto_protocol::{
    job::{Generation, Job, Message, Tools},
    manifest::TaskKind,
};
use serde_json::Value;

use super::{
    body::{self, Manner},
    call::{Server, Trouble},
    config::{Kind, UpstreamConfig},
    count::Meter,
    reply::Incoming,
    vectors,
};
use crate::Error;

/// Longest description of a server.
const MAX_FACTS: usize = 4 << 20;

/// Time in which a server describes itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tokens of the answer that shows how a server counts.
const TRIAL: u64 = 8;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// Requests at the same time, if it tells.
    pub(super) slots: Option<u64>,
    /// Most tokens of prompt and answer, if it tells.
    pub(super) context: Option<u64>,
    /// Whether it tells log-probabilities.
    pub(super) logprobs: bool,
    /// Whether its usage tells fewer tokens than it sends.
    pub(super) distrusted: bool,
}

/// Finds out what a server is, and has it do a little of what is to be sold.
pub(super) async fn learn(server: &Server, config: &UpstreamConfig) -> Result<Facts, Error> {
    let props = server.get("/props", MAX_FACTS, PATIENCE).await.ok();
    let kind = match config.kind {
        Some(kind) => kind,
        None => detect(server, props.as_ref()).await,
    };
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).filter(|number| *number > 0);
    let mut facts = Facts {
        kind,
        slots: None,
        context: None,
        logprobs: false,
        distrusted: false,
    };
    match (kind, &props) {
        (Kind::LlamaCpp, Some(props)) => {
            facts.slots = number(props.get("total_slots"));
            facts.context = number(props.pointer("/default_generation_settings/n_ctx"));
        }
        (Kind::Vllm, _) => {
            let models = server.get("/v1/models", MAX_FACTS, PATIENCE).await?;
            let models = models.get("data").and_then(Value::as_array);
            let mut models = models.into_iter().flatten();
            let ours = models.find(|model| model.get("id").and_then(Value::as_str) == Some(&config.model));
            facts.context = number(ours.and_then(|model| model.get("max_model_len")));
        }
        _ => {}
    }
    if config.task == TaskKind::Embedding {
        vectors::embed(server, &config.model, &["a".to_owned()], config.first_token).await?;
        return Ok(facts);
    }
    for logprobs in [true, false] {
        match trial(server, config, kind, logprobs).await {
            Ok(Trial { logprobs, distrusted }) => {
                facts.logprobs = logprobs;
                facts.distrusted = distrusted;
                return Ok(facts);
            }
            // It may be log-probabilities that it refuses.
            Err(Trouble::Refused(_)) if logprobs => {}
            Err(trouble) => return Err(Error::Failed(trouble.to_string())),
        }
    }
    Ok(facts)
}

async fn detect(server: &Server, props: Option<&Value>) -> Kind {
    if props.is_some_and(|props| props.get("default_generation_settings").is_some()) {
        return Kind::LlamaCpp;
    }
    let has_version = |value: &Value| value.get("version").is_some_and(Value::is_string);
    for (path, kind) in [("/api/version", Kind::Ollama), ("/version", Kind::Vllm)] {
        if server
            .get(path, MAX_FACTS, PATIENCE)
            .await
            .is_ok_and(|value| has_version(&value))
        {
            return kind;
        }
    }
    Kind::OpenAi
}

struct Trial {
    logprobs: bool,
    distrusted: bool,
}

/// Has a few tokens made, to see what is told of them and how they are counted.
async fn trial(server: &Server, config: &UpstreamConfig, kind: Kind, logprobs: bool) -> Result<Trial, Trouble> {
    let generation = Generation {
        max_tokens: TRIAL,
        ..Generation::default()
    };
    let job = match config.task {
        TaskKind::Completion => Job::Completion {
            prompt: "Once upon a time".into(),
            generation,
        },
        _ => Job::Chat {
            messages: vec![Message::text("user", "Say something.")],
            tools: Tools::default(),
            generation,
        },
    };
    let manner = Manner {
        kind,
        model: &config.model,
        logprobs,
    };
    let asked = body::ask(manner, &job, TRIAL, "trial").ok().flatten();
    let asked = asked.ok_or_else(|| Trouble::odd("no trial can be made"))?;
    let whole = async {
        let response = server.stream(asked.path, &asked.body, config.first_token).await?;
        let mut incoming = Incoming::new(response, TRIAL);
        let (mut meter, mut told, mut ended) = (Meter::new(u64::MAX, false), false, false);
        while let Some(mut delta) = incoming.next().await? {
            told |= !delta.tokens.is_empty();
            ended |= delta.finish.is_some();
            meter.add(&mut delta);
        }
        if !ended {
            return Err(Trouble::Gone("ended an answer in its middle"));
        }
        Ok(Trial {
            logprobs: told,
            distrusted: meter.was_told_less(),
        })
    };
    let done = tokio::time::timeout(config.first_token, whole).await;
    done.unwrap_or(Err(Trouble::Gone("does not answer in time")))
}
