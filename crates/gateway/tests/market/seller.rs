//! A seller that speaks the wire's frames over a real node, honestly or as a script says. It keeps the protocol's own
//! ledger, so the buyer's vouchers are checked by the same rules as a real provider's.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use rialto_network::{FrameReceiver, FrameSender, Incoming, Node, NodeConfig};
use rialto_protocol::{
    Address, Digest, Domain, EnergySource, MicroDollars, NodeKey, Price, ReceiptStatus, Region, SignedReceipt,
    SigningKey, Usage,
    account::{SellerAccount, Settlement},
    job::{Datatype, Job, Tensor},
    manifest::{Artifact, Format, Manifest, TaskKind},
    offer::{Announcement, Offer},
    output::{FinishReason, Output, ResponseHasher},
    tender::{Bid, SignedTender},
    ticket::Peer,
    voucher::VoucherVerifier,
    wire::{BuyerFrame, OffersRequest, OffersResponse, Refusal, RefusalCode, SellerFrame, TradeRequest},
};
use tokio::sync::watch;

use super::words;

/// The highest number of an offer so far. It is the second that the offer was made in, or the next one: a seller that starts
/// again need not wait for that.
static NEWEST: AtomicU64 = AtomicU64::new(0);

pub(crate) const PRICE: Price = Price {
    input: 100,
    output: 1_000,
    request: 0,
};
pub(crate) const CHUNK: u64 = 4;
pub(crate) const FUNDED: u64 = 100_000;

pub(crate) fn domain() -> Domain {
    Domain {
        chain_id: 31_337,
        escrow: Address([3; 20]),
    }
}

/// What a seller does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Sends so many tokens and drops the connection.
    DiesAfter(u64),
    /// Bills one token more than it sent.
    Inflates,
    Refuses(RefusalCode),
    /// Asks for two chunks ahead.
    Greedy,
    /// Asks so many times for the money of the first chunk.
    Asks(u64),
    /// Bills the first request once more with every later one.
    BillsAgain,
    /// Calls a tool that is not offered.
    CallsUnoffered,
    /// Says that it called tools, and calls none.
    ClaimsCalls,
    /// Tells log-probabilities whether or not anybody asked.
    TellsUnasked,
    /// Works slowly: so many milliseconds a token.
    Slow(u64),
    /// Waits before this token until it is let on.
    WaitsAt(u64),
    /// Asks for money when it has all its answer, and ends without reading what it gets.
    AsksInVain,
}

pub(crate) struct Seller {
    pub(crate) node: Node,
    pub(crate) key: SigningKey,
    pub(crate) manner: Mutex<Manner>,
    pub(crate) account: tokio::sync::Mutex<Option<SellerAccount>>,
    pub(crate) receipts: Mutex<Vec<SignedReceipt>>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) requests: AtomicUsize,
    /// The job of the last request.
    pub(crate) asked: Mutex<Option<Job>>,
    /// Tokens that were sent in all.
    pub(crate) sent: AtomicU64,
    /// Whether it goes on where it waits.
    goes_on: watch::Sender<bool>,
    /// The least number of its offers: they are newer than those of whoever had its key before.
    born: u64,
    /// What it bids for work that can wait.
    pub(crate) bid: Mutex<Option<Price>>,
    /// Tenders that it was sent.
    pub(crate) tenders: AtomicUsize,
}

pub(crate) fn manifest(name: &str, task: TaskKind) -> Manifest {
    Manifest {
        schema: 1,
        publisher_name: "rialto".into(),
        name: name.into(),
        tag: "v1".into(),
        task,
        description: "for tests".into(),
        quantisation: "F32".into(),
        licence: "MIT".into(),
        royalty_bps: 100,
        context_length: if task == TaskKind::Predict { 0 } else { 512 },
        format: Format::Gguf,
        chat_template_hash: String::new(),
        tokenizer_hash: String::new(),
        artifacts: vec![Artifact {
            path: "a".into(),
            blake3: Digest([1; 32]),
            size: 1,
        }],
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

pub(crate) const PUBLISHER: Address = Address([5; 20]);

impl Seller {
    pub(crate) async fn start(number: u8, manner: Manner) -> Arc<Self> {
        let config = NodeConfig {
            secret: zeroize::Zeroizing::new([number; 32]),
            listen: "127.0.0.1:0".parse().unwrap(),
            relay: None,
        };
        let seller = Arc::new(Self {
            node: Node::bind(config).await.unwrap(),
            key: SigningKey::from_bytes(&[number; 32]).unwrap(),
            manner: Mutex::new(manner),
            account: tokio::sync::Mutex::new(None),
            receipts: Mutex::default(),
            manifests: vec![
                manifest("talker", TaskKind::Chat),
                manifest("oracle", TaskKind::Predict),
                manifest("vectors", TaskKind::Embedding),
            ],
            requests: AtomicUsize::new(0),
            asked: Mutex::default(),
            sent: AtomicU64::new(0),
            goes_on: watch::Sender::new(false),
            born: NEWEST.load(Ordering::SeqCst) + 1,
            bid: Mutex::new(None),
            tenders: AtomicUsize::new(0),
        });
        tokio::spawn(Arc::clone(&seller).accept());
        seller
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Whether it goes on where it waits, from now on.
    pub(crate) fn let_on(&self, goes_on: bool) {
        self.goes_on.send_replace(goes_on);
    }

    pub(crate) fn peer(&self) -> Peer {
        self.node.peer()
    }

    fn bid(&self, signed: &SignedTender) -> OffersResponse {
        self.tenders.fetch_add(1, Ordering::SeqCst);
        let (now, tender) = (rialto_gateway::store::now(), &signed.tender);
        signed.check(now).unwrap();
        let Some(price) = *self.bid.lock().unwrap() else {
            return OffersResponse::NoBid(Refusal::new(RefusalCode::Busy, "no room"));
        };
        let bid = Bid {
            provider: self.key.address(),
            tender: tender.digest(),
            buyer: tender.buyer,
            model: tender.models[0],
            price,
            usage: tender.usage,
            expires_at: now + 600,
        };
        OffersResponse::Bid(Box::new(bid.sign(&self.key)))
    }

    pub(crate) fn offers(&self) -> Vec<Announcement> {
        let now = rialto_gateway::store::now();
        let sequence = now.max(self.born);
        NEWEST.fetch_max(sequence, Ordering::SeqCst);
        let announce = |manifest: &Manifest| {
            let offer = Offer {
                provider: self.key.address(),
                node: self.node.key(),
                addresses: self.peer().addresses,
                relay: None,
                model: manifest.model_id(PUBLISHER),
                publisher: PUBLISHER,
                price: PRICE,
                chunk: CHUNK,
                capacity: 2,
                load: 0,
                speed: 0,
                region: Region::default(),
                energy_millijoules: 0,
                energy_source: EnergySource::Unknown,
                engine: "simulated".into(),
                retains_data: false,
                sequence,
                expires_at: now + 300,
            };
            offer.announce(&self.key, manifest.clone())
        };
        self.manifests.iter().map(announce).collect()
    }

    async fn accept(self: Arc<Self>) {
        while let Some(incoming) = self.node.accept().await {
            let seller = Arc::clone(&self);
            match incoming {
                Incoming::Offers(_, call) => {
                    let response = match call.request() {
                        OffersRequest::Tender(tender) => seller.bid(tender),
                        OffersRequest::Browse => OffersResponse::Book(seller.offers()),
                        OffersRequest::Greet(_) => OffersResponse::Greeted {
                            listens: false,
                            contacts: Vec::new(),
                        },
                        OffersRequest::Announce(_) | OffersRequest::Relay(_) | OffersRequest::Begin(_) => {
                            OffersResponse::Noted {
                                accepted: 0,
                                complaint: None,
                            }
                        }
                    };
                    // Whoever asked may be gone.
                    drop(call.answer(&response).await);
                }
                Incoming::Trade(peer, trade) => {
                    let (sender, receiver) = trade.split();
                    tokio::spawn(async move { seller.trade(peer, sender, receiver).await });
                }
            }
        }
    }

    async fn trade(
        &self,
        _peer: NodeKey,
        mut sender: FrameSender<SellerFrame>,
        mut receiver: FrameReceiver<BuyerFrame>,
    ) -> Option<()> {
        let BuyerFrame::Request(request) = receiver.next().await.ok()?? else {
            panic!("the first frame is a request");
        };
        self.requests.fetch_add(1, Ordering::SeqCst);
        *self.asked.lock().unwrap() = Some(request.job.clone());
        let manner = *self.manner.lock().unwrap();
        if let Manner::Refuses(code) = manner {
            let refusal = Refusal::new(code, "as the script says")
                .with_field("messages")
                .with_retry_after(1_500);
            sender.send(&SellerFrame::Refused(refusal)).await.ok()?;
            sender.finish().await;
            return Some(());
        }
        if manner == Manner::BillsAgain {
            self.bill_again(&request).await;
        }
        let catch_up = self.missing(&request).await;
        let input_units = request.job.max_input().min(10);
        sender
            .send(&SellerFrame::Accepted { input_units, catch_up })
            .await
            .ok()?;
        self.reserve(
            &request,
            &request.voucher,
            Usage {
                input: input_units,
                output: CHUNK.min(request.job.max_output()),
            },
        )
        .await;
        let (output, hash, status) = match request.job.max_output() {
            0 => self.compute(&request.job, &mut sender).await?,
            _ => {
                self.generate(&request, input_units, manner, &mut sender, &mut receiver)
                    .await?
            }
        };
        if manner == Manner::DiesAfter(output) {
            return None;
        }
        if manner == Manner::AsksInVain {
            drop(receiver);
            let wanted = SellerFrame::VoucherWanted {
                output_units: output,
                cumulative: MicroDollars::ZERO,
            };
            sender.send(&wanted).await.ok()?;
        }
        let billed = output + u64::from(manner == Manner::Inflates);
        let usage = Usage {
            input: input_units,
            output: billed,
        };
        let receipt = self.settle(&request, usage, hash, status).await;
        let calls = matches!(&request.job, Job::Chat { tools, .. } if !tools.offered.is_empty());
        let reason = match status {
            ReceiptStatus::Cancelled => FinishReason::Cancelled,
            _ if calls => FinishReason::ToolCalls,
            _ => FinishReason::Length,
        };
        let finished = SellerFrame::Finished {
            reason,
            receipt: Box::new(receipt),
            failure: None,
        };
        sender.send(&finished).await.ok()?;
        sender.finish().await;
        Some(())
    }

    /// Settles what was cut off, as the buyer's statement says, and lists the receipts that the buyer does not have.
    async fn missing(&self, request: &TradeRequest) -> Vec<SignedReceipt> {
        for interruption in &request.statement.interrupted {
            let known = self
                .receipts
                .lock()
                .unwrap()
                .iter()
                .any(|one| one.receipt.request == interruption.request);
            if !known {
                let mut earlier = request.clone();
                earlier.id = interruption.request;
                // The job of the earlier request is the same in these tests.
                let status = ReceiptStatus::Interrupted;
                self.settle(&earlier, interruption.usage, Digest::default(), status)
                    .await;
            }
        }
        let receipts = self.receipts.lock().unwrap();
        receipts
            .iter()
            .filter(|one| one.receipt.sequence > request.statement.sequence)
            .copied()
            .collect()
    }

    async fn bill_again(&self, request: &TradeRequest) {
        let first = self.receipts.lock().unwrap().first().copied();
        if let Some(first) = first {
            let mut earlier = request.clone();
            earlier.id = first.receipt.request;
            let bill = &first.receipt;
            self.settle(&earlier, bill.usage, bill.response_hash, bill.status).await;
        }
    }

    async fn reserve(&self, request: &TradeRequest, voucher: &rialto_protocol::SignedVoucher, usage: Usage) {
        VoucherVerifier::new(domain(), request.channel.signer)
            .verify(voucher)
            .unwrap();
        let mut account = self.account.lock().await;
        let account = account.get_or_insert_with(|| SellerAccount::new(request.channel, MicroDollars::new(FUNDED)));
        assert_eq!(account.params(), &request.channel, "these tests use one channel");
        account
            .reserve(request.id, request.price.cost(usage), voucher)
            .expect("the voucher pays");
    }

    async fn generate(
        &self,
        request: &TradeRequest,
        input: u64,
        manner: Manner,
        sender: &mut FrameSender<SellerFrame>,
        receiver: &mut FrameReceiver<BuyerFrame>,
    ) -> Option<(u64, Digest, ReceiptStatus)> {
        let mut hasher = ResponseHasher::new();
        let mut paid = CHUNK.min(request.job.max_output());
        let mut output = 0;
        if let Manner::Asks(times) = manner {
            for _ in 0..times {
                let wanted = SellerFrame::VoucherWanted {
                    output_units: paid,
                    cumulative: MicroDollars::ZERO,
                };
                sender.send(&wanted).await.ok()?;
                let BuyerFrame::Voucher(voucher) = receiver.next().await.ok()?? else {
                    return None;
                };
                self.reserve(request, &voucher, Usage { input, output: paid }).await;
            }
        }
        while output < request.job.max_output() {
            if output == paid {
                let ahead = if manner == Manner::Greedy { 2 * CHUNK } else { CHUNK };
                let output_units = (output + ahead).min(request.job.max_output());
                let wanted = SellerFrame::VoucherWanted {
                    output_units,
                    cumulative: MicroDollars::ZERO,
                };
                sender.send(&wanted).await.ok()?;
                match receiver.next().await.ok()?? {
                    BuyerFrame::Voucher(voucher) => {
                        self.reserve(
                            request,
                            &voucher,
                            Usage {
                                input,
                                output: output_units,
                            },
                        )
                        .await;
                        paid = output_units;
                    }
                    BuyerFrame::Cancel => return Some((output, hasher.finish(), ReceiptStatus::Cancelled)),
                    BuyerFrame::Request(_) => panic!("a second request"),
                }
            }
            match manner {
                Manner::DiesAfter(tokens) if output == tokens => return None,
                Manner::WaitsAt(token) if output == token => {
                    let mut goes_on = self.goes_on.subscribe();
                    let heard = tokio::select! {
                        _ = goes_on.wait_for(|goes_on| *goes_on) => None,
                        heard = receiver.next() => Some(heard),
                    };
                    match heard {
                        None => {}
                        Some(Ok(Some(BuyerFrame::Cancel))) => {
                            return Some((output, hasher.finish(), ReceiptStatus::Cancelled));
                        }
                        Some(_) => return None,
                    }
                }
                Manner::Slow(milliseconds) => {
                    let pause = std::time::Duration::from_millis(milliseconds);
                    if let Ok(heard) = tokio::time::timeout(pause, receiver.next()).await {
                        let Ok(Some(BuyerFrame::Cancel)) = heard else {
                            return None;
                        };
                        return Some((output, hasher.finish(), ReceiptStatus::Cancelled));
                    }
                }
                _ => {}
            }
            let piece = words::token(&request.job, manner, output);
            hasher.update(&piece);
            sender.send(&SellerFrame::Output(piece)).await.ok()?;
            output += 1;
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        for piece in words::calls(&request.job, manner) {
            hasher.update(&piece);
            sender.send(&SellerFrame::Output(piece)).await.ok()?;
        }
        Some((output, hasher.finish(), ReceiptStatus::Complete))
    }

    async fn compute(&self, job: &Job, sender: &mut FrameSender<SellerFrame>) -> Option<(u64, Digest, ReceiptStatus)> {
        let outputs = match job {
            Job::Embedding { inputs } => (0..inputs.len())
                .map(|index| Output::Embedding {
                    index: u32::try_from(index).unwrap(),
                    vector: vec![0.5, 0.25],
                })
                .collect(),
            _ => vec![Output::Tensors(vec![Tensor {
                name: "y".into(),
                datatype: Datatype::Fp32,
                shape: vec![1],
                data: 0.75f32.to_le_bytes().to_vec(),
            }])],
        };
        let mut hasher = ResponseHasher::new();
        for output in outputs {
            hasher.update(&output);
            sender.send(&SellerFrame::Output(output)).await.ok()?;
        }
        Some((0, hasher.finish(), ReceiptStatus::Complete))
    }

    async fn settle(&self, request: &TradeRequest, usage: Usage, hash: Digest, status: ReceiptStatus) -> SignedReceipt {
        let mut account = self.account.lock().await;
        let account = account.as_mut().expect("a request was reserved");
        let receipt = account.settle(Settlement {
            request: request.id,
            usage,
            cost: request.price.cost(usage),
            request_hash: request.job.hash(request.id),
            response_hash: hash,
            status,
            finished_at: rialto_gateway::store::now(),
            region: Region::default(),
            energy_millijoules: 0,
            fingerprint_root: Digest::default(),
        });
        let signed = receipt.sign(&domain(), &self.key);
        self.receipts.lock().unwrap().push(signed);
        signed
    }
}
