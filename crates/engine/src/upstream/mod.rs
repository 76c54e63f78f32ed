//! Any server that speaks OpenAI's protocol as an engine: vLLM, llama.cpp's server, Ollama, and others.
//!
//! **What a buyer can rely on is less than with an engine of ours.** Files are verified before our own engines run them;
//! which weights a server runs, only its operator knows. A model that is served upstream is listed by its own manifest, and
//! that it is this model rests on the seller. Where the server tells the likeliest tokens, an answer carries a fingerprint
//! that an audit compares with the true model's; elsewhere it does not even have that. So its class is `upstream`, and who
//! routes by class gives it less trust.
//!
//! **Counts are checked, not believed.** Units of input are counted by the server's own tokenizer before the work, or from
//! the bytes, low, where it has none. Units of output are tokens that the client can see: each that the server tells with
//! its log-probability, or one for each piece of text; never more than visible bytes, than the server's own running count,
//! or than asked for. A server that was caught counting less than it sent gives out nothing more before its count came.
//! [`UpstreamEngine::suspicions`] tells what was noticed.
//!
//! **Ids.** `Output::Tokens` has an id for each unit. Where the server tells none, it is a pseudo id: the hash of the token's
//! bytes, or of the text that came at once, with the highest bit set.
//!
//! **Answers that another seller began.** A server takes no part of an answer, so they go on after their text, as a longer
//! prompt; what a seed would have chosen is not kept. See [`continuation`].
//!
//! **Grants.** While nothing more is paid for, nothing is read from the server, whose own buffers end its work sooner or
//! later; dropping the answer drops the connection, which cancels the work. A seller that pays for its server by the token
//! risks at most what one request asks for.

mod body;
mod call;
mod config;
mod continuation;
mod count;
mod delta;
mod events;
mod health;
mod key;
mod probe;
mod reply;
mod tokens;
mod vectors;
mod writer;

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{FutureExt as _, future::BoxFuture};
use rialto_protocol::{
    hash::keccak256,
    job::{AnswerFormat, Job},
    manifest::TaskKind,
};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    body::Manner,
    call::{Server, Trouble},
    count::{Ledger, Suspicion},
    events::Events,
    health::Health,
    reply::Reply,
    tokens::Input,
};
pub use self::{
    config::{Kind, UpstreamConfig, server_root},
    count::Suspicions,
    key::ApiKey,
};
use crate::{Answer, Engine, EngineInfo, Error, Prepared, Scope, places::Places};

/// Reads a stream as an answer's is read, and says how many events were understood; `None` where it is refused. For fuzzing.
#[doc(hidden)]
pub fn read_stream(bytes: &[u8]) -> Option<usize> {
    let (mut events, mut count) = (Events::default(), 0);
    events.push(bytes).ok()?;
    while let Some(data) = events.next().filter(|data| data.trim() != "[DONE]") {
        delta::read(&data).ok()?;
        count += 1;
    }
    Some(count)
}

/// Requests at the same time where nobody says how many.
const SLOTS: u32 = 4;

/// A model on a server. Must be used inside a tokio runtime.
#[derive(Debug)]
pub struct UpstreamEngine {
    info: EngineInfo,
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

/// What every request shares.
#[derive(Debug)]
struct Shared {
    config: UpstreamConfig,
    server: Server,
    kind: Kind,
    /// Most tokens of prompt and answer; zero when not known.
    limit: u64,
    logprobs: bool,
    health: Health,
    ledger: Ledger,
    distrusted: AtomicBool,
    places: Arc<Places>,
    salt: RandomState,
    salted: AtomicU64,
}

impl UpstreamEngine {
    /// Finds the server, checks that it serves the model, and has it answer a few tokens, to see what it can and how it
    /// counts.
    ///
    /// Fails with [`Error::Model`] for a configuration that cannot be, and with what [`Error::retryable`] calls so while
    /// the server is not there.
    pub fn connect(config: UpstreamConfig) -> BoxFuture<'static, Result<Self, Error>> {
        Self::find(config).boxed()
    }

    async fn find(config: UpstreamConfig) -> Result<Self, Error> {
        if config.task == TaskKind::Predict {
            let reason = "a predictive model cannot be served upstream: no protocol of such servers has tensors";
            return Err(Error::Model(reason.into()));
        }
        let server = Server::new(&config)?;
        health::served(&server, &config).await?;
        let facts = probe::learn(&server, &config).await?;
        let told = facts.slots.and_then(|slots| u32::try_from(slots).ok());
        let slots = config.slots.or(told).unwrap_or(SLOTS).clamp(1, 1_024);
        let info = EngineInfo {
            name: config.name.clone(),
            class: "upstream".to_owned(),
            slots,
        };
        let limits = [Some(config.context).filter(|context| *context > 0), facts.context];
        let shared = Arc::new(Shared {
            server,
            kind: facts.kind,
            limit: limits.into_iter().flatten().min().unwrap_or(0),
            logprobs: facts.logprobs,
            health: Health::default(),
            ledger: Ledger::default(),
            distrusted: AtomicBool::new(false),
            places: Places::new(slots, config.queue),
            salt: RandomState::new(),
            salted: AtomicU64::new(0),
            config,
        });
        if facts.distrusted {
            shared.distrust("its usage tells fewer tokens than it sends");
        }
        let (kind, logprobs) = (shared.kind, shared.logprobs);
        tracing::info!(model = info.name, ?kind, logprobs, slots, "a server upstream is ready");
        let watcher = tokio::spawn(health::watch(Arc::downgrade(&shared)));
        Ok(Self { info, shared, watcher })
    }

    /// Which program the server is.
    pub fn kind(&self) -> Kind {
        self.shared.kind
    }

    /// What was noticed of its counts so far.
    pub fn suspicions(&self) -> Suspicions {
        self.shared.ledger.read()
    }
}

impl Drop for UpstreamEngine {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Shared {
    /// Notes what a request met.
    fn met(&self, trouble: &Trouble) {
        self.health.met(trouble);
        if let Trouble::Odd(what) = trouble {
            self.suspect(Suspicion::Odd, what);
        }
    }

    fn noted<T>(&self, result: Result<T, Trouble>) -> Result<T, Error> {
        result.map_err(|trouble| {
            self.met(&trouble);
            trouble.into()
        })
    }

    fn suspect(&self, suspicion: Suspicion, what: &str) {
        self.ledger.add(suspicion);
        tracing::warn!(
            model = self.config.name,
            what,
            "the model's server is not what it should be"
        );
    }

    /// Gives out nothing more before the server's own count came.
    fn distrust(&self, what: &str) {
        self.suspect(Suspicion::Output, what);
        self.distrusted.store(true, Ordering::Relaxed);
    }

    fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }

    /// What keeps the memory of one scope's prompts apart from others', and cannot be guessed.
    fn salt(&self, scope: Scope) -> String {
        let scope = match scope {
            Scope::Of(scope) => scope,
            Scope::Alone => {
                let count = self.salted.fetch_add(1, Ordering::Relaxed);
                keccak256(&[b"alone", &count.to_le_bytes()])
            }
        };
        let secret = [0u8, 1].map(|part| self.salt.hash_one((part, scope)).to_le_bytes());
        secret.concat().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checks that a job is of the sort that is sold.
    fn check(&self, job: &Job) -> Result<(), Error> {
        job.check()?;
        let sold = matches!(
            (self.config.task, job),
            (TaskKind::Chat, Job::Chat { .. } | Job::Completion { .. })
                | (TaskKind::Completion, Job::Completion { .. })
                | (TaskKind::Embedding, Job::Embedding { .. })
        );
        if !sold {
            return Err(Error::bad("model", "this model is for another sort of request"));
        }
        if let Job::Chat { tools, generation, .. } = job
            && !tools.offered.is_empty()
            && generation.format != AnswerFormat::Text
        {
            return Err(Error::bad("response_format", "not together with tools"));
        }
        Ok(())
    }
}

#[async_trait]
impl Engine for UpstreamEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn prepare(&self, job: Job, scope: Scope) -> Result<Box<dyn Prepared>, Error> {
        let shared = self.shared.clone();
        shared.check(&job)?;
        shared.health.ready()?;
        let most_input = job.max_input();
        let job = continuation::go_on(&shared, job).await?;
        let input = tokens::count(&shared, &job, most_input).await;
        let input = input.map_err(|error| continuation::refusal(&job, error))?;
        let (prompt, limit) = (input.units, shared.limit);
        let mut most = job.max_output();
        if most > 0 && limit > 0 {
            if prompt >= limit {
                return Err(Error::ContextExceeded { prompt, limit });
            }
            most = most.min(limit.saturating_sub(prompt));
        }
        let manner = Manner {
            kind: shared.kind,
            model: &shared.config.model,
            logprobs: shared.logprobs,
        };
        let ask = body::ask(manner, &job, most, &shared.salt(scope))?;
        let work = match (ask, job) {
            (Some(ask), job) => Work::Reply(Box::new(Reply {
                shared: shared.clone(),
                job,
                ask,
                input,
                limit: most,
            })),
            (None, Job::Embedding { inputs }) => Work::Vectors(inputs),
            (None, _) => return Err(Error::bad("model", "this model is for another sort of request")),
        };
        Ok(Box::new(UpstreamJob {
            shared,
            input,
            most,
            work,
        }))
    }
}

enum Work {
    Reply(Box<Reply>),
    Vectors(Vec<String>),
}

struct UpstreamJob {
    shared: Arc<Shared>,
    input: Input,
    most: u64,
    work: Work,
}

impl Prepared for UpstreamJob {
    fn input_units(&self) -> u64 {
        self.input.units
    }

    fn max_output(&self) -> u64 {
        self.most
    }

    fn start(self: Box<Self>, grant: watch::Receiver<u64>) -> Answer {
        let places = Arc::clone(&self.shared.places);
        places.answer(|sender| async move {
            match &self.work {
                Work::Reply(reply) => reply.run(grant, &sender).await,
                Work::Vectors(inputs) => vectors::run(&self.shared, inputs, &sender).await,
            }
        })
    }
}
