//! `/v1/batches`, and how a request of a batch is answered.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, Uri},
};
use bytes::Bytes;
use rialto_api::{
    BadRequest,
    openai::{Batch, BatchEndpoint, BatchErrors, BatchRequest, BatchStatus, BatchTimes, BatchTrade, BatchUsage, Page},
};

use super::{
    Shared,
    auth::authenticate,
    body, chat, completions, embeddings,
    error::Failure,
    own::{self, ForOwn, Served},
    query::Query,
    serving::{Caller, Presence, Reply},
};
use crate::{
    Error,
    batch::Terms,
    desk::Desk,
    store::{BatchRow, KeyRow, now},
};

/// Batches on a page when nobody says, and at most.
const USUAL_PAGE: u32 = 20;
const LONGEST_PAGE: u32 = 100;
/// The pause after which the owner's own servers are asked again for room, in milliseconds.
const HOME_MS: u64 = 1_000;
/// The pause after which a key with too many batches may try again, in milliseconds.
const CROWDED_MS: u64 = 60_000;

/// A request of a batch.
pub(crate) struct Errand {
    pub(crate) endpoint: BatchEndpoint,
    /// Who pays.
    pub(crate) key: KeyRow,
    /// By which its receipts are known.
    pub(crate) idempotency: [u8; 32],
    /// What was bid for it.
    pub(crate) terms: Option<Arc<Terms>>,
    /// What the owner's own servers should know of it, if it is for them.
    pub(crate) home: Option<ForOwn>,
}

/// What the owner's own servers should know of a request of a batch; `None` if it is not for them.
pub(crate) fn for_home(
    desk: &Desk,
    key: &KeyRow,
    endpoint: BatchEndpoint,
    body: &Bytes,
) -> Result<Option<ForOwn>, Error> {
    own::for_own(desk, key, operation(endpoint), body)
}

fn operation(endpoint: BatchEndpoint) -> &'static str {
    match endpoint {
        BatchEndpoint::Chat => "chat",
        BatchEndpoint::Completion => "completion",
        BatchEndpoint::Embedding => "embedding",
    }
}

/// Answers a request of a batch as it would be answered alone, at the terms of its batch.
pub(crate) async fn perform(desk: &Arc<Desk>, errand: Errand, body: Bytes) -> Result<Reply, Error> {
    let mut caller = Caller {
        presence: Presence::new(desk, operation(errand.endpoint))?,
        key: errand.key,
        idempotency: Some(errand.idempotency),
        explain: false,
        terms: errand.terms,
    };
    // What can wait leaves half of the servers' slots to what cannot.
    match errand.home {
        Some(asked) if desk.own.is_at_ease(asked.model()) => {
            match own::serve(desk, caller, &body, errand.endpoint.path(), asked).await? {
                Served::Here(reply) => return Ok(reply),
                Served::Elsewhere(back) => caller = *back,
            }
        }
        Some(asked) if !asked.overflows => return Err(Error::OwnServersBusy { retry_ms: HOME_MS }),
        _ => {}
    }
    let desk = Arc::clone(desk);
    match errand.endpoint {
        BatchEndpoint::Chat => chat::answer(desk, caller, body).await,
        BatchEndpoint::Completion => completions::answer(desk, caller, body).await,
        BatchEndpoint::Embedding => embeddings::answer(desk, caller, body).await,
    }
}

/// `POST /v1/batches`.
pub(crate) async fn create(State(desk): Shared, request: Request) -> Result<Json<Batch>, Failure> {
    let (parts, body) = request.into_parts();
    let key = authenticate(&desk, &parts.headers).await?;
    let bytes = body::read(&desk.config, &parts.headers, body).await?;
    let asked = BatchRequest::parse(&bytes).map_err(Error::from)?;
    let file = desk.store.file(&key.id, &asked.input_file_id, now()).await?;
    let file = file.ok_or_else(|| super::files::missing(&asked.input_file_id))?;
    if file.purpose != "batch" {
        let bad = BadRequest::value("input_file_id", "the file was not uploaded with the purpose 'batch'");
        return Err(Error::from(bad).into());
    }
    let policy = &desk.config.batches;
    let created_at = now();
    let metadata = asked
        .metadata
        .as_ref()
        .and_then(|pairs| serde_json::to_string(pairs).ok());
    let batch = BatchRow {
        id: format!("batch_{}", hex::encode(rand::random::<[u8; 16]>())),
        key: key.id,
        endpoint: asked.endpoint,
        input_file: file.id,
        metadata,
        status: BatchStatus::Validating,
        times: BatchTimes {
            created_at,
            expires_at: Some(created_at.saturating_add(policy.window_seconds)),
            ..BatchTimes::default()
        },
        output_file: None,
        error_file: None,
        errors: Vec::new(),
        model: None,
        counts: rialto_api::openai::BatchCounts::default(),
        output_seconds: asked.output_seconds,
        written: crate::store::Written::default(),
    };
    if !desk
        .store
        .add_batch(&batch, policy.max_of_key, policy.max_in_all)
        .await?
    {
        return Err(Error::TooManyBatches { retry_ms: CROWDED_MS }.into());
    }
    desk.batches.wake();
    Ok(Json(show(&desk, batch).await?))
}

/// `GET /v1/batches/{id}`.
pub(crate) async fn one(
    State(desk): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Batch>, Failure> {
    let key = authenticate(&desk, &headers).await?;
    let batch = find(&desk, &key, &id).await?;
    Ok(Json(show(&desk, batch).await?))
}

/// `GET /v1/batches`.
pub(crate) async fn list(State(desk): Shared, uri: Uri, headers: HeaderMap) -> Result<Json<Page<Batch>>, Failure> {
    let key = authenticate(&desk, &headers).await?;
    let wanted = Query::of(&uri).page(USUAL_PAGE, LONGEST_PAGE)?;
    let (rows, more) = desk.store.batches(&key.id, &wanted).await?;
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(show(&desk, row).await?);
    }
    Ok(Json(Page::new(list, more, |batch| &batch.id)))
}

/// `POST /v1/batches/{id}/cancel`. Requests under way are still answered.
pub(crate) async fn cancel(
    State(desk): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Batch>, Failure> {
    let key = authenticate(&desk, &headers).await?;
    let batch = find(&desk, &key, &id).await?;
    for from in [BatchStatus::Validating, BatchStatus::InProgress] {
        desk.store
            .move_batch(&batch.id, from, BatchStatus::Cancelling, now())
            .await?;
    }
    let batch = find(&desk, &key, &id).await?;
    if !matches!(batch.status, BatchStatus::Cancelling | BatchStatus::Cancelled) {
        let reason = format!("a batch that is {} cannot be cancelled", batch.status.name());
        return Err(Error::from(BadRequest::value("batch_id", reason)).into());
    }
    desk.batches.wake();
    Ok(Json(show(&desk, batch).await?))
}

async fn find(desk: &Desk, key: &KeyRow, id: &str) -> Result<BatchRow, Error> {
    let found = desk.store.batch(&key.id, id).await?;
    found.ok_or_else(|| Error::NoSuchObject {
        kind: "batch",
        id: id.chars().take(64).collect(),
    })
}

/// A batch as its owner sees it. What it cost is read from its receipts each time: one that comes late counts too.
async fn show(desk: &Desk, row: BatchRow) -> Result<Batch, Error> {
    let spent = desk.store.batch_spent(&row.id).await?;
    let saved = i128::try_from(spent.posted.0).unwrap_or(i128::MAX) - i128::try_from(spent.cost.0).unwrap_or(i128::MAX);
    let errors = (!row.errors.is_empty()).then(|| BatchErrors {
        object: "list".into(),
        data: row.errors,
    });
    Ok(Batch {
        id: row.id,
        object: "batch".into(),
        endpoint: row.endpoint,
        model: row.model.filter(|model| !model.is_empty()),
        errors,
        input_file_id: row.input_file,
        completion_window: "24h".into(),
        status: row.status,
        output_file_id: row.output_file,
        error_file_id: row.error_file,
        times: row.times,
        request_counts: row.counts,
        usage: BatchUsage {
            input_tokens: spent.usage.input,
            output_tokens: spent.usage.output,
            total_tokens: spent.usage.input.saturating_add(spent.usage.output),
            ..BatchUsage::default()
        },
        metadata: row.metadata.and_then(|text| serde_json::from_str(&text).ok()),
        trade: BatchTrade {
            cost_nanodollars: spent.cost.0.to_string(),
            posted_nanodollars: spent.posted.0.to_string(),
            savings_nanodollars: saved.to_string(),
        },
    })
}
