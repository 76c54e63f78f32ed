//! `GET /v1/models/{id}/endpoints`: the book's page of a model, with what was measured.

use rialto_api::openai::{Endpoint, Endpoints, ModelEndpoints, Percentiles};

use super::model_list::pricing;
use crate::{book::Resolved, desk::Desk, routing::Seller, store::now};

/// Figures are of answers that are at most so old.
const LATELY_MS: u64 = 30 * 60 * 1_000;

/// The sellers of a model.
pub(super) fn describe(desk: &Desk, model: &Resolved) -> Endpoints {
    let mut sellers = desk.book.offers(&model.models, now());
    sellers.sort_by_key(|seller| {
        let price = seller.offer.price;
        (price.output, price.input, price.request, seller.offer.provider)
    });
    let listing = &model.listing;
    Endpoints {
        data: ModelEndpoints {
            id: model.asked.clone(),
            name: listing.name.clone(),
            created: listing.first_seen,
            description: listing.manifest.description.clone(),
            endpoints: sellers.iter().map(|seller| endpoint(desk, model, seller)).collect(),
        },
    }
}

fn endpoint(desk: &Desk, model: &Resolved, seller: &Seller) -> Endpoint {
    let (offer, record, manifest) = (&seller.offer, &seller.record, &model.listing.manifest);
    let figures = record.figures(LATELY_MS);
    let in_flight = record.in_flight();
    let state = if record.standing.is_distrusted() {
        "distrusted"
    } else if record.standing.is_avoided(in_flight) {
        "avoided"
    } else {
        "good"
    };
    let milliseconds = |seconds: [f64; 4]| Percentiles::from(seconds.map(|one| one * 1e3));
    Endpoint {
        name: model.listing.name.clone(),
        provider_name: offer.provider.to_string(),
        model_id: offer.model.to_string(),
        context_length: manifest.context_length,
        pricing: pricing(offer.price),
        quantization: manifest.quantisation.clone(),
        state: state.into(),
        uptime_last_30m: figures.uptime.map(|share| share * 100.0),
        latency_last_30m: figures.first_output.map(milliseconds),
        throughput_last_30m: figures.speed.map(Percentiles::from),
        answers: figures.answers,
        region: offer.region.name(),
        engine: offer.engine.clone(),
        energy_millijoules: offer.energy_millijoules,
        retains_data: offer.retains_data,
        capacity: offer.capacity,
        load: offer.load,
        in_flight,
        open_channel: desk.ledger.has_open(offer),
        expires_at: offer.expires_at,
    }
}
