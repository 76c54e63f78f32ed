//! A buyer without a gateway: it speaks the trade protocol with one provider, from a channel of its own, and keeps its
//! ledger. For benches that must see what a provider answers, frame by frame.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rialto_devchain::development_keys;
use rialto_network::{Node, NodeConfig, Trade};
use rialto_protocol::{
    ChannelParams, Domain, MicroDollars, RequestId, SignedVoucher, SigningKey, Usage,
    account::{BuyerAccount, Observed},
    hash::keccak256,
    job::{Generation, Job},
    offer::Offer,
    output::ResponseHasher,
    ticket::Peer,
    wire::{BuyerFrame, OffersRequest, OffersResponse, Refusal, SellerFrame, TradeRequest, delegation_digest},
};
use rialto_settlement::{Chain, Wallet};
use zeroize::Zeroizing;

/// What a channel holds.
const FUNDS: MicroDollars = MicroDollars::new(1_000_000_000);

/// No frame is waited for longer.
const SILENCE: Duration = Duration::from_secs(60);

/// A buyer with one channel to one provider. Clones share it.
#[derive(Debug, Clone)]
pub struct Buyer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    peer: Peer,
    offer: Offer,
    domain: Domain,
    session: SigningKey,
    account: Mutex<BuyerAccount>,
}

/// How a trade ended.
#[derive(Debug)]
pub enum End {
    /// It was served.
    Served {
        /// From the request to the first output.
        first: Duration,
        /// Units of output.
        units: u64,
    },
    /// It was refused before any work.
    Refused(Refusal),
}

/// A trade under way.
struct Call {
    id: RequestId,
    job: Job,
    asked: Instant,
    input: u64,
    received: u64,
    first: Option<Duration>,
    hasher: ResponseHasher,
}

impl Buyer {
    /// Opens a channel to the provider at `peer`, whose only offer is taken. `number` picks a development account.
    pub async fn open(chain: &Chain, peer: &Peer, number: usize) -> Result<Self> {
        let keys = development_keys();
        let key = keys.get(number).context("not so many development accounts")?;
        let wallet = Wallet::new(chain.clone(), SigningKey::from_bytes(&key.secret)?);
        wallet.mint(wallet.address(), FUNDS).await?;
        wallet.deposit(FUNDS).await?;
        let mut secret = [0x5e; 32];
        if let Some(last) = secret.last_mut() {
            *last = u8::try_from(number)?;
        }
        let node = Node::bind(NodeConfig {
            secret: Zeroizing::new(secret),
            listen: ([127, 0, 0, 1], 0).into(),
            relay: None,
        })
        .await?;
        let OffersResponse::Book(book) = node.offers(peer, &OffersRequest::Browse).await? else {
            bail!("no book came");
        };
        let offer = book.into_iter().next().context("nothing is sold there")?.offer;
        let session = SigningKey::from_bytes(&secret)?;
        let params = ChannelParams {
            payer: wallet.address(),
            signer: session.address(),
            provider: offer.provider,
            model: offer.model,
            token: chain.contracts().token,
            salt: 1,
        };
        wallet.open(&params, FUNDS).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                node,
                peer: peer.clone(),
                offer,
                domain: chain.domain().await?,
                session,
                account: Mutex::new(BuyerAccount::new(params, FUNDS)),
            }),
        })
    }

    /// What was spent so far, in micro-dollars, rounded up.
    pub fn spent(&self) -> Result<MicroDollars> {
        Ok(self.shared.account().spent().round_up()?)
    }

    /// Asks once, for so many tokens. An error says that the request had no outcome.
    pub async fn ask(&self, text: &str, tokens: u64, patience: Duration) -> Result<End> {
        let shared = &self.shared;
        let asked = Instant::now();
        let mut trade = shared.node.trade(&shared.peer).await?.split();
        let job = Job::Completion {
            prompt: text.to_owned(),
            generation: Generation {
                max_tokens: tokens,
                ..Generation::default()
            },
        };
        let request = shared.request(job, asked, patience)?;
        let mut call = Call {
            id: request.id,
            job: request.job.clone(),
            asked,
            input: 0,
            received: 0,
            first: None,
            hasher: ResponseHasher::new(),
        };
        trade.0.send(&BuyerFrame::Request(Box::new(request))).await?;
        loop {
            let frame = tokio::time::timeout(SILENCE, trade.1.next()).await??;
            let frame = frame.context("the provider hung up")?;
            match shared.hear(&mut call, frame)? {
                Heard::On => {}
                Heard::Pay(voucher) => trade.0.send(&BuyerFrame::Voucher(voucher)).await?,
                Heard::End(end) => return Ok(end),
            }
        }
    }

    /// A stream on which nothing has been said yet.
    pub async fn silent(&self) -> Result<Trade<BuyerFrame, SellerFrame>> {
        Ok(self.shared.node.trade(&self.shared.peer).await?)
    }
}

enum Heard {
    On,
    Pay(SignedVoucher),
    End(End),
}

impl Shared {
    fn account(&self) -> MutexGuard<'_, BuyerAccount> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, job: Job, asked: Instant, patience: Duration) -> Result<TradeRequest> {
        let seed = format!("{asked:?} {job:?}");
        let id = RequestId(keccak256(&[&self.session.to_bytes()[..], seed.as_bytes()]));
        let covered = Usage {
            input: job.max_input(),
            output: job.max_output().min(self.offer.chunk),
        };
        let mut account = self.account();
        let voucher = account.reserve(id, self.offer.price.cost(covered))?;
        let channel = *account.params();
        Ok(TradeRequest {
            id,
            channel,
            price: self.offer.price,
            statement: account.statement(),
            voucher: voucher.sign(&self.domain, &self.session),
            delegation: self
                .session
                .sign(&delegation_digest(&self.domain, channel.id(), self.node.caller())),
            patience_ms: u64::try_from(patience.as_millis())?,
            job,
        })
    }

    fn hear(&self, call: &mut Call, frame: SellerFrame) -> Result<Heard> {
        match frame {
            SellerFrame::Accepted { input_units, catch_up } => {
                call.input = input_units;
                for receipt in &catch_up {
                    self.account().settle(receipt, None, &self.domain)?;
                }
                Ok(Heard::On)
            }
            SellerFrame::Refused(refusal) => {
                self.account().release(&call.id);
                Ok(Heard::End(End::Refused(refusal)))
            }
            SellerFrame::VoucherWanted { output_units, .. } => {
                let usage = Usage {
                    input: call.input,
                    output: output_units,
                };
                let voucher = self.account().reserve(call.id, self.offer.price.cost(usage))?;
                Ok(Heard::Pay(voucher.sign(&self.domain, &self.session)))
            }
            SellerFrame::Output(output) => {
                call.first.get_or_insert_with(|| call.asked.elapsed());
                call.received += output.units();
                call.hasher.update(&output);
                Ok(Heard::On)
            }
            SellerFrame::Finished { receipt, failure, .. } => {
                let observed = Observed {
                    price: self.offer.price,
                    request_hash: call.job.hash(call.id),
                    usage: Usage {
                        input: call.input,
                        output: call.received,
                    },
                    response_hash: Some(std::mem::replace(&mut call.hasher, ResponseHasher::new()).finish()),
                };
                self.account().settle(&receipt, Some(&observed), &self.domain)?;
                ensure!(failure.is_none(), "{failure:?}");
                Ok(Heard::End(End::Served {
                    first: call.first.context("nothing arrived")?,
                    units: call.received,
                }))
            }
        }
    }
}
