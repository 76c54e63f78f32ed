//! What the answers of all endpoints have in common.

use std::sync::Arc;

use rialto_api::{
    BadRequest,
    openai::{Sampling, Trade, Usage},
};
use rialto_protocol::{
    job::{Generation, Job},
    manifest::{Manifest, TaskKind},
    output::FinishReason,
};

use super::model_list::{dollars, task_name};
use crate::{
    Error,
    desk::{Bill, Desk, Order, Purchase, max_input},
    http::serving::Caller,
    store::budget_error,
};

/// Where an answer is bought, for its headers and its usage.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) provider: String,
    pub(crate) channel: String,
    /// The id under which the model was bought: several listings may be of the same weights.
    model: String,
}

impl Source {
    pub(crate) fn of(purchase: &Purchase) -> Self {
        Self {
            provider: purchase.provider.to_string(),
            channel: purchase.channel.to_string(),
            model: purchase.model.to_string(),
        }
    }

    /// Headers that are known when an answer begins.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        vec![
            ("x-rialto-provider".into(), self.provider.clone()),
            ("x-rialto-channel".into(), self.channel.clone()),
            ("x-rialto-model".into(), self.model.clone()),
        ]
    }

    /// Headers that are known when an answer has ended.
    pub(crate) fn final_headers(&self, bill: &Bill) -> Vec<(String, String)> {
        let mut headers = self.headers();
        headers.push(("x-rialto-cost".into(), dollars(bill.cost)));
        if let Some(sequence) = bill.sequence {
            headers.push(("x-rialto-receipt".into(), sequence.to_string()));
        }
        headers
    }

    /// Where it was bought, and for what.
    pub(crate) fn trade(&self, bill: &Bill) -> Trade {
        Trade {
            provider: self.provider.clone(),
            channel: self.channel.clone(),
            receipt: bill.sequence,
            cost_nanodollars: bill.cost.0.to_string(),
        }
    }

    /// The usage as OpenAI's clients read it, with its cost.
    pub(crate) fn usage(&self, bill: &Bill, output: bool) -> Usage {
        Usage {
            prompt_tokens: bill.usage.input,
            completion_tokens: output.then_some(bill.usage.output),
            total_tokens: bill.usage.input.saturating_add(bill.usage.output),
            // Parsed from the exact text: the nearest number to it, for display.
            cost: dollars(bill.cost).parse().ok(),
            trade: Some(self.trade(bill)),
        }
    }
}

/// Settings of a generation, with the model's limit for what the client left open.
pub(crate) fn generation(sampling: &Sampling, logprobs: Option<u8>, manifest: &Manifest, default: u64) -> Generation {
    let usual = Generation::default();
    let context = if manifest.context_length == 0 {
        u64::MAX
    } else {
        manifest.context_length
    };
    Generation {
        max_tokens: sampling.limit().unwrap_or(default).min(context),
        temperature: sampling.temperature.unwrap_or(usual.temperature),
        top_p: sampling.top_p.unwrap_or(usual.top_p),
        top_k: sampling.top_k.unwrap_or(usual.top_k),
        min_p: sampling.min_p.unwrap_or(usual.min_p),
        frequency_penalty: sampling.frequency_penalty.unwrap_or(usual.frequency_penalty),
        presence_penalty: sampling.presence_penalty.unwrap_or(usual.presence_penalty),
        // Without a seed every answer is another one, as OpenAI's are.
        seed: sampling.seed.map_or_else(rand::random, i64::cast_unsigned),
        stop: sampling.stop.0.clone(),
        format: usual.format,
        logprobs,
        so_far: usual.so_far,
    }
}

/// Refuses a model that does something else.
pub(crate) fn require(asked: &str, task: TaskKind, fitting: &[TaskKind]) -> Result<(), Error> {
    if fitting.contains(&task) {
        return Ok(());
    }
    Err(Error::WrongTask {
        model: asked.chars().take(256).collect(),
        task: task_name(task),
    })
}

/// Checks a job, and that its key could pay for it, before anybody is asked to do it.
pub(crate) fn order(desk: &Desk, model: crate::book::Resolved, job: Job, caller: &Caller) -> Result<Order, Error> {
    job.check().map_err(|bad| BadRequest::value(bad.field, bad.reason))?;
    let order = Order {
        most_input: max_input(&job, &model.listing.manifest),
        model,
        job: Arc::new(job),
        key: caller.key.id.clone(),
        idempotency: caller.idempotency,
    };
    if let (Some(most), Some(left)) = (desk.most(&order), caller.key.left())
        && most > left
    {
        return Err(budget_error(most, left));
    }
    Ok(order)
}

/// `stop`, `length` or `tool_calls`; an answer that the provider cut off is an error.
pub(crate) fn finish_reason(bill: &Bill) -> Result<&'static str, Error> {
    if let Some(reason) = &bill.failure {
        return Err(Error::ProviderFailed {
            reason: reason.clone(),
            charged: true,
        });
    }
    match bill.reason {
        FinishReason::Stop => Ok("stop"),
        FinishReason::Length => Ok("length"),
        FinishReason::ToolCalls => Ok("tool_calls"),
        FinishReason::Cancelled => Err(Error::ProviderFailed {
            reason: "it ended the answer early".into(),
            charged: true,
        }),
    }
}

/// A new id with a prefix.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(rand::random::<[u8; 16]>()))
}
