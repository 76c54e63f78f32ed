//! A seller is dialled where its newest offer says that it is.

use std::time::Duration;

use rialto_network::Trade;
use rialto_protocol::{
    offer::Offer,
    wire::{BuyerFrame, SellerFrame},
};
use tokio::time::{sleep, timeout};

use crate::{config::ms, desk::Desk};

/// How often the book is asked, while nobody answers, whether the seller has moved.
const LOOK: Duration = Duration::from_millis(100);

/// Opens a trade. A seller that starts again has other addresses, and an offer that is older than that start may be in
/// the book until the seller has announced itself: then the dial goes on at the new addresses.
pub(super) async fn dial(desk: &Desk, offer: &Offer) -> Result<Trade<BuyerFrame, SellerFrame>, String> {
    let dialled = timeout(ms(desk.config.timeouts.dial_ms), follow(desk, offer)).await;
    dialled.map_err(|_| "no answer in time".to_owned())?
}

async fn follow(desk: &Desk, offer: &Offer) -> Result<Trade<BuyerFrame, SellerFrame>, String> {
    let mut peer = offer.peer();
    loop {
        let moved = async {
            loop {
                sleep(LOOK).await;
                let newest = desk.book.peer_of(offer.provider);
                if let Some(newest) = newest.filter(|newest| *newest != peer) {
                    return newest;
                }
            }
        };
        tokio::select! {
            trade = desk.node.trade(&peer) => return trade.map_err(|error| error.to_string()),
            newest = moved => peer = newest,
        }
    }
}
