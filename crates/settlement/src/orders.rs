//! Signed orders: a payer without coins for gas signs, and whoever has some sends.

use alloy::{
    primitives::{B256, Bytes, U64, U256},
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use rialto_protocol::{
    Address, ChannelParams, Digest, MicroDollars,
    order::{MAX_TOKEN_NAME, Order, SignedOrder, TokenDomain},
};

use crate::{
    Chain, Confirmed, Error, Wallet, abi,
    bindings::{Escrow, TestDollar, Versioned},
};

/// The domain's fields that a stablecoin must have and no others: name, version, chain and contract (ERC-5267).
const FOUR_FIELDS: u8 = 0x0f;

/// Where the money of a new channel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funds {
    /// The payer's free balance in the escrow.
    FreeBalance,
    /// Stablecoin in the payer's account.
    Account,
}

/// What relaying an order would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relaying {
    /// Gas, as the node estimates it.
    pub gas: u64,
    /// What that costs at most now, in wei.
    pub cost: u128,
}

impl Chain {
    /// The domain in which the market's stablecoin reads signatures. Only its names are believed: chain and contract
    /// are the market's.
    pub async fn token_domain(&self) -> Result<TokenDomain, Error> {
        let domain = self.domain().await?;
        let token = self.contracts().token;
        let (name, version) = match self.token(&TestDollar::eip712DomainCall {}).await {
            Ok(said) => {
                let fields: u8 = said.fields.0[0];
                let ours = said.chainId == U256::from(domain.chain_id)
                    && said.verifyingContract == abi::to_evm(token)
                    && fields == FOUR_FIELDS
                    && said.extensions.is_empty();
                if !ours {
                    return Err(Error::corrupt("the stablecoin's domain"));
                }
                (said.name, said.version)
            }
            // Older stablecoins have no ERC-5267.
            Err(Error::Reverted { .. } | Error::NoContract { .. }) => {
                let name = self.token(&TestDollar::nameCall {}).await?;
                (name, self.token(&Versioned::versionCall {}).await?)
            }
            Err(error) => return Err(error),
        };
        if name.len() > MAX_TOKEN_NAME || version.len() > MAX_TOKEN_NAME {
            return Err(Error::corrupt("the stablecoin's name"));
        }
        Ok(TokenDomain {
            name,
            version,
            chain_id: domain.chain_id,
            token,
        })
    }

    /// An account's next nonce for orders of the escrow's own.
    pub async fn order_nonce(&self, account: Address) -> Result<u64, Error> {
        let owner = abi::to_evm(account);
        let nonce = self.escrow(&Escrow::noncesCall { owner }).await?;
        u64::try_from(nonce).map_err(|_| Error::corrupt("a nonce of more than 64 bits"))
    }

    /// Whether the token's authorization in an order was used or cancelled; `false` for an order that has none.
    pub async fn authorization_used(&self, order: &Order) -> Result<bool, Error> {
        let Some(nonce) = order.authorization_nonce() else {
            return Ok(false);
        };
        let call = TestDollar::authorizationStateCall {
            authorizer: abi::to_evm(order.payer()),
            nonce: B256::from(nonce.0),
        };
        self.token(&call).await
    }
}

impl Wallet {
    /// Signs an order to open a channel of this account. Nothing is sent; the escrow accepts it until the order's time is
    /// over, once.
    pub async fn sign_open(
        &self,
        params: &ChannelParams,
        amount: MicroDollars,
        funds: Funds,
        good_until: u64,
    ) -> Result<SignedOrder, Error> {
        self.check_own(params)?;
        let channel = *params;
        self.signed(match funds {
            Funds::FreeBalance => Order::Open {
                channel,
                amount,
                deadline: good_until,
            },
            Funds::Account => Order::DepositAndOpen {
                channel,
                amount,
                valid_before: good_until.saturating_add(1),
            },
        })
        .await
    }

    /// Signs an order that moves stablecoin from this account into its free balance.
    pub async fn sign_deposit(&self, amount: MicroDollars, good_until: u64) -> Result<SignedOrder, Error> {
        self.signed(Order::Deposit {
            payer: self.address(),
            amount,
            valid_before: good_until.saturating_add(1),
            salt: Digest(rand::random()),
        })
        .await
    }

    /// Signs an order to close a channel of this account. Orders with a nonce are carried out one after another: sign the
    /// next one when this one was.
    pub async fn sign_request_close(&self, params: &ChannelParams, good_until: u64) -> Result<SignedOrder, Error> {
        self.check_own(params)?;
        self.signed(Order::RequestClose {
            channel: *params,
            nonce: self.chain().order_nonce(self.address()).await?,
            deadline: good_until,
        })
        .await
    }

    /// Signs an order to take money out of the free balance into this account; as to nonces see
    /// [`Self::sign_request_close`].
    pub async fn sign_withdraw(&self, amount: MicroDollars, good_until: u64) -> Result<SignedOrder, Error> {
        self.signed(Order::Withdraw {
            payer: self.address(),
            amount,
            nonce: self.chain().order_nonce(self.address()).await?,
            deadline: good_until,
        })
        .await
    }

    async fn signed(&self, order: Order) -> Result<SignedOrder, Error> {
        let domain = self.chain().domain().await?;
        let token = self.chain().token_domain().await?;
        Ok(SignedOrder {
            signature: self.sender.sign_digest(&order.digest(&domain, &token)),
            domain,
            order,
        })
    }

    /// What it would take this account to send somebody's order. Fails with [`Error::Reverted`] or
    /// [`Error::InsufficientFunds`] as the transaction would.
    pub async fn try_order(&self, signed: &SignedOrder) -> Result<Relaying, Error> {
        self.check_order(signed).await?;
        self.estimate(calldata(signed)?).await
    }

    /// Sends somebody's order and pays its gas, if that is not more than `max_cost` wei. It is tried first, without a
    /// transaction; whatever would be refused, or is too dear, is not sent.
    pub async fn relay(&self, signed: &SignedOrder, max_cost: u128) -> Result<Confirmed, Error> {
        self.check_order(signed).await?;
        self.send_within(calldata(signed)?, max_cost).await
    }

    /// As [`Self::finalize_close`] for somebody else, if its gas does not cost more than `max_cost` wei. It is tried
    /// first, as in [`Self::relay`].
    pub async fn finalize_close_within(&self, params: &ChannelParams, max_cost: u128) -> Result<Confirmed, Error> {
        let params = self.of_market(params)?;
        let input = Escrow::finalizeCloseCall { params }.abi_encode();
        self.send_within(input.into(), max_cost).await
    }

    async fn send_within(&self, input: Bytes, max_cost: u128) -> Result<Confirmed, Error> {
        let needed = self.estimate(input.clone()).await?;
        if needed.cost > max_cost {
            let gas = u128::from(needed.gas.max(1));
            return Err(Error::TooExpensive {
                price: needed.cost / gas,
                limit: max_cost / gas,
            });
        }
        self.send_raw(self.chain().contracts().escrow, input).await
    }

    async fn check_order(&self, signed: &SignedOrder) -> Result<(), Error> {
        let domain = self.chain().domain().await?;
        if signed.domain != domain {
            return Err(Error::invalid("the order is for another chain or escrow"));
        }
        if let Some(channel) = signed.order.channel() {
            self.of_market(channel)?;
        }
        Ok(())
    }

    async fn estimate(&self, input: Bytes) -> Result<Relaying, Error> {
        let link = &self.chain().link;
        let request = TransactionRequest::default()
            .from(abi::to_evm(self.address()))
            .to(abi::to_evm(self.chain().contracts().escrow))
            .input(input.into());
        let gas: U64 = link.rpc.request("eth_estimateGas", (request,)).await?;
        let gas: u64 = gas.to();
        let market = link.market().await?;
        // As a transaction offers: room for the base fee to double, and a quarter more gas.
        let price = market.base.saturating_mul(2).saturating_add(market.tip);
        let cost = u128::from(gas.saturating_add(gas / 4)).saturating_mul(price);
        Ok(Relaying { gas, cost })
    }
}

/// The call of the escrow that carries an order out.
fn calldata(signed: &SignedOrder) -> Result<Bytes, Error> {
    let signature = signed.signature.to_bytes();
    let (r, s, v) = parts(&signature);
    let whole = || Bytes::copy_from_slice(&signature);
    let encoded = match signed.order {
        Order::Open {
            channel,
            amount,
            deadline,
        } => Escrow::openWithSigCall {
            params: abi::channel_params(&channel)?,
            amount: abi::to_u96(amount),
            signature: whole(),
            deadline: U256::from(deadline),
        }
        .abi_encode(),
        Order::DepositAndOpen {
            channel,
            amount,
            valid_before,
        } => Escrow::depositAndOpenWithAuthorizationCall {
            params: abi::channel_params(&channel)?,
            amount: abi::to_u96(amount),
            validAfter: U256::ZERO,
            validBefore: U256::from(valid_before),
            v,
            r,
            s,
        }
        .abi_encode(),
        Order::Deposit {
            payer,
            amount,
            valid_before,
            salt,
        } => Escrow::depositWithAuthorizationCall {
            payer: abi::to_evm(payer),
            amount: abi::to_u96(amount),
            validAfter: U256::ZERO,
            validBefore: U256::from(valid_before),
            salt: B256::from(salt.0),
            v,
            r,
            s,
        }
        .abi_encode(),
        Order::RequestClose { channel, deadline, .. } => Escrow::requestCloseWithSigCall {
            params: abi::channel_params(&channel)?,
            signature: whole(),
            deadline: U256::from(deadline),
        }
        .abi_encode(),
        Order::Withdraw {
            payer,
            amount,
            deadline,
            ..
        } => Escrow::withdrawWithSigCall {
            payer: abi::to_evm(payer),
            amount: abi::to_u96(amount),
            signature: whole(),
            deadline: U256::from(deadline),
        }
        .abi_encode(),
    };
    Ok(encoded.into())
}

fn parts(signature: &[u8; 65]) -> (B256, B256, u8) {
    let (r, rest) = signature.split_at(32);
    let (s, v) = rest.split_at(32);
    let v = v.first().copied().unwrap_or_default();
    (B256::from_slice(r), B256::from_slice(s), v)
}
