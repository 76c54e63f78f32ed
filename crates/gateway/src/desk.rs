//! The desk: everything that a request needs, and how a request is bought.

use std::{sync::Arc, time::Duration};

use rialto_network::Node;
use rialto_protocol::{
    Address, ChannelId, ModelId, NanoDollars, RequestId, Usage,
    job::Job,
    manifest::Manifest,
    offer::Announcement,
    output::{FinishReason, Output},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Error, Store,
    book::{Book, Resolved, Stakes},
    http::{Attempts, Bells},
    metrics::Metrics,
    paying::Ledger,
    routing::{Candidate, Ceiling, Health, Traffic, Verdict, choose},
    store::now,
    trade::{self, Deal, Event, Next},
};

/// Everything that a request needs.
pub(crate) struct Desk {
    pub(crate) config: Arc<Config>,
    pub(crate) node: Node,
    pub(crate) book: Arc<Book>,
    pub(crate) stakes: Stakes,
    pub(crate) store: Store,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) health: Health,
    pub(crate) traffic: Traffic,
    pub(crate) metrics: Metrics,
    /// Trades under way; they outlive the connections of their clients.
    pub(crate) tasks: TaskTracker,
    /// Ends trades under way when the gateway cannot wait for them any longer.
    pub(crate) halt: CancellationToken,
    /// Places for requests.
    pub(crate) places: Arc<Semaphore>,
    /// Idempotent requests being answered.
    pub(crate) bells: Bells,
    /// Purchases for clients that retry by themselves.
    pub(crate) attempts: Attempts,
    /// Tells this run of the gateway from others.
    pub(crate) boot: [u8; 16],
}

/// What a client wants to buy.
pub(crate) struct Order {
    pub(crate) model: Resolved,
    pub(crate) job: Arc<Job>,
    /// The API key that pays: its public part.
    pub(crate) key: String,
    /// What its requests are stored under: its idempotency record, or its purchase for a client that retries.
    pub(crate) idempotency: Option<[u8; 32]>,
    /// The most units of input that may be billed.
    pub(crate) most_input: u64,
}

/// An answer that has begun to arrive.
pub(crate) struct Purchase {
    pub(crate) provider: Address,
    pub(crate) model: ModelId,
    pub(crate) channel: ChannelId,
    first: Option<Event>,
    events: mpsc::Receiver<Event>,
}

/// How an answer ended, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) cost: NanoDollars,
    /// The receipt's number in its channel; `None` if it was not accepted.
    pub(crate) sequence: Option<u64>,
    /// What went wrong at the provider, in public words.
    pub(crate) failure: Option<String>,
}

impl Purchase {
    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        match self.first.take() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// The whole answer.
    pub(crate) async fn collect(mut self) -> Result<(Vec<Output>, Bill), Error> {
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

/// A seller that was chosen, or why there is none.
enum Pick {
    Seller(Arc<Announcement>),
    Nobody,
    TooExpensive,
}

impl Desk {
    /// What a name of a model stands for.
    pub(crate) fn resolve(&self, name: &str) -> Result<Resolved, Error> {
        if let Some(model) = self.book.resolve(name) {
            return Ok(model);
        }
        let model: String = name.chars().take(256).collect();
        // Before any book was read, nobody can say that a model does not exist.
        if self.book.was_read() || !self.book.is_empty() {
            return Err(Error::UnknownModel { model });
        }
        Err(Error::NoSeller {
            model,
            retry_ms: self.config.timeouts.browse_ms,
        })
    }

    /// Buys an answer: tries one seller after another until one has begun to answer.
    ///
    /// Once something has arrived, the answer stays with its seller. Dropping the purchase cancels it.
    pub(crate) async fn buy(self: &Arc<Self>, order: Order) -> Result<Purchase, Error> {
        let mut tried = Vec::new();
        let mut worst: Option<Error> = None;
        let mut busy: Option<u64> = None;
        let mut again = 2;
        for _ in 0..self.config.max_attempts.max(1) {
            let announcement = match self.pick(&order, &tried) {
                Pick::Seller(announcement) => announcement,
                Pick::TooExpensive if tried.is_empty() => {
                    return Err(Error::TooExpensive {
                        model: order.model.asked,
                    });
                }
                Pick::Nobody | Pick::TooExpensive => break,
            };
            let provider = announcement.offer.provider;
            tried.push(provider);
            match self.attempt(&order, announcement).await {
                Ok(purchase) => return Ok(purchase),
                Err((error, Next::Nobody)) => return Err(error),
                Err((error, Next::SameAgain)) => {
                    if again > 0 {
                        again -= 1;
                        tried.retain(|one| *one != provider);
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                    worst = Some(error);
                }
                Err((Error::Busy { retry_ms }, Next::Another)) => {
                    busy = Some(busy.map_or(retry_ms, |shortest| shortest.min(retry_ms)));
                }
                Err((error, Next::Another)) => {
                    tracing::info!(%provider, %error, "trying another seller");
                    worst = Some(error);
                }
            }
        }
        if let Some(retry_ms) = busy {
            return Err(Error::Busy { retry_ms });
        }
        Err(worst.unwrap_or(Error::NoSeller {
            model: order.model.asked,
            retry_ms: self.config.timeouts.browse_ms,
        }))
    }

    /// Begins a trade and waits until its first output or its end.
    async fn attempt(
        self: &Arc<Self>,
        order: &Order,
        announcement: Arc<Announcement>,
    ) -> Result<Purchase, (Error, Next)> {
        let offer = &announcement.offer;
        let (provider, model) = (offer.provider, offer.model);
        let deal = Deal {
            request: RequestId(rand::random()),
            listing: order.model.listing.name.clone(),
            job: Arc::clone(&order.job),
            key: order.key.clone(),
            idempotency: order.idempotency,
            most_input: order.most_input,
            announcement: Arc::clone(&announcement),
        };
        let mut events = trade::begin(Arc::clone(self), deal);
        let mut channel = ChannelId::default();
        loop {
            match events.recv().await {
                Some(Event::Accepted { channel: paying }) => channel = paying,
                Some(Event::Failed { error, next }) => return Err((error, next)),
                Some(Event::Finished(bill)) if bill.failure.is_some() && bill.usage.output == 0 => {
                    let reason = bill.failure.unwrap_or_default();
                    let charged = bill.cost > NanoDollars::ZERO;
                    return Err((Error::ProviderFailed { reason, charged }, Next::Another));
                }
                Some(first) => {
                    return Ok(Purchase {
                        provider,
                        model,
                        channel,
                        first: Some(first),
                        events,
                    });
                }
                None => return Err((Error::Stopping, Next::Nobody)),
            }
        }
    }

    fn pick(&self, order: &Order, tried: &[Address]) -> Pick {
        let ceiling = Ceiling {
            price: self.config.max_price,
            chunk: self.config.max_chunk,
        };
        let offers = self.book.offers(&order.model.models, now());
        let any = !offers.is_empty();
        let likely = likely_usage(&order.job);
        let candidates: Vec<Candidate> = offers
            .into_iter()
            .filter(|one| ceiling.judge(&one.offer) == Verdict::Fine)
            .filter(|one| !tried.contains(&one.offer.provider) && !self.health.is_distrusted(one.offer.provider))
            .map(|announcement| Candidate {
                in_flight: self.traffic.of((announcement.offer.provider, announcement.offer.model)),
                cost: announcement.offer.price.cost(likely),
                penalised: self.health.is_penalised(announcement.offer.provider),
                announcement,
            })
            .collect();
        match choose(candidates) {
            Some(candidate) => Pick::Seller(candidate.announcement),
            None if any && tried.is_empty() => self.nobody(&order.model.models, ceiling),
            None => Pick::Nobody,
        }
    }

    /// Why nobody is left although there are offers: too expensive, or distrusted.
    fn nobody(&self, models: &[ModelId], ceiling: Ceiling) -> Pick {
        let offers = self.book.offers(models, now());
        let all_expensive = offers
            .iter()
            .all(|one| ceiling.judge(&one.offer) == Verdict::TooExpensive);
        if all_expensive {
            Pick::TooExpensive
        } else {
            Pick::Nobody
        }
    }

    /// The most that a job can cost at the cheapest seller: a key that has less is refused before anybody is asked.
    pub(crate) fn most(&self, order: &Order) -> Option<NanoDollars> {
        let offers = self.book.offers(&order.model.models, now());
        let usage = Usage {
            input: order.most_input,
            output: order.job.max_output(),
        };
        offers.iter().map(|one| one.offer.price.cost(usage)).min()
    }
}

/// The most units of input that an honest provider can count: what the model's context holds, if it has one.
pub(crate) fn max_input(job: &Job, manifest: &Manifest) -> u64 {
    let most = job.max_input();
    match job {
        Job::Chat { .. } | Job::Completion { .. } if manifest.context_length > 0 => most.min(manifest.context_length),
        _ => most,
    }
}

/// What a job is likely to use: a token is about three bytes, and few answers reach their limit.
pub(crate) fn likely_usage(job: &Job) -> Usage {
    Usage {
        input: estimate_input(job, job.max_input()),
        output: job.max_output().div_ceil(2),
    }
}

/// Units of input as the first voucher pays for them: a guess that is corrected when the provider has counted.
pub(crate) fn estimate_input(job: &Job, most: u64) -> u64 {
    match job {
        Job::Predict { .. } => most,
        Job::Chat { .. } | Job::Completion { .. } | Job::Embedding { .. } => {
            (job.max_input() / 3).saturating_add(64).min(most)
        }
    }
}
