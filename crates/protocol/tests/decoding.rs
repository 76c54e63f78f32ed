//! What frames decode to: lists that are too long are refused before they are decoded, and no frame takes much more memory
//! than its own size.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use proptest::prelude::*;
use rialto_protocol::{
    Address, ChannelParams, Digest, Domain, EnergySource, MicroDollars, ModelId, NodeKey, Price, ReceiptsHead, Region,
    RequestId, Signature, SigningKey, Usage, Voucher,
    account::{Interruption, Statement},
    job::{Datatype, Generation, Job, Message, SoFar, Tensor, Tool, ToolCall, Tools},
    manifest::{Artifact, Format, Manifest, TaskKind, TensorSpec},
    offer::{Announcement, Offer},
    output::{Alternative, Output, TokenLogprob},
    tender::{SignedTender, Tender},
    ticket::Peer,
    voucher::SignedVoucher,
    wire::{BuyerFrame, Greeting, OffersRequest, OffersResponse, Refusal, RefusalCode, SellerFrame, TradeRequest},
};
use serde::{Serialize, de::DeserializeOwned};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that are allocated now, and the most that were since the counting began.
    static COUNT: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Counts what the calling thread has allocated: tests run beside each other.
struct Counting;

fn count(change: isize) {
    let counted = COUNT.try_with(|count| {
        let (now, most) = count.get();
        count.set((now + change, most.max(now + change)));
    });
    // A thread that ends gives memory back when its own variables are gone: nobody measures then.
    counted.unwrap_or_default();
}

fn bytes(layout: Layout) -> isize {
    layout.size().try_into().unwrap_or(isize::MAX)
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe to write; this one calls the system's and counts"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-bytes(layout));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the content is copied.
        count(size.try_into().unwrap_or(isize::MAX));
        let new = unsafe { System.realloc(pointer, layout, size) };
        count(-bytes(layout));
        new
    }
}

/// Decodes as the network room does. Returns whether it was accepted, and the most bytes that were allocated meanwhile.
fn decode<T: DeserializeOwned>(frame: &[u8]) -> (bool, usize) {
    let (before, _) = COUNT.get();
    COUNT.set((before, before));
    let decoded = postcard::from_bytes::<T>(frame);
    let (_, most) = COUNT.get();
    (decoded.is_ok(), usize::try_from(most - before).unwrap_or_default())
}

/// A name, the type's decoder, and a frame of it.
type Case = (&'static str, fn(&[u8]) -> (bool, usize), Vec<u8>);

fn case<T: Serialize + DeserializeOwned>(name: &'static str, value: &T) -> Case {
    (name, decode::<T>, postcard::to_stdvec(value).unwrap())
}

fn signature() -> Signature {
    SigningKey::from_bytes(&[1; 32]).unwrap().sign(&Digest([2; 32]))
}

fn channel() -> ChannelParams {
    ChannelParams {
        payer: Address([1; 20]),
        signer: Address([2; 20]),
        provider: Address([3; 20]),
        model: ModelId([4; 32]),
        token: Address([5; 20]),
        salt: 6,
    }
}

fn request(job: Job, interrupted: usize) -> BuyerFrame {
    let interruption = Interruption {
        request: RequestId([9; 32]),
        usage: Usage::default(),
    };
    BuyerFrame::Request(Box::new(TradeRequest {
        id: RequestId([8; 32]),
        channel: channel(),
        price: Price::default(),
        job,
        statement: Statement {
            sequence: 0,
            head: ReceiptsHead::default(),
            interrupted: vec![interruption; interrupted],
        },
        voucher: SignedVoucher {
            voucher: Voucher {
                channel: channel().id(),
                cumulative: MicroDollars::default(),
                receipts_head: ReceiptsHead::default(),
            },
            signature: signature(),
        },
        delegation: signature(),
        patience_ms: 0,
    }))
}

fn chat(messages: Vec<Message>, tools: usize, generation: Generation) -> Job {
    Job::Chat {
        messages,
        tools: Tools {
            offered: vec![Tool::default(); tools],
            ..Tools::default()
        },
        generation,
    }
}

fn calling(messages: usize, calls: usize) -> Vec<Message> {
    let message = Message {
        tool_calls: vec![ToolCall::default(); calls],
        ..Message::default()
    };
    vec![message; messages]
}

fn stopping(stops: usize, ids: usize) -> Generation {
    Generation {
        stop: vec![String::new(); stops],
        so_far: SoFar {
            ids: vec![0; ids],
            ..SoFar::default()
        },
        ..Generation::default()
    }
}

fn tensor(shape: usize) -> Tensor {
    Tensor {
        name: String::new(),
        datatype: Datatype::Fp32,
        shape: vec![0; shape],
        data: Vec::new(),
    }
}

fn tokens(ids: usize, logprobs: usize, top: usize) -> SellerFrame {
    let alternative = Alternative {
        id: 0,
        bytes: Vec::new(),
        logprob: 0.0,
    };
    let logprob = TokenLogprob {
        bytes: Vec::new(),
        logprob: 0.0,
        top: vec![alternative; top],
    };
    SellerFrame::Output(Output::Tokens {
        text: String::new(),
        ids: vec![0; ids],
        logprobs: vec![logprob; logprobs],
    })
}

fn peer(addresses: usize) -> Peer {
    Peer {
        node: NodeKey([1; 32]),
        addresses: vec![String::new(); addresses],
        relay: None,
    }
}

fn greeting(own: Peer) -> OffersRequest {
    OffersRequest::Greet(Box::new(Greeting {
        market: Domain {
            chain_id: 1,
            escrow: Address([1; 20]),
        },
        own,
    }))
}

fn greeted(contacts: Vec<Peer>) -> OffersResponse {
    OffersResponse::Greeted {
        listens: true,
        contacts,
    }
}

fn announcement(addresses: usize, tensors: usize, shape: usize, artifacts: usize) -> Announcement {
    let spec = TensorSpec {
        name: String::new(),
        datatype: Datatype::Fp32,
        shape: vec![0; shape],
    };
    let artifact = Artifact {
        path: String::new(),
        blake3: Digest([0; 32]),
        size: 0,
    };
    let manifest = Manifest {
        schema: 1,
        publisher_name: String::new(),
        name: String::new(),
        tag: String::new(),
        task: TaskKind::Predict,
        description: String::new(),
        quantisation: String::new(),
        licence: String::new(),
        royalty_bps: 0,
        context_length: 0,
        format: Format::Onnx,
        chat_template_hash: String::new(),
        tokenizer_hash: String::new(),
        artifacts: vec![artifact; artifacts],
        inputs: vec![spec.clone(); tensors],
        outputs: vec![spec; tensors],
    };
    let offer = Offer {
        provider: Address([1; 20]),
        node: NodeKey([1; 32]),
        addresses: vec![String::new(); addresses],
        relay: None,
        model: ModelId([1; 32]),
        publisher: Address([1; 20]),
        price: Price::default(),
        chunk: 1,
        capacity: 1,
        load: 0,
        speed: 0,
        region: Region::default(),
        energy_millijoules: 0,
        energy_source: EnergySource::Unknown,
        engine: String::new(),
        retains_data: false,
        sequence: 0,
        expires_at: 0,
    };
    Announcement {
        offer,
        signature: signature(),
        manifest: Arc::new(manifest),
    }
}

fn tender(models: usize) -> OffersRequest {
    OffersRequest::Tender(Box::new(SignedTender {
        tender: Tender {
            buyer: Address([1; 20]),
            models: vec![ModelId([0; 32]); models],
            usage: Usage::default(),
            deadline: 0,
            ceiling: Price::default(),
            salt: Digest([0; 32]),
            expires_at: 0,
        },
        signature: signature(),
    }))
}

fn refusal(length: usize) -> Refusal {
    let mut refusal = Refusal::new(RefusalCode::Busy, "");
    refusal.message = "x".repeat(length);
    refusal
}

fn noted(complaint: usize) -> OffersResponse {
    OffersResponse::Noted {
        accepted: 0,
        complaint: Some("x".repeat(complaint)),
    }
}

/// Frames with a list or a text that is too long: nearly a million elements where they are empty.
fn hostile() -> Vec<Case> {
    const MANY: usize = 1 << 20;
    let generation = Generation::default;
    let embedding = Job::Embedding {
        inputs: vec![String::new(); MANY],
    };
    let predict = |inputs: Vec<Tensor>, outputs: usize| Job::Predict {
        inputs,
        outputs: vec![String::new(); outputs],
    };
    let announce = |announcement| OffersRequest::Announce(vec![announcement]);
    vec![
        case("greet", &greeting(peer(MANY))),
        case("contacts", &greeted(vec![peer(0); MANY / 32])),
        case("contact", &greeted(vec![peer(MANY)])),
        case("announce", &announce(announcement(MANY, 0, 0, 1))),
        case("artifacts", &announce(announcement(0, 0, 0, MANY / 32))),
        case("specs", &announce(announcement(0, MANY, 0, 1))),
        case("shapes", &announce(announcement(0, 1, MANY, 1))),
        case(
            "announcements",
            &OffersRequest::Announce(vec![announcement(0, 0, 0, 1); 8_192]),
        ),
        case("book", &OffersResponse::Book(vec![announcement(0, 0, 0, 1); 8_192])),
        case("tender", &tender(MANY / 32)),
        case("noted", &noted(MANY)),
        case("declined", &OffersResponse::NoBid(refusal(MANY))),
        case("refused", &SellerFrame::Refused(refusal(1_025))),
        case(
            "messages",
            &request(chat(vec![Message::default(); MANY], 0, generation()), 0),
        ),
        case("calls", &request(chat(calling(1, MANY), 0, generation()), 0)),
        case("tools", &request(chat(Vec::new(), MANY, generation()), 0)),
        case("stop", &request(chat(Vec::new(), 0, stopping(MANY, 0)), 0)),
        case("so far", &request(chat(Vec::new(), 0, stopping(0, MANY + 1)), 0)),
        case("texts", &request(embedding, 0)),
        case("tensors", &request(predict(vec![tensor(0); MANY], 0), 0)),
        case("shape", &request(predict(vec![tensor(MANY)], 0), 0)),
        case("outputs", &request(predict(Vec::new(), MANY), 0)),
        case("interrupted", &request(chat(Vec::new(), 0, generation()), MANY / 32)),
        case("ids", &tokens(MANY, 0, 0)),
        case("logprobs", &tokens(0, MANY, 0)),
        case("top", &tokens(0, 1, MANY)),
        case("answer", &SellerFrame::Output(Output::Tensors(vec![tensor(0); MANY]))),
    ]
}

/// Frames whose lists are as long as they may be, of elements as empty as they can be.
fn fullest() -> Vec<Case> {
    let predict = Job::Predict {
        inputs: vec![tensor(16); 4_096],
        outputs: vec![String::new(); 4_096],
    };
    let embedding = Job::Embedding {
        inputs: vec![String::new(); 4_096],
    };
    let full = announcement(16, 64, 16, 64);
    vec![
        case("greet", &greeting(peer(16))),
        case("greeted", &greeted(vec![peer(16); 16])),
        case("announce", &OffersRequest::Announce(vec![full.clone(); 256])),
        case(
            "small offers",
            &OffersRequest::Announce(vec![announcement(16, 0, 0, 1); 256]),
        ),
        case("book", &OffersResponse::Book(vec![full; 256])),
        case("chat", &request(chat(calling(4_096, 1), 128, stopping(0, 0)), 64)),
        case("calls", &request(chat(calling(1, 4_096), 128, stopping(0, 0)), 64)),
        case("so far", &request(chat(Vec::new(), 0, stopping(0, 1 << 20)), 0)),
        case("embedding", &request(embedding, 64)),
        case("predict", &request(predict, 64)),
        case("ids", &tokens(4_096, 0, 0)),
        case("tokens", &tokens(4_096, 4_096, 20)),
        case(
            "tensors",
            &SellerFrame::Output(Output::Tensors(vec![tensor(16); 4_096])),
        ),
    ]
}

#[test]
fn finding_h1_a_list_that_is_too_long_is_refused_before_it_is_decoded() {
    let mut late = Vec::new();
    for (name, decode, frame) in hostile() {
        let (accepted, most) = decode(&frame);
        if accepted || most >= 16 << 10 {
            late.push(format!(
                "{name}: {most} bytes are allocated for {}, accepted: {accepted}",
                frame.len()
            ));
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

#[test]
fn finding_h1_what_a_frame_decodes_to_is_bounded_by_the_frame_and_a_constant() {
    for (name, decode, frame) in fullest() {
        let (accepted, most) = decode(&frame);
        println!("{name}: {} bytes, {most} allocated", frame.len());
        assert!(accepted, "{name} is refused");
        let bound = 4 * frame.len() + (4 << 20);
        assert!(most <= bound, "{name} takes {most} bytes for {}", frame.len());
    }
}

#[test]
fn finding_h1_calls_of_all_messages_are_bounded_together() {
    let (_, decode, frame) = case("calls", &request(chat(calling(4_096, 64), 0, stopping(0, 0)), 0));
    let (accepted, most) = decode(&frame);
    assert!(!accepted);
    assert!(most < 1 << 20, "{most} bytes for {}", frame.len());
}

#[test]
fn finding_h1_a_frame_that_lies_about_its_lists_costs_little() {
    // Each list says that it has as many elements as it may, and the frame ends there.
    for (name, decode, frame) in fullest() {
        for end in 0..frame.len().min(2_048) {
            let (accepted, most) = decode(&frame[..end]);
            assert!(!accepted, "{name} cut at {end}");
            assert!(most <= 128 << 10, "{name} cut at {end}: {most}");
        }
    }
}

/// A list or text of a message: how long it may be, and a frame where it has a length.
type Bounded = (&'static str, usize, fn(usize) -> Case);

/// Every bound of a message, by what it bounds.
fn bounds() -> Vec<Bounded> {
    fn plain(job: Job) -> Case {
        case("", &request(job, 0))
    }
    fn announce(announcement: Announcement) -> Case {
        case("", &OffersRequest::Announce(vec![announcement]))
    }
    let predict = |n| {
        plain(Job::Predict {
            inputs: Vec::new(),
            outputs: vec![String::new(); n],
        })
    };
    vec![
        ("addresses of a node", 16, |n| case("", &greeting(peer(n)))),
        ("contacts", 16, |n| case("", &greeted(vec![peer(0); n]))),
        ("addresses of an offer", 16, |n| announce(announcement(n, 0, 0, 1))),
        ("tensors of a model", 64, |n| announce(announcement(0, n, 0, 1))),
        ("dimensions of a tensor", 16, |n| announce(announcement(0, 1, n, 1))),
        ("files", 64, |n| announce(announcement(0, 0, 0, n))),
        ("announcements", 256, |n| {
            case("", &OffersRequest::Announce(vec![announcement(0, 0, 0, 1); n]))
        }),
        ("a book", 256, |n| {
            case("", &OffersResponse::Book(vec![announcement(0, 0, 0, 1); n]))
        }),
        ("models of a tender", 16, |n| case("", &tender(n))),
        ("a complaint", 1_024, |n| case("", &noted(n))),
        ("a refusal", 1_024, |n| case("", &SellerFrame::Refused(refusal(n)))),
        ("interruptions", 64, |n| {
            case("", &request(chat(Vec::new(), 0, stopping(0, 0)), n))
        }),
        ("messages", 4_096, |n| plain(chat(calling(n, 0), 0, stopping(0, 0)))),
        ("calls", 4_096, |n| plain(chat(calling(1, n), 0, stopping(0, 0)))),
        ("calls of all messages", 2_048, |n| {
            plain(chat(calling(2, n), 0, stopping(0, 0)))
        }),
        ("tools", 128, |n| plain(chat(Vec::new(), n, stopping(0, 0)))),
        ("stop texts", 16, |n| plain(chat(Vec::new(), 0, stopping(n, 0)))),
        ("tokens so far", 1 << 20, |n| plain(chat(Vec::new(), 0, stopping(0, n)))),
        ("names of outputs", 4_096, predict),
        ("tokens of a piece", 4_096, |n| case("", &tokens(n, 0, 0))),
        ("log-probabilities", 4_096, |n| case("", &tokens(0, n, 0))),
        ("alternatives", 20, |n| case("", &tokens(0, 1, n))),
    ]
}

#[test]
fn finding_h1_a_list_may_be_as_long_as_its_bound_and_no_longer() {
    for (name, most, frame) in bounds() {
        for length in [0, most - 1, most, most + 1] {
            let (_, decode, frame) = frame(length);
            assert_eq!(decode(&frame).0, length <= most, "{name}: {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn finding_h1_no_length_gets_by(place: prop::sample::Index, length in 0usize..1 << 17) {
        let all = bounds();
        let (name, most, frame) = all[place.index(all.len())];
        // Where an element is a whole offer, some are enough.
        let length = length % (most * 32).min(1 << 17);
        let (_, decode, frame) = frame(length);
        let (accepted, allocated) = decode(&frame);
        prop_assert_eq!(accepted, length <= most, "{}: {}", name, length);
        // A list is refused at the first element too many: those before it have been decoded.
        prop_assert!(allocated <= 4 * frame.len() + (4 << 20), "{}: {} takes {}", name, length, allocated);
    }
}

#[test]
fn finding_l4_a_refusal_is_short_whoever_made_it() {
    let made = Refusal::new(RefusalCode::Busy, "é".repeat(5_000)).with_field("f".repeat(5_000));
    assert_eq!(
        (made.message.len(), made.field.as_ref().map(String::len)),
        (1_024, Some(256))
    );
    let (_, decode, frame) = case("longest", &SellerFrame::Refused(made));
    assert!(decode(&frame).0);
}

/// Every list and text of a message has its bound where it is decoded: so will those of later messages.
#[test]
fn finding_h1_no_field_of_a_message_is_without_a_bound() {
    let sources = [
        include_str!("../src/wire.rs"),
        include_str!("../src/offer.rs"),
        include_str!("../src/ticket.rs"),
        include_str!("../src/manifest.rs"),
        include_str!("../src/job.rs"),
        include_str!("../src/job/tensor.rs"),
        include_str!("../src/output.rs"),
        include_str!("../src/tender.rs"),
        include_str!("../src/order.rs"),
        include_str!("../src/receipt.rs"),
        include_str!("../src/voucher.rs"),
        include_str!("../src/channel.rs"),
        include_str!("../src/account/mod.rs"),
    ];
    // What a provider's own worker says of a job; it does not travel between nodes.
    const EXCEPT: &str = "pub struct BadJob {";
    let (mut fields, mut unbounded) = (0, Vec::new());
    for source in sources {
        let (mut is_decoded, mut is_inside, mut attribute) = (false, false, "");
        for line in source.lines() {
            match line {
                "}" => (is_decoded, is_inside) = (false, false),
                _ if line.starts_with("#[derive(") => is_decoded = line.contains("Deserialize"),
                _ if line.starts_with("pub struct ") || line.starts_with("pub enum ") => {
                    is_inside = is_decoded && line != EXCEPT;
                }
                _ => {}
            }
            let code = line.trim_start();
            let holds = ["Vec<", "String", "Map<", "Box<["]
                .iter()
                .any(|list| code.contains(list));
            if is_inside && holds && !code.starts_with("//") && !code.starts_with("#[error") {
                if code.starts_with("#[") && !code.contains(")] ") {
                    continue;
                }
                fields += 1;
                if !(attribute.contains("deserialize_with") || code.contains("deserialize_with")) {
                    unbounded.push(line);
                }
            }
            attribute = code;
        }
    }
    assert!(fields > 40, "{fields} fields were found");
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}
