//! Orders: what a payer signs so that somebody else may send it, and the payer needs no coins for gas.
//!
//! An open out of the free balance, a request to close and a withdrawal are structures of the escrow's own domain, as in
//! `contracts/src/Orders.sol`. Money that is still in the payer's account moves by an authorization of the stablecoin
//! (ERC-3009) in the token's domain; its nonce says what it is for, so that it can be used for nothing else.

use serde::{Deserialize, Serialize};

use crate::{
    Address, ChannelParams, Digest, Domain, MicroDollars, Signature, SigningKey,
    eip712::{DOMAIN_TYPE, Type},
    hash::keccak256,
    signature::SignatureError,
};

static OPEN: Type = Type::new(
    "Open(address payer,address signer,address provider,bytes32 modelId,uint96 salt,uint96 amount,uint256 deadline)",
);
static REQUEST_CLOSE: Type = Type::new("RequestClose(bytes32 channelId,uint256 nonce,uint256 deadline)");
static WITHDRAW: Type = Type::new("Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)");
static DEPOSIT: Type = Type::new("Deposit(address payer,bytes32 salt)");
static RECEIVE: Type = Type::new(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 \
                            validBefore,bytes32 nonce)",
);

/// Most bytes of a token's name or version; longer ones are no stablecoin's.
pub const MAX_TOKEN_NAME: usize = 64;

/// The EIP-712 domain of a stablecoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDomain {
    /// What the token calls itself.
    pub name: String,
    /// The version of its signed structures.
    pub version: String,
    /// The chain's id.
    pub chain_id: u64,
    /// The token's contract.
    pub token: Address,
}

impl TokenDomain {
    /// The domain separator of EIP-712.
    pub fn separator(&self) -> [u8; 32] {
        DOMAIN_TYPE
            .words()
            .right(&keccak256(&[self.name.as_bytes()]))
            .right(&keccak256(&[self.version.as_bytes()]))
            .uint(self.chain_id.into())
            .left(&self.token.0)
            .keccak()
    }

    fn digest(&self, struct_hash: &[u8; 32]) -> Digest {
        Digest(keccak256(&[&[0x19, 0x01], &self.separator(), struct_hash]))
    }
}

/// What a payer wants. Times are in seconds since 1970, by the chain's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Open a channel with money of the free balance. Its id is opened once, so this cannot happen twice.
    Open {
        /// The channel.
        channel: ChannelParams,
        /// What it shall hold.
        amount: MicroDollars,
        /// Void after this.
        deadline: u64,
    },
    /// Open a channel with money of the account. The nonce is the channel's id, so it opens this one or nothing.
    DepositAndOpen {
        /// The channel.
        channel: ChannelParams,
        /// What it shall hold.
        amount: MicroDollars,
        /// Void from this on.
        valid_before: u64,
    },
    /// Move money of the account into the free balance.
    Deposit {
        /// Whose.
        payer: Address,
        /// This much.
        amount: MicroDollars,
        /// Void from this on.
        valid_before: u64,
        /// Chosen at random; each is good for one deposit.
        salt: Digest,
    },
    /// Ask that a channel closes after the challenge period.
    RequestClose {
        /// The channel.
        channel: ChannelParams,
        /// The payer's next nonce in the escrow.
        nonce: u64,
        /// Void after this.
        deadline: u64,
    },
    /// Take money out of the free balance into the payer's account.
    Withdraw {
        /// Whose; also who receives it.
        payer: Address,
        /// This much.
        amount: MicroDollars,
        /// The payer's next nonce in the escrow.
        nonce: u64,
        /// Void after this.
        deadline: u64,
    },
}

impl Order {
    /// Who has to sign it.
    pub fn payer(&self) -> Address {
        match self {
            Self::Open { channel, .. } | Self::DepositAndOpen { channel, .. } | Self::RequestClose { channel, .. } => {
                channel.payer
            }
            Self::Deposit { payer, .. } | Self::Withdraw { payer, .. } => *payer,
        }
    }

    /// The last second in which it is good.
    pub fn good_until(&self) -> u64 {
        match self {
            Self::Open { deadline, .. } | Self::RequestClose { deadline, .. } | Self::Withdraw { deadline, .. } => {
                *deadline
            }
            Self::DepositAndOpen { valid_before, .. } | Self::Deposit { valid_before, .. } => {
                valid_before.saturating_sub(1)
            }
        }
    }

    /// The channel that it is about.
    pub fn channel(&self) -> Option<&ChannelParams> {
        match self {
            Self::Open { channel, .. } | Self::DepositAndOpen { channel, .. } | Self::RequestClose { channel, .. } => {
                Some(channel)
            }
            Self::Deposit { .. } | Self::Withdraw { .. } => None,
        }
    }

    /// The nonce of the token's authorization, for orders that move money out of the account.
    pub fn authorization_nonce(&self) -> Option<Digest> {
        match self {
            Self::DepositAndOpen { channel, .. } => Some(Digest(channel.id().0)),
            Self::Deposit { payer, salt, .. } => Some(deposit_nonce(*payer, *salt)),
            Self::Open { .. } | Self::RequestClose { .. } | Self::Withdraw { .. } => None,
        }
    }

    /// The digest that the payer signs.
    pub fn digest(&self, domain: &Domain, token: &TokenDomain) -> Digest {
        let receive = |from: Address, amount: MicroDollars, valid_before: u64, nonce: [u8; 32]| {
            let authorization = RECEIVE
                .words()
                .left(&from.0)
                .left(&domain.escrow.0)
                .uint(amount.get())
                .uint(0)
                .uint(valid_before.into())
                .right(&nonce);
            token.digest(&authorization.keccak())
        };
        match self {
            Self::Open {
                channel,
                amount,
                deadline,
            } => {
                let open = OPEN
                    .words()
                    .left(&channel.payer.0)
                    .left(&channel.signer.0)
                    .left(&channel.provider.0)
                    .right(&channel.model.0)
                    .uint(channel.salt)
                    .uint(amount.get())
                    .uint((*deadline).into());
                domain.digest(&open.keccak())
            }
            Self::DepositAndOpen {
                channel,
                amount,
                valid_before,
            } => receive(channel.payer, *amount, *valid_before, channel.id().0),
            Self::Deposit {
                payer,
                amount,
                valid_before,
                salt,
            } => receive(*payer, *amount, *valid_before, deposit_nonce(*payer, *salt).0),
            Self::RequestClose {
                channel,
                nonce,
                deadline,
            } => {
                let close = REQUEST_CLOSE
                    .words()
                    .right(&channel.id().0)
                    .uint((*nonce).into())
                    .uint((*deadline).into());
                domain.digest(&close.keccak())
            }
            Self::Withdraw {
                payer,
                amount,
                nonce,
                deadline,
            } => {
                let withdraw = WITHDRAW
                    .words()
                    .left(&payer.0)
                    .uint(amount.get())
                    .uint((*nonce).into())
                    .uint((*deadline).into());
                domain.digest(&withdraw.keccak())
            }
        }
    }

    /// Signs with the payer's key.
    pub fn sign(self, domain: &Domain, token: &TokenDomain, key: &SigningKey) -> SignedOrder {
        SignedOrder {
            signature: key.sign(&self.digest(domain, token)),
            domain: *domain,
            order: self,
        }
    }
}

/// The nonce of the authorization of a deposit: an authorization for a channel has the channel's id instead.
pub fn deposit_nonce(payer: Address, salt: Digest) -> Digest {
    let nonce = DEPOSIT.words().left(&payer.0).right(&salt.0);
    Digest(nonce.keccak())
}

/// An order with its payer's signature. Whoever holds it can have it carried out once, and do nothing else with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrder {
    /// What was signed.
    pub order: Order,
    /// The chain and the escrow that it is for.
    pub domain: Domain,
    /// The payer's signature: in the escrow's domain, or in the token's for what moves money out of the account.
    pub signature: Signature,
}

impl SignedOrder {
    /// Verifies that the payer's own key signed it. A payer that is a contract has none; the escrow asks such a payer
    /// itself.
    pub fn verify(&self, token: &TokenDomain) -> Result<(), SignatureError> {
        let key = self.signature.recover(&self.order.digest(&self.domain, token))?;
        if key.address() == self.order.payer() {
            Ok(())
        } else {
            Err(SignatureError::WrongSigner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelId;

    fn domain() -> Domain {
        Domain {
            chain_id: 31_337,
            escrow: Address([3; 20]),
        }
    }

    fn token() -> TokenDomain {
        TokenDomain {
            name: "Rialto Test Dollar".into(),
            version: "1".into(),
            chain_id: 31_337,
            token: Address([4; 20]),
        }
    }

    fn orders(payer: Address) -> [Order; 5] {
        let channel = ChannelParams {
            payer,
            signer: Address([5; 20]),
            provider: Address([6; 20]),
            model: ModelId([7; 32]),
            token: Address([4; 20]),
            salt: 8,
        };
        let (amount, deadline, nonce) = (MicroDollars::new(9), 10, 11);
        [
            Order::Open {
                channel,
                amount,
                deadline,
            },
            Order::DepositAndOpen {
                channel,
                amount,
                valid_before: 10,
            },
            Order::Deposit {
                payer,
                amount,
                valid_before: 10,
                salt: Digest([12; 32]),
            },
            Order::RequestClose {
                channel,
                nonce,
                deadline,
            },
            Order::Withdraw {
                payer,
                amount,
                nonce,
                deadline,
            },
        ]
    }

    #[test]
    fn an_order_is_its_payers_alone_in_its_domain_alone_and_survives_travel() {
        let (key, thief) = (
            SigningKey::from_bytes(&[1; 32]).unwrap(),
            SigningKey::from_bytes(&[2; 32]).unwrap(),
        );
        let mut digests = std::collections::BTreeSet::new();
        for order in orders(key.address()) {
            let signed = order.sign(&domain(), &token(), &key);
            signed.verify(&token()).unwrap();
            assert!(digests.insert(order.digest(&domain(), &token())));
            let stolen = order.sign(&domain(), &token(), &thief);
            assert_eq!(stolen.verify(&token()), Err(SignatureError::WrongSigner));
            let elsewhere = SignedOrder {
                domain: Domain {
                    escrow: Address([9; 20]),
                    ..domain()
                },
                ..signed
            };
            assert!(elsewhere.verify(&token()).is_err());
            if order.authorization_nonce().is_some() {
                let other = TokenDomain {
                    version: "2".into(),
                    ..token()
                };
                assert!(signed.verify(&other).is_err(), "it is the token's domain that counts");
            }
            let text = serde_json::to_string(&signed).unwrap();
            assert_eq!(serde_json::from_str::<SignedOrder>(&text).unwrap(), signed);
            let bytes = postcard::to_stdvec(&signed).unwrap();
            assert_eq!(postcard::from_bytes::<SignedOrder>(&bytes).unwrap(), signed);
        }
    }

    #[test]
    fn an_authorization_is_good_for_one_second_less_than_it_says() {
        let [open, with_deposit, ..] = orders(Address([1; 20]));
        assert_eq!((open.good_until(), with_deposit.good_until()), (10, 9));
    }
}
