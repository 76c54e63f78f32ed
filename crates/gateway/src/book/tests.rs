//! What the book takes in, keeps, and finds.

use rialto_protocol::{
    Digest, Price, Region, SigningKey,
    job::Datatype,
    manifest::{Artifact, Format, TaskKind, TensorSpec},
    offer::Offer,
};

use super::*;

pub(crate) fn manifest(tag: &str, weights: u8) -> Manifest {
    Manifest {
        schema: 1,
        publisher_name: "rialto".into(),
        name: "example".into(),
        tag: tag.into(),
        task: TaskKind::Chat,
        description: "an example".into(),
        quantisation: "Q8_0".into(),
        licence: "MIT".into(),
        royalty_bps: 100,
        context_length: 512,
        format: Format::Gguf,
        chat_template_hash: String::new(),
        tokenizer_hash: String::new(),
        artifacts: vec![Artifact {
            path: "model.gguf".into(),
            blake3: Digest([weights; 32]),
            size: 9,
        }],
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

/// An offer by the provider with this number.
pub(crate) fn offer(provider: u8, publisher: u8, manifest: &Manifest, sequence: u64) -> Announcement {
    let key = SigningKey::from_bytes(&[provider; 32]).unwrap();
    let publisher = Address([publisher; 20]);
    let offer = Offer {
        provider: key.address(),
        node: NodeKey([provider; 32]),
        addresses: Vec::new(),
        relay: None,
        model: manifest.model_id(publisher),
        publisher,
        price: Price {
            input: 100,
            output: 1_000,
            request: 0,
        },
        chunk: 16,
        capacity: 2,
        load: 0,
        speed: 0,
        region: Region::default(),
        energy_millijoules: 0,
        energy_source: rialto_protocol::EnergySource::Unknown,
        engine: "simulated".into(),
        retains_data: false,
        sequence,
        expires_at: 1_060,
    };
    offer.announce(&key, manifest.clone())
}

const PEER: NodeKey = NodeKey([9; 32]);

#[test]
fn the_newest_offer_wins_and_expires() {
    let (book, model) = (Book::default(), manifest("v1", 1));
    book.note(offer(1, 5, &model, 2), PEER, 1_000).unwrap();
    assert_eq!(book.note(offer(1, 5, &model, 1), PEER, 1_000), Err(NoteError::Older));
    book.note(offer(1, 5, &model, 2), PEER, 1_000).unwrap();
    book.note(offer(1, 5, &model, 3), PEER, 1_000).unwrap();
    let resolved = book.resolve("rialto/example:v1").unwrap();
    assert_eq!(book.offers(&resolved.models, 1_000)[0].offer.sequence, 3);
    assert!(book.offers(&resolved.models, 1_060).is_empty());
    book.expire(1_060);
    assert!(book.is_empty());
    assert!(
        book.resolve("rialto/example:v1").is_some(),
        "a model that nobody sells now is still known"
    );
}

#[test]
fn a_seller_that_is_new_or_elsewhere_is_news_and_one_that_says_the_same_again_is_not() {
    let (book, model) = (Book::default(), manifest("v1", 1));
    let note = |announcement| book.note(announcement, PEER, 1_000).unwrap();
    assert!(note(offer(1, 5, &model, 2)));
    assert!(!note(offer(1, 5, &model, 2)));
    assert!(!note(offer(1, 5, &model, 3)));
    let mut moved = offer(1, 5, &model, 4).offer;
    moved.addresses = vec!["127.0.0.1:1".into()];
    let key = SigningKey::from_bytes(&[1; 32]).unwrap();
    assert!(note(moved.announce(&key, model.clone())));
    assert!(note(offer(2, 5, &model, 1)));
}

#[test]
fn a_forged_or_stale_offer_is_refused() {
    let (book, model) = (Book::default(), manifest("v1", 1));
    let mut forged = offer(1, 5, &model, 1);
    forged.offer.price.output = 1;
    assert!(matches!(book.note(forged, PEER, 1_000), Err(NoteError::Offer(_))));
    assert!(matches!(
        book.note(offer(1, 5, &model, 1), PEER, 1_060),
        Err(NoteError::Offer(OfferError::Expired))
    ));
    let mut swapped = offer(1, 5, &model, 1);
    Arc::make_mut(&mut swapped.manifest).quantisation = "Q4_0".into();
    assert!(matches!(book.note(swapped, PEER, 1_000), Err(NoteError::Offer(_))));
    assert!(book.is_empty());
}

#[test]
fn what_an_offer_says_of_its_engine_is_short_and_can_be_seen() {
    let (book, model) = (Book::default(), manifest("v1", 1));
    for engine in ["x".repeat(65), "fast\n".into(), "é".into()] {
        let mut odd = offer(1, 5, &model, 1);
        odd.offer.engine = engine;
        let refused = book.note(odd, PEER, 1_000);
        assert_eq!(refused, Err(NoteError::Offer(OfferError::Field("engine"))));
    }
}

#[test]
fn a_name_is_found_as_listing_id_and_alias() {
    let model = manifest("v1", 1);
    let book = Book::new(BTreeMap::from([("small".to_owned(), "rialto/example:v1".to_owned())]));
    let announcement = offer(1, 5, &model, 1);
    let id = announcement.offer.model;
    book.note(announcement, PEER, 1_000).unwrap();
    for name in ["rialto/example:v1", "small", &id.to_string()] {
        assert_eq!(book.resolve(name).unwrap().models, [id], "{name}");
    }
    assert!(book.resolve("rialto/example").is_none());
    assert!(book.resolve("").is_none());
}

#[test]
fn the_same_weights_of_two_publishers_are_one_model_and_other_weights_cannot_take_the_name() {
    let book = Book::default();
    book.note(offer(1, 5, &manifest("v1", 1), 1), PEER, 1_000).unwrap();
    book.note(offer(2, 6, &manifest("v1", 1), 1), PEER, 1_001).unwrap();
    book.note(offer(3, 7, &manifest("v1", 2), 1), PEER, 1_002).unwrap();
    let resolved = book.resolve("rialto/example:v1").unwrap();
    assert_eq!(resolved.models.len(), 2);
    assert_eq!(book.offers(&resolved.models, 1_002).len(), 2);
    assert_eq!(book.on_sale(1_002).len(), 3);
}

#[test]
fn one_provider_cannot_fill_the_book() {
    let book = Book::default();
    for number in 0..MAX_OF_PROVIDER {
        book.note(offer(1, 5, &manifest(&format!("v{number}"), 1), 1), PEER, 1_000)
            .unwrap();
    }
    assert_eq!(
        book.note(offer(1, 5, &manifest("more", 1), 1), PEER, 1_000),
        Err(NoteError::Full)
    );
    book.note(offer(2, 5, &manifest("more", 1), 1), PEER, 1_000).unwrap();
}

#[test]
fn a_void_offer_is_forgotten_and_the_one_that_took_its_place_is_not() {
    let (book, model) = (Book::default(), manifest("v1", 1));
    let (old, new) = (offer(1, 5, &model, 1), offer(1, 5, &model, 2));
    book.note(old.clone(), PEER, 1_000).unwrap();
    book.note(new.clone(), PEER, 1_000).unwrap();
    assert!(!book.forget(&old.offer));
    assert_eq!(book.len(), 1);
    assert!(book.forget(&new.offer));
    assert!(book.is_empty());
}

/// A manifest of about so many bytes.
fn large(tag: &str, bytes: usize) -> Manifest {
    let tensor = TensorSpec {
        name: "n".repeat(256),
        datatype: Datatype::Fp32,
        shape: Vec::new(),
    };
    let tensors = vec![tensor; bytes / 256];
    let (inputs, outputs) = tensors.split_at(tensors.len().min(64));
    Manifest {
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        ..manifest(tag, 1)
    }
}

#[test]
fn finding_h4_a_provider_has_a_budget_of_bytes() {
    let book = Book::default();
    let note = |tag: &str, now| {
        let mut offered = offer(1, 5, &large(tag, 30 << 10), 1).offer;
        offered.expires_at = now + 1;
        let key = SigningKey::from_bytes(&[1; 32]).unwrap();
        book.note(offered.announce(&key, large(tag, 30 << 10)), PEER, now)
    };
    let full = (0..64).find(|number| note(&format!("v{number}"), 1_000) == Err(NoteError::Full));
    assert!(full.is_some_and(|full| full > 16), "{full:?} of 30 KiB each");
    // Others have their own.
    book.note(offer(2, 5, &large("other", 30 << 10), 1), PEER, 1_000)
        .unwrap();
    // As often as it comes with others: what it sold before is forgotten for it.
    for round in 0..20 {
        for number in 0..16 {
            note(&format!("r{round}-{number}"), 1_001 + round).unwrap();
        }
    }
    let (models, total) = {
        let pages = book.read();
        assert_eq!(pages.models.len(), pages.names.len());
        (pages.models.len(), pages.budget.total())
    };
    assert!(models < 40, "{models} models are remembered");
    assert!(total < 2 * budget::MAX_OF_PROVIDER, "{total} bytes");
    assert!(book.resolve("rialto/example:other").is_some());
}

#[test]
fn finding_h4_a_model_of_ours_is_remembered_for_longer_than_others() {
    let book = Book::default();
    let note = |tag: &str, now| {
        let mut offered = offer(1, 5, &manifest(tag, 1), 1).offer;
        offered.expires_at = now + 1;
        let (key, model) = (SigningKey::from_bytes(&[1; 32]).unwrap(), offered.model);
        book.note(offered.announce(&key, manifest(tag, 1)), PEER, now).unwrap();
        book.expire(now);
        model
    };
    let ours = note("ours", 1_000);
    book.set_ours([ours].into());
    for number in 0..200 {
        note(&format!("v{number}"), 1_001 + number);
    }
    assert!(book.resolve("rialto/example:ours").is_some());
    assert!(book.resolve("rialto/example:v0").is_none());
    assert!(book.resolve("rialto/example:v198").is_some());
    assert!(book.read().models.len() <= 66);
}

#[test]
fn finding_h4_what_a_book_counts_is_what_it_has() {
    let book = Book::default();
    for round in 1..4u64 {
        for provider in 1..6 {
            for tag in ["a", "b", "c"] {
                let announcement = offer(provider, 5, &manifest(tag, 1), round);
                book.note(announcement.clone(), PEER, 1_000).unwrap();
                if provider == 3 {
                    book.forget(&announcement.offer);
                }
            }
        }
    }
    let count = || {
        let pages = book.read();
        let sellers = pages.shelves.values().flat_map(|shelf| shelf.live(0));
        let offers: usize = sellers.map(|seller| budget::weight_of(&seller.offer)).sum();
        let models: usize = pages.models.values().map(|listing| listing.weight).sum();
        (pages.budget.total(), offers + models)
    };
    let (counted, there) = count();
    assert_eq!(counted, there);
    book.expire(1_060);
    let (counted, there) = count();
    assert_eq!(counted, there);
    assert_eq!(book.read().models.len(), 3, "known, though nobody sells them");
}

#[test]
fn finding_h4_a_book_is_told_up_to_a_frame_and_nothing_is_copied_for_it() {
    let book = Book::default();
    for provider in 1..200 {
        book.note(offer(provider, 5, &large("v1", 30 << 10), 1), PEER, 1_000)
            .unwrap();
    }
    let told = book.all(1_000, 256, 1 << 20);
    let size: usize = told.iter().map(|one| postcard::to_stdvec(one).unwrap().len()).sum();
    assert!((1 << 19..=1 << 20).contains(&size), "{size} bytes");
    assert!(told.iter().all(|one| Arc::ptr_eq(&one.manifest, &told[0].manifest)));
    assert_eq!(book.all(1_000, 7, 1 << 20).len(), 7);
    let small = Book::default();
    for tag in ["a", "b", "c"] {
        small.note(offer(1, 5, &manifest(tag, 1), 1), PEER, 1_000).unwrap();
    }
    for _ in 0..20 {
        let models: HashSet<ModelId> = small
            .all(1_000, 256, 1 << 20)
            .iter()
            .map(|one| one.offer.model)
            .collect();
        assert_eq!(models.len(), 3, "wherever it begins");
    }
}
