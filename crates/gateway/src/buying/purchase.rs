//! An answer on its way, from one seller or from several one after another.
//!
//! When a seller breaks off in the middle, the answer goes on at another from the tokens so far. The client sees one
//! answer. Each seller is paid for what it gave, each gives a receipt of its own, and the second one's receipt is bound to
//! the first one's request: the hash of its job names it.

use std::sync::Arc;

use rialto_protocol::{
    Address, ChannelId, ModelId, NanoDollars, RequestId, Usage,
    job::{Generation, Job, SoFar},
    output::{FinishReason, Output},
};
use tokio::sync::mpsc;

use super::{Begun, Order, hedge::Lost, max_input};
use crate::{
    Error,
    desk::Desk,
    trade::{Event, Next},
};

/// What one seller gave of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) provider: Address,
    pub(crate) model: ModelId,
    pub(crate) channel: ChannelId,
    /// The receipt's number in its channel; `None` if it was not accepted, or comes later.
    pub(crate) sequence: Option<u64>,
    pub(crate) cost: NanoDollars,
}

impl Part {
    pub(super) fn at(provider: Address, model: ModelId) -> Self {
        Self {
            provider,
            model,
            channel: ChannelId::default(),
            sequence: None,
            cost: NanoDollars::ZERO,
        }
    }
}

/// How an answer ended, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) cost: NanoDollars,
    /// The last receipt's number in its channel; `None` if it was not accepted.
    pub(crate) sequence: Option<u64>,
    /// What went wrong at the provider, in public words.
    pub(crate) failure: Option<String>,
}

/// An answer that has begun to arrive.
pub(crate) struct Purchase {
    desk: Arc<Desk>,
    order: Order,
    tried: Vec<Address>,
    request: RequestId,
    first: Option<Event>,
    events: mpsc::Receiver<Event>,
    /// Who gives it now, and who gave the parts before.
    part: Part,
    earlier: Vec<Part>,
    /// Who was asked as well, and was slower.
    lost: Vec<Lost>,
    so_far: Given,
    /// Why its first seller was chosen, as JSON, if the client wants to know.
    pub(crate) route: Option<String>,
}

/// What the client has.
#[derive(Debug, Default)]
struct Given {
    ids: Vec<u32>,
    text: String,
    /// Whether there is something in it that no other seller can go on after.
    fixed: bool,
    /// What the parts before the present one used and cost; the input is the first one's.
    usage: Usage,
    cost: NanoDollars,
}

impl Given {
    fn note(&mut self, output: &Output) {
        match output {
            Output::Tokens { ids, text, .. } => {
                self.ids.extend(ids);
                self.text.push_str(text);
            }
            Output::Embedding { .. } | Output::Tensors(_) | Output::ToolCall { .. } => self.fixed = true,
        }
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.text.is_empty()
    }
}

/// Whether the answer may be calls of tools, which come at its end.
fn may_call(job: &Job) -> bool {
    matches!(job, Job::Chat { tools, .. } if !tools.offered.is_empty())
}

impl Purchase {
    pub(super) fn new(desk: Arc<Desk>, order: Order, tried: Vec<Address>, begun: Begun) -> Self {
        Self {
            desk,
            order,
            tried,
            request: begun.request,
            first: Some(begun.first),
            events: begun.events,
            part: begun.part,
            earlier: Vec::new(),
            lost: begun.lost.into_iter().collect(),
            so_far: Given::default(),
            route: begun.route,
        }
    }

    /// Who gives the answer now.
    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    /// Who gave earlier parts of it; once it has ended, also who was asked as well and was slower.
    pub(crate) fn earlier(&self) -> &[Part] {
        &self.earlier
    }

    /// What a use would have cost at the list price, if there is one for the model.
    pub(crate) fn list_cost(&self, usage: Usage) -> Option<NanoDollars> {
        let model = &self.order.model;
        let prices = &self.desk.config.list_prices;
        let price = prices.get(&model.asked).or_else(|| prices.get(&model.listing.name));
        price.map(|price| price.cost(usage))
    }

    /// The next event; `None` after the last. A bill is over all parts.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            let event = match self.first.take() {
                Some(event) => Some(event),
                None => self.events.recv().await,
            };
            match event? {
                Event::Accepted { channel } => self.part.channel = channel,
                Event::Output(output) => {
                    self.so_far.note(&output);
                    return Some(Event::Output(output));
                }
                Event::Finished(bill) if bill.failure.is_none() => return Some(Event::Finished(self.total(bill))),
                Event::Finished(bill) => {
                    self.part.sequence = bill.sequence;
                    if let Some(last) = self.go_on(bill.usage, bill.cost).await {
                        return Some(last);
                    }
                    if !self.has_gone_on() {
                        return Some(Event::Finished(self.total(bill)));
                    }
                }
                Event::Failed {
                    error,
                    next,
                    usage,
                    cost,
                } => {
                    if next != Next::Nobody {
                        if let Some(last) = self.go_on(usage, cost).await {
                            return Some(last);
                        }
                        if self.has_gone_on() {
                            continue;
                        }
                    }
                    return Some(Event::Failed {
                        error,
                        next: Next::Nobody,
                        usage,
                        cost,
                    });
                }
            }
        }
    }

    /// Whether another seller has begun since the last event.
    fn has_gone_on(&self) -> bool {
        self.first.is_some()
    }

    /// Goes on at another seller, if one can: then [`Self::first`] is its first event. Gives the last event if nothing is
    /// missing but the end.
    async fn go_on(&mut self, usage: Usage, cost: NanoDollars) -> Option<Event> {
        let job = self.rest()?;
        let left = job.max_output();
        if left == 0 {
            if self.so_far.text.is_empty() || may_call(&job) {
                return None;
            }
            // Everything that was asked for is there; only the receipt is not, and it comes with the next request.
            let bill = Bill {
                reason: FinishReason::Length,
                usage,
                cost,
                sequence: self.part.sequence,
                failure: None,
            };
            return Some(Event::Finished(self.total(bill)));
        }
        let order = Order {
            most_input: max_input(&job, &self.order.model.listing.manifest),
            job: Arc::new(job),
            ..self.order.clone()
        };
        let begun = match self.desk.begin(&order, &mut self.tried).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::info!(request = %self.request, %error, "nobody goes on with an answer that broke off");
                return None;
            }
        };
        tracing::info!(before = %self.request, now = %begun.request, "another seller goes on with an answer");
        self.desk.metrics.failovers.inc();
        let mut before = std::mem::replace(&mut self.part, begun.part);
        before.cost = cost;
        self.count(usage, cost);
        self.earlier.push(before);
        self.lost.extend(begun.lost);
        self.request = begun.request;
        self.events = begun.events;
        self.first = Some(begun.first);
        None
    }

    fn count(&mut self, usage: Usage, cost: NanoDollars) {
        if self.earlier.is_empty() {
            self.so_far.usage.input = usage.input;
        }
        self.so_far.usage.output = self.so_far.usage.output.saturating_add(usage.output);
        self.so_far.cost = self.so_far.cost.plus(cost);
    }

    /// The job of whoever goes on; `None` where nobody can.
    fn rest(&self) -> Option<Job> {
        if self.so_far.fixed || self.so_far.is_empty() {
            return None;
        }
        let mut job = self.order.job.as_ref().clone();
        let (Job::Chat { generation, .. } | Job::Completion { generation, .. }) = &mut job else {
            return None;
        };
        let given = u64::try_from(self.so_far.ids.len()).unwrap_or(u64::MAX);
        *generation = Generation {
            max_tokens: generation.max_tokens.saturating_sub(given),
            so_far: SoFar {
                ids: self.so_far.ids.clone(),
                text: self.so_far.text.clone(),
                request: self.request,
            },
            ..generation.clone()
        };
        Some(job)
    }

    /// A bill over all parts: what the client's own prompt is, all that was generated, and everything that is paid. It is made
    /// once, at the end.
    fn total(&mut self, bill: Bill) -> Bill {
        self.part.sequence = bill.sequence;
        self.part.cost = bill.cost;
        let usage = if self.earlier.is_empty() {
            bill.usage
        } else {
            Usage {
                input: self.so_far.usage.input,
                output: self.so_far.usage.output.saturating_add(bill.usage.output),
            }
        };
        let mut cost = self.so_far.cost.plus(bill.cost);
        for part in self.lost.drain(..).filter_map(|lost| lost.part()) {
            cost = cost.plus(part.cost);
            self.earlier.push(part);
        }
        Bill { usage, cost, ..bill }
    }

    /// The whole answer.
    pub(crate) async fn collect(&mut self) -> Result<(Vec<Output>, Bill), Error> {
        let mut outputs = Vec::new();
        while let Some(event) = self.next().await {
            match event {
                Event::Accepted { .. } => {}
                Event::Output(output) => outputs.push(output),
                Event::Finished(bill) => {
                    return match bill.failure {
                        None => Ok((outputs, bill)),
                        Some(reason) => Err(Error::ProviderFailed { reason, charged: true }),
                    };
                }
                Event::Failed { error, .. } => return Err(error),
            }
        }
        Err(Error::Stopping)
    }
}
