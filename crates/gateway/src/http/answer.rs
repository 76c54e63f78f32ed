//! What the answers of all endpoints have in common.

use std::sync::Arc;

use rialto_api::{
    BadRequest,
    openai::{Provider, Sampling, Trade, TradePart, Usage},
};
use rialto_protocol::{
    job::{Generation, Job},
    manifest::{Manifest, TaskKind},
    output::FinishReason,
};

use super::model_list::{dollars, task_name};
use crate::{
    Error,
    buying::{Bill, Order, Part, Purchase, max_input},
    desk::Desk,
    http::serving::Caller,
    routing::Preferences,
    store::budget_error,
};

/// Where an answer is bought, for its headers and its usage.
pub(crate) struct Source<'a>(&'a Purchase);

impl<'a> Source<'a> {
    pub(crate) fn of(purchase: &'a Purchase) -> Self {
        Self(purchase)
    }

    /// Headers that are known when an answer begins.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let part = self.0.part();
        let mut headers = vec![
            ("x-rialto-provider".into(), part.provider.to_string()),
            ("x-rialto-channel".into(), part.channel.to_string()),
            // The id under which the model was bought: several listings may be of the same weights.
            ("x-rialto-model".into(), part.model.to_string()),
        ];
        if let Some(route) = &self.0.route {
            headers.push(("x-rialto-route".into(), route.clone()));
        }
        headers
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
        let last = self.0.part();
        let earlier = self.0.earlier();
        let several = (!earlier.is_empty()).then(|| earlier.iter().chain([last]).map(part));
        Trade {
            provider: last.provider.to_string(),
            channel: last.channel.to_string(),
            receipt: bill.sequence,
            cost_nanodollars: bill.cost.0.to_string(),
            list_nanodollars: self.0.list_cost(bill.usage).map(|cost| cost.0.to_string()),
            parts: several.into_iter().flatten().collect(),
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

fn part(part: &Part) -> TradePart {
    TradePart {
        provider: part.provider.to_string(),
        channel: part.channel.to_string(),
        receipt: part.sequence,
        cost_nanodollars: part.cost.0.to_string(),
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

/// Checks a job, what is wanted of its seller, and that its key could pay for it, before anybody is asked to do it.
pub(crate) fn order(
    desk: &Desk,
    model: crate::book::Resolved,
    job: Job,
    wanted: &Provider,
    caller: &Caller,
) -> Result<Order, Error> {
    job.check().map_err(|bad| BadRequest::value(bad.field, bad.reason))?;
    let owners = Preferences {
        max_price: desk.config.max_price,
        max_chunk: desk.config.max_chunk,
        ..Preferences::default()
    };
    let preferences = match caller.key.usual()? {
        Some(usual) => owners.narrowed(&usual)?.narrowed(wanted)?,
        None => owners.narrowed(wanted)?,
    };
    let quantisation = &model.listing.manifest.quantisation;
    if !preferences.takes(quantisation) {
        let reasons = format!("its weights are {quantisation}");
        return Err(Error::NobodyFits {
            model: model.asked,
            reasons,
        });
    }
    let order = Order {
        most_input: max_input(&job, &model.listing.manifest),
        model,
        prompt: desk.prefixes.prompt(&job),
        job: Arc::new(job),
        key: caller.key.id.clone(),
        idempotency: caller.idempotency,
        preferences: Arc::new(preferences),
        explain: caller.explain,
        terms: caller.terms.clone(),
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
