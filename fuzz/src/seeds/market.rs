//! Frames, manifests and tickets.

use rialto_engine::{
    EngineInfo, Piece,
    border::{FromWorker, Outbox},
};
use rialto_protocol::{
    Address, ChannelParams, Digest, Domain, MicroDollars, ModelId, NodeKey, Price, RequestId, Signature, Usage,
    Voucher,
    account::Statement,
    job::{Datatype, Generation, Job, Message, Tensor, Tools},
    order::{Order, SignedOrder},
    output::{FinishReason, Output},
    tender::{Bid, SignedBid, SignedTender, Tender},
    ticket::{Contracts, Peer, Ticket},
    voucher::SignedVoucher,
    wire::{BuyerFrame, OffersRequest, OffersResponse, Refusal, RefusalCode, SellerFrame, TradeRequest},
};
use serde::Serialize;

use super::{Seed, seed};

const CHAT: &str = r#": warm

data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "To"}, "logprobs": {"content": [{"id": 7,
data: "token": "To", "bytes": [84, 111], "logprob": -0.5, "top_logprobs": [{"token": "token_id:8", "logprob": -1}]}]}}]}

data: {"choices": [{"delta": {"reasoning_content": "be", "tool_calls": [{"index": 0, "function": {"name": "look"}}]}}]}

data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "timings": {"predicted_n": 2}}

data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

data: [DONE]

"#;

const COMPLETION: &str = r#"data: {"choices": [{"text": "To be", "logprobs": {"tokens": ["To", " be"],
data: "token_logprobs": [null, -0.25], "top_logprobs": [null, {" be": -0.25, " see": -2.5}]}, "finish_reason": "length"}]}

"#;

const MANIFEST: &str = include_str!("../../../models/breast-cancer/manifest.toml");

/// `signature` is of the right form, and by nobody of the market.
pub(super) fn seeds(signature: Signature) -> Vec<Seed> {
    let mut seeds = vec![
        seed("manifest", "breast-cancer", MANIFEST),
        seed("ticket", "local", ticket().to_string()),
        seed("worker_frames", "answer", worker_frames()),
        seed("upstream_stream", "chat", CHAT),
        seed("upstream_stream", "completion", COMPLETION),
    ];
    seeds.extend(buyer(signature));
    seeds.extend(seller());
    seeds.extend(offers(signature));
    seeds
}

fn encoded<T: Serialize>(target: &'static str, name: &'static str, value: &T) -> Seed {
    seed(target, name, postcard::to_stdvec(value).unwrap_or_default())
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

fn voucher(signature: Signature) -> SignedVoucher {
    SignedVoucher {
        voucher: Voucher {
            channel: channel().id(),
            cumulative: MicroDollars::try_from(1_000u128).unwrap_or_default(),
            receipts_head: Default::default(),
        },
        signature,
    }
}

fn request(job: Job, signature: Signature) -> BuyerFrame {
    BuyerFrame::Request(Box::new(TradeRequest {
        id: RequestId([8; 32]),
        channel: channel(),
        price: Price {
            input: 1,
            output: 2,
            request: 3,
        },
        job,
        statement: Statement::default(),
        voucher: voucher(signature),
        delegation: signature,
        patience_ms: 60_000,
    }))
}

fn buyer(signature: Signature) -> [Seed; 6] {
    let target = "buyer_frame";
    let generation = Generation::default;
    let chat = Job::Chat {
        messages: vec![Message::text("system", "be brief"), Message::text("user", "hello")],
        tools: Tools::default(),
        generation: generation(),
    };
    let completion = Job::Completion {
        prompt: "once".into(),
        generation: generation(),
    };
    let embedding = Job::Embedding {
        inputs: vec!["a".into(), "b".into()],
    };
    let predict = Job::Predict {
        inputs: vec![Tensor {
            name: "input".into(),
            datatype: Datatype::Fp32,
            shape: vec![1, 2],
            data: vec![0; 8],
        }],
        outputs: vec!["label".into()],
    };
    [
        encoded(target, "chat", &request(chat, signature)),
        encoded(target, "completion", &request(completion, signature)),
        encoded(target, "embedding", &request(embedding, signature)),
        encoded(target, "predict", &request(predict, signature)),
        encoded(target, "voucher", &BuyerFrame::Voucher(voucher(signature))),
        encoded(target, "cancel", &BuyerFrame::Cancel),
    ]
}

fn output() -> Output {
    Output::Tokens {
        text: "hello".into(),
        ids: vec![1, 2, 300],
        logprobs: vec![],
    }
}

fn seller() -> [Seed; 5] {
    let target = "seller_frame";
    let refusal = Refusal::new(RefusalCode::Busy, "the queue is full").with_retry_after(1_000);
    let wanted = SellerFrame::VoucherWanted {
        output_units: 64,
        cumulative: MicroDollars::default(),
    };
    let accepted = SellerFrame::Accepted {
        input_units: 12,
        catch_up: vec![],
    };
    let vector = Output::Embedding {
        index: 0,
        vector: vec![0.5, -0.5],
    };
    [
        encoded(target, "accepted", &accepted),
        encoded(target, "refused", &SellerFrame::Refused(refusal)),
        encoded(target, "wanted", &wanted),
        encoded(target, "output", &SellerFrame::Output(output())),
        encoded(target, "vector", &SellerFrame::Output(vector)),
    ]
}

/// A tender, which bids are held against.
pub(crate) fn tender() -> Tender {
    Tender {
        buyer: Address([1; 20]),
        models: vec![ModelId([7; 32])],
        usage: Usage { input: 10, output: 20 },
        deadline: 100,
        ceiling: Price {
            input: 5,
            output: 5,
            request: 0,
        },
        salt: Digest([3; 32]),
        expires_at: 50,
    }
}

fn bid(signature: Signature) -> SignedBid {
    let tender = tender();
    SignedBid {
        bid: Bid {
            provider: Address([2; 20]),
            tender: tender.digest(),
            buyer: tender.buyer,
            model: ModelId([7; 32]),
            price: Price::default(),
            usage: tender.usage,
            expires_at: 60,
        },
        signature,
    }
}

fn offers(signature: Signature) -> [Seed; 11] {
    let (ask, answer) = ("offers_request", "offers_response");
    let order = SignedOrder {
        order: Order::Open {
            channel: channel(),
            amount: MicroDollars::default(),
            deadline: 1,
        },
        domain: Domain {
            chain_id: 31_337,
            escrow: Address([1; 20]),
        },
        signature,
    };
    let noted = OffersResponse::Noted {
        accepted: 1,
        complaint: Some("the offer has expired".into()),
    };
    let relayed = OffersResponse::Relayed {
        transaction: Digest([9; 32]),
    };
    [
        encoded(ask, "browse", &OffersRequest::Browse),
        encoded(ask, "announce", &OffersRequest::Announce(vec![])),
        encoded(ask, "relay", &OffersRequest::Relay(Box::new(order))),
        encoded(ask, "begin", &OffersRequest::Begin(Box::new(order))),
        encoded(
            ask,
            "tender",
            &OffersRequest::Tender(Box::new(SignedTender {
                tender: tender(),
                signature,
            })),
        ),
        encoded(answer, "bid", &OffersResponse::Bid(Box::new(bid(signature)))),
        encoded(
            answer,
            "no_bid",
            &OffersResponse::NoBid(Refusal::new(RefusalCode::Busy, "no room")),
        ),
        encoded(answer, "noted", &noted),
        encoded(answer, "book", &OffersResponse::Book(vec![])),
        encoded(answer, "relayed", &relayed),
        encoded(
            answer,
            "begun",
            &OffersResponse::Begun {
                credit: MicroDollars::new(7),
            },
        ),
    ]
}

fn ticket() -> Ticket {
    Ticket {
        chain_id: 31_337,
        rpc_url: "http://127.0.0.1:8545".into(),
        contracts: Contracts {
            token: Address([1; 20]),
            escrow: Address([2; 20]),
            providers: Address([3; 20]),
            models: Address([4; 20]),
        },
        meeting: vec![Peer {
            node: NodeKey([5; 32]),
            addresses: vec!["127.0.0.1:4000".into()],
            relay: Some("https://relay.example.org".into()),
        }],
    }
}

fn worker_frames() -> Vec<u8> {
    let info = EngineInfo {
        name: "rialto/shakespeare:q8_0".into(),
        class: "llama.cpp fast".into(),
        slots: 4,
    };
    let frames = [
        FromWorker::Ready(Ok(info)),
        FromWorker::Prepared {
            id: 1,
            input_units: 5,
            max_output: 10,
        },
        FromWorker::Piece {
            id: 1,
            piece: Piece::Output(output()),
        },
        FromWorker::Piece {
            id: 1,
            piece: Piece::Finished(FinishReason::Stop.into()),
        },
        FromWorker::Pong {
            number: 1,
            step_millis: 0,
            limit_millis: 1_000,
        },
    ];
    let mut bytes = vec![];
    for frame in &frames {
        // A frame of a few bytes is never too large.
        drop(Outbox::encode(&mut bytes, frame));
    }
    bytes
}
