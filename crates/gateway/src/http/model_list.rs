//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use rialto_api::openai::{Model, ModelList, ModelPricing};
use rialto_protocol::{NanoDollars, Price, manifest::TaskKind};

use super::{Shared, auth::authenticate, endpoints, error::Failure};
use crate::{Listing, desk::Desk, routing::Seller, store::now};

pub(crate) async fn list(State(desk): Shared, headers: HeaderMap) -> Result<Json<ModelList>, Failure> {
    authenticate(&desk, &headers).await?;
    Ok(Json(ModelList {
        object: "list".into(),
        data: models(&desk).into_values().collect(),
    }))
}

/// The id may hold slashes and colons, percent-encoded or not. With `/endpoints` after it, its sellers are told.
pub(crate) async fn one(State(desk): Shared, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    authenticate(&desk, &headers).await?;
    if let Some(id) = id.strip_suffix("/endpoints") {
        let resolved = desk.resolve(id)?;
        return Ok(Json(endpoints::describe(&desk, &resolved)).into_response());
    }
    if let Some((name, servers)) = desk.own.names().into_iter().find(|(name, _)| *name == id) {
        return Ok(Json(own_model(name, servers)).into_response());
    }
    let resolved = desk.resolve(&id)?;
    let offers = desk.book.offers(&resolved.models, now());
    Ok(Json(describe(&resolved.asked, &resolved.listing, &offers)).into_response())
}

/// Models of the owner's own servers, models on sale by the name that buys them, and the aliases that stand for one of them.
fn models(desk: &Desk) -> BTreeMap<String, Model> {
    let own = desk.own.names().into_iter();
    let mut models: BTreeMap<String, Model> = own
        .map(|(name, servers)| (name.clone(), own_model(name, servers)))
        .collect();
    let names = desk.book.on_sale(now()).into_iter().map(|(listing, _)| listing.name);
    for name in names.chain(desk.book.aliases().keys().cloned()) {
        if models.contains_key(&name) {
            continue;
        }
        if let Some(resolved) = desk.book.resolve(&name) {
            let offers = desk.book.offers(&resolved.models, now());
            if !offers.is_empty() {
                models.insert(name.clone(), describe(&name, &resolved.listing, &offers));
            }
        }
    }
    models
}

fn describe(name: &str, listing: &Listing, offers: &[Arc<Seller>]) -> Model {
    let manifest = &listing.manifest;
    let lowest = offers
        .iter()
        .map(|one| one.offer.price)
        .min_by_key(|price| (price.output, price.input, price.request));
    let engines: BTreeSet<&String> = offers.iter().map(|one| &one.offer.engine).collect();
    Model {
        id: name.to_owned(),
        object: "model".into(),
        created: listing.first_seen,
        owned_by: manifest.publisher_name.clone(),
        model_id: listing.model.to_string(),
        task: task_name(manifest.task).into(),
        description: manifest.description.clone(),
        context_length: manifest.context_length,
        quantization: manifest.quantisation.clone(),
        providers: u32::try_from(offers.len()).unwrap_or(u32::MAX),
        engines: engines.into_iter().cloned().collect(),
        pricing: pricing(lowest.unwrap_or_default()),
    }
}

/// A model of the owner's own servers: what it is, they know.
fn own_model(name: String, servers: usize) -> Model {
    Model {
        id: name,
        object: "model".into(),
        created: 0,
        owned_by: "own".into(),
        model_id: String::new(),
        task: task_name(TaskKind::Chat).into(),
        description: "On a server of the owner's".into(),
        context_length: 0,
        quantization: String::new(),
        providers: u32::try_from(servers).unwrap_or(u32::MAX),
        engines: Vec::new(),
        pricing: pricing(Price::default()),
    }
}

/// Dollars a unit.
pub(super) fn pricing(price: Price) -> ModelPricing {
    ModelPricing {
        prompt: dollars(NanoDollars(price.input.into())),
        completion: dollars(NanoDollars(price.output.into())),
        request: dollars(NanoDollars(price.request.into())),
    }
}

/// Dollars as decimal text without a sign.
pub(crate) fn dollars(amount: NanoDollars) -> String {
    amount.to_string().trim_start_matches('$').to_owned()
}

pub(crate) fn task_name(task: TaskKind) -> &'static str {
    match task {
        TaskKind::Chat => "chat",
        TaskKind::Completion => "completion",
        TaskKind::Embedding => "embedding",
        TaskKind::Predict => "predict",
    }
}
