//! What travels between the nodes of a market, and between a provider and its worker or another's server.

use rialto_engine::border::{FrameReader, FromWorker};
use rialto_protocol::{
    Address, Domain, SignedReceipt,
    job::{Job, MAX_PARTS},
    manifest::Manifest,
    offer::Announcement,
    ticket::{MAX_ADDRESSES, Peer, Ticket},
    wire::{
        BuyerFrame, MAX_ANNOUNCEMENTS, MAX_CONTACTS, MAX_MESSAGE, OffersRequest, OffersResponse, Refusal, SellerFrame,
        TradeRequest,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::seeds;

const DOMAIN: Domain = Domain {
    chain_id: 31_337,
    escrow: Address([1; 20]),
};

/// Reads a value as the network room does. What was read must be written and read again to the same bytes: both sides
/// sign and hash what they encode.
fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let written = postcard::to_stdvec(&value).unwrap_or_default();
    let again = postcard::from_bytes::<T>(&written).ok();
    let again = again.and_then(|again| postcard::to_stdvec(&again).ok());
    assert_eq!(
        again.as_ref(),
        Some(&written),
        "a value that changes when it is passed on"
    );
    Some(value)
}

/// A model's manifest, in TOML.
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    match Manifest::from_toml(text) {
        Ok(manifest) => {
            assert_eq!(manifest.check(), Ok(()), "read and not checked");
            check_manifest(&manifest);
            true
        }
        Err(error) => {
            drop(error.to_string());
            false
        }
    }
}

fn check_manifest(manifest: &Manifest) {
    let canonical = manifest.canonical();
    let again: Option<Manifest> = decode(&canonical);
    assert_eq!(
        again.as_ref().map(Manifest::hash),
        Some(manifest.hash()),
        "a hash that changes"
    );
    drop(manifest.listing());
}

/// The first byte chooses nothing: frames of buyers are told apart by their own first byte.
pub fn buyer_frame(bytes: &[u8]) -> bool {
    let Some(frame) = decode::<BuyerFrame>(bytes) else {
        return false;
    };
    if let BuyerFrame::Request(request) = &frame {
        check_request(request);
    }
    true
}

fn check_request(request: &TradeRequest) {
    let parts = match &request.job {
        Job::Chat { messages, .. } => messages.len(),
        Job::Embedding { inputs } => inputs.len(),
        Job::Predict { inputs, .. } => inputs.len(),
        Job::Completion { .. } => 0,
    };
    assert!(parts <= MAX_PARTS, "a job of {parts} parts");
    if request.job.check().is_ok() {
        let _ = request.job.hash(request.id);
    }
    let digest = request.voucher.voucher.digest(&DOMAIN);
    // Any bytes may be a signature; recovering a key from them must not fail otherwise than with an error.
    let _ = request.voucher.signature.recover(&digest);
    let _ = request.channel.id();
}

/// A frame of a seller.
pub fn seller_frame(bytes: &[u8]) -> bool {
    let Some(frame) = decode::<SellerFrame>(bytes) else {
        return false;
    };
    match &frame {
        SellerFrame::Accepted { catch_up, .. } => catch_up.iter().for_each(check_receipt),
        SellerFrame::Finished { receipt, .. } => check_receipt(receipt),
        SellerFrame::Output(output) => drop(output.units()),
        SellerFrame::Refused(refusal) => check_refusal(refusal),
        SellerFrame::VoucherWanted { .. } => {}
    }
    true
}

fn check_refusal(refusal: &Refusal) {
    let length = refusal.message.len();
    assert!(length <= MAX_MESSAGE, "a refusal of {length} bytes");
}

fn check_announcements(announcements: &[Announcement]) {
    assert!(announcements.len() <= MAX_ANNOUNCEMENTS, "too many offers");
    announcements.iter().for_each(check_announcement);
}

fn check_peer(peer: &Peer) {
    assert!(peer.addresses.len() <= MAX_ADDRESSES, "a node with too many addresses");
}

fn check_receipt(receipt: &SignedReceipt) {
    let verified = receipt.verify(&DOMAIN, Address([2; 20]));
    assert!(verified.is_err(), "a receipt of nobody's key");
}

fn check_announcement(announcement: &Announcement) {
    for now in [0, announcement.offer.expires_at.saturating_sub(1), u64::MAX] {
        drop(announcement.check(now));
    }
}

/// A request of the offers protocol.
pub fn offers_request(bytes: &[u8]) -> bool {
    let Some(request) = decode::<OffersRequest>(bytes) else {
        return false;
    };
    if let OffersRequest::Announce(announcements) = &request {
        check_announcements(announcements);
    }
    if let OffersRequest::Greet(greeting) = &request {
        check_peer(&greeting.own);
    }
    if let OffersRequest::Tender(tender) = &request {
        for now in [0, tender.tender.expires_at.saturating_sub(1), u64::MAX] {
            drop(tender.check(now));
        }
    }
    true
}

/// An answer of the offers protocol.
pub fn offers_response(bytes: &[u8]) -> bool {
    let Some(response) = decode::<OffersResponse>(bytes) else {
        return false;
    };
    if let OffersResponse::Book(announcements) = &response {
        check_announcements(announcements);
    }
    if let OffersResponse::Greeted { contacts, .. } = &response {
        assert!(contacts.len() <= MAX_CONTACTS, "too many contacts");
        contacts.iter().for_each(check_peer);
    }
    if let OffersResponse::NoBid(refusal) | OffersResponse::NotRelayed(refusal) = &response {
        check_refusal(refusal);
    }
    if let OffersResponse::Bid(signed) = &response {
        let tender = seeds::market::tender();
        for now in [0, signed.bid.expires_at.saturating_sub(1), u64::MAX] {
            drop(signed.check(&tender, signed.bid.provider, now));
        }
    }
    true
}

/// The text by which another machine joins a market.
pub fn ticket(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(ticket) = text.parse::<Ticket>() else {
        return false;
    };
    // The text of a ticket is at most as long as the one it was read from, so it can be read again.
    assert_eq!(
        ticket.to_string().parse::<Ticket>().as_ref(),
        Ok(&ticket),
        "a ticket that changes"
    );
    true
}

/// A stream of frames of a worker, which a hostile model may have taken over. Arrives in pieces of odd lengths.
pub fn worker_frames(bytes: &[u8]) -> bool {
    let mut reader = FrameReader::default();
    let mut accepted = false;
    for piece in bytes.chunks(7) {
        reader.extend(piece);
        loop {
            match reader.take::<FromWorker>() {
                Ok(Some(_)) => accepted = true,
                Ok(None) => break,
                Err(_) => return accepted,
            }
        }
    }
    accepted
}

/// The stream of a server that speaks OpenAI's protocol.
pub fn upstream_stream(bytes: &[u8]) -> bool {
    rialto_engine::read_upstream_stream(bytes).is_some_and(|events| events > 0)
}
