//! Hedging: a seller of whom nothing has come for a while gets company, and whoever begins first gives the answer (Dean and
//! Barroso, "The Tail at Scale", 2013).
//!
//! The other is told to stop. What it has done by then is paid, and is a part of the answer's bill.

use std::{pin::pin, sync::Arc, time::Instant};

use futures::future::{Either, select};
use rialto_protocol::{Address, NanoDollars};
use tokio::time::timeout;

use super::{Begun, Order, Part, pick::Picked};
use crate::{
    Error,
    desk::Desk,
    routing::Seller,
    trade::{self, Ended, Next},
};

/// A trade that is not listened to any more.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// What it may come to at most.
    most: Part,
    ended: Arc<Ended>,
}

impl Lost {
    fn at(order: &Order, seller: &Seller) -> Self {
        let offer = &seller.offer;
        let mut most = Part::at(offer.provider, offer.model);
        most.cost = offer.price.cost(trade::first_part(offer, &order.job, order.most_input));
        Self {
            most,
            ended: Arc::default(),
        }
    }

    /// What it came to; `None` if nothing is owed. Until that is known it is the most that may be billed.
    pub(super) fn part(&self) -> Option<Part> {
        let outcome = self.ended.so_far(self.most.cost);
        let part = Part {
            channel: outcome.channel,
            sequence: outcome.sequence,
            cost: outcome.cost,
            ..self.most.clone()
        };
        (part.cost > NanoDollars::ZERO).then_some(part)
    }
}

impl Desk {
    /// Begins an answer at the seller that was picked, and after a while at a second one too, if the buyer wants that and
    /// there is one. An error is that of the first, unless the second may be billed for its failure.
    pub(super) async fn attempt_hedged(
        self: &Arc<Self>,
        order: &Order,
        picked: Picked,
        tried: &mut Vec<Address>,
    ) -> Result<Begun, (Error, Next)> {
        // What can wait is not bought twice.
        let Some(after) = order.preferences.hedge_after.filter(|_| order.terms.is_none()) else {
            return self.attempt(order, picked, Arc::default()).await;
        };
        let (began, slow) = (Instant::now(), Arc::clone(&picked.seller.record));
        let first = Lost::at(order, &picked.seller);
        let mut one = pin!(self.attempt(order, picked, Arc::clone(&first.ended)));
        if let Ok(outcome) = timeout(after, &mut one).await {
            return outcome;
        }
        let Ok(company) = self.pick(order, tried) else {
            return one.await;
        };
        tracing::debug!(slow = %first.most.provider, company = %company.seller.offer.provider, "a request is hedged");
        tried.push(company.seller.offer.provider);
        self.metrics.hedges.inc();
        let second = Lost::at(order, &company.seller);
        let two = pin!(self.attempt(order, company, Arc::clone(&second.ended)));
        // Leaving drops the one that is not ready, which stops its trade.
        match select(one, two).await {
            Either::Left((Ok(begun), _)) => Ok(begun.and_lost(second)),
            Either::Right((Ok(begun), _)) => {
                slow.kept_waiting(began.elapsed());
                Ok(begun.and_lost(first))
            }
            Either::Left((Err(failed), two)) => two.await.map_err(|other| graver(failed, other)),
            Either::Right((Err(other), one)) => one.await.map_err(|failed| graver(failed, other)),
        }
    }
}

impl Begun {
    fn and_lost(mut self, lost: Lost) -> Self {
        self.lost = Some(lost);
        self
    }
}

/// Of two failures the first, unless only the other may have cost something.
fn graver(first: (Error, Next), other: (Error, Next)) -> (Error, Next) {
    if other.0.may_be_charged() && !first.0.may_be_charged() {
        other
    } else {
        first
    }
}
