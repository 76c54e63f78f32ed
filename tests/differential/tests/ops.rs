//! Everything that somebody can ask of the contracts in a trace.

use alloy::{
    primitives::{Address as EvmAddress, B256, Bytes, U256, aliases::U96},
    sol_types::SolCall,
};
use rialto_protocol::{Address, ChannelParams, ModelId};

use crate::{
    abi::{self, Escrow, Models, Token},
    evm::Contracts,
};

/// One call; who sends it is beside it. In what only a payer does, the payer of the parameters is not sent.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Approve {
        amount: U256,
    },
    Deposit {
        amount: u128,
    },
    DepositWithPermit {
        payer: Address,
        amount: u128,
        deadline: u64,
        signature: [u8; 65],
    },
    DepositWithAuthorization {
        payer: Address,
        amount: u128,
        window: (u64, u64),
        salt: [u8; 32],
        signature: [u8; 65],
    },
    Open {
        params: ChannelParams,
        amount: u128,
    },
    OpenWithSig {
        params: ChannelParams,
        amount: u128,
        signature: [u8; 65],
        deadline: u64,
    },
    DepositAndOpen {
        params: ChannelParams,
        amount: u128,
    },
    DepositAndOpenWithAuthorization {
        params: ChannelParams,
        amount: u128,
        window: (u64, u64),
        signature: [u8; 65],
    },
    TopUp {
        params: ChannelParams,
        amount: u128,
    },
    Redeem {
        groups: Vec<(ModelId, Bytes)>,
    },
    CloseByProvider {
        params: ChannelParams,
    },
    RequestClose {
        params: ChannelParams,
    },
    RequestCloseWithSig {
        params: ChannelParams,
        signature: [u8; 65],
        deadline: u64,
    },
    CancelClose {
        params: ChannelParams,
    },
    FinalizeClose {
        params: ChannelParams,
    },
    Withdraw {
        amount: u128,
    },
    WithdrawWithSig {
        payer: Address,
        amount: u128,
        signature: [u8; 65],
        deadline: u64,
    },
    ClaimCredit {
        account: Address,
    },
    ClaimFees {
        holders: Vec<Address>,
    },
    Pause,
    EndPause,
    SetRoyalty {
        model: ModelId,
        bps: u16,
    },
    SellModel {
        model: ModelId,
        from: Address,
        to: Address,
    },
}

/// An account as the EVM's libraries write it.
pub(crate) fn evm(address: Address) -> EvmAddress {
    EvmAddress::new(address.0)
}

fn u96(amount: u128) -> U96 {
    U96::from(amount)
}

fn parts(signature: &[u8; 65]) -> (u8, B256, B256) {
    let [r @ .., _] = signature;
    let (r, s) = r.split_at(32);
    (signature[64], B256::from_slice(r), B256::from_slice(s))
}

fn params(params: &ChannelParams) -> abi::ChannelParams {
    abi::ChannelParams {
        payer: evm(params.payer),
        signer: evm(params.signer),
        provider: evm(params.provider),
        modelId: B256::new(params.model.0),
        salt: u96(params.salt),
    }
}

impl Op {
    /// The contract that is called, and with what.
    pub(crate) fn encode(&self, contracts: &Contracts) -> (EvmAddress, Vec<u8>) {
        match self {
            Self::Approve { amount } => {
                let (spender, value) = (contracts.escrow, *amount);
                (contracts.token, Token::approveCall { spender, value }.abi_encode())
            }
            Self::SetRoyalty { model, bps } => {
                let (model, bps) = (B256::new(model.0), *bps);
                let call = Models::setRoyaltyCall {
                    modelId: model,
                    royaltyBps: bps,
                };
                (contracts.models, call.abi_encode())
            }
            Self::SellModel { model, from, to } => {
                let (from, to, token) = (evm(*from), evm(*to), U256::from_be_bytes(model.0));
                let call = Models::transferFromCall {
                    from,
                    to,
                    tokenId: token,
                };
                (contracts.models, call.abi_encode())
            }
            _ => (contracts.escrow, self.encode_escrow()),
        }
    }

    fn encode_escrow(&self) -> Vec<u8> {
        match self.clone() {
            Self::Deposit { amount } => Escrow::depositCall { amount: u96(amount) }.abi_encode(),
            Self::Withdraw { amount } => Escrow::withdrawCall { amount: u96(amount) }.abi_encode(),
            Self::ClaimCredit { account } => Escrow::claimCreditCall { account: evm(account) }.abi_encode(),
            Self::ClaimFees { holders } => {
                let holders = holders.into_iter().map(evm).collect();
                Escrow::claimFeesCall { holders }.abi_encode()
            }
            Self::Pause => Escrow::pauseCall {}.abi_encode(),
            Self::EndPause => Escrow::endPauseCall {}.abi_encode(),
            Self::CloseByProvider { params: p } => Escrow::closeByProviderCall { params: params(&p) }.abi_encode(),
            Self::FinalizeClose { params: p } => Escrow::finalizeCloseCall { params: params(&p) }.abi_encode(),
            Self::Redeem { groups } => {
                let group = |(model, claims): (ModelId, Bytes)| abi::Group {
                    modelId: B256::new(model.0),
                    claims,
                };
                let groups = groups.into_iter().map(group).collect();
                Escrow::redeemCall { groups }.abi_encode()
            }
            Self::Open { .. }
            | Self::DepositAndOpen { .. }
            | Self::TopUp { .. }
            | Self::RequestClose { .. }
            | Self::CancelClose { .. } => self.encode_own(),
            _ => self.encode_signed(),
        }
    }

    /// What a payer asks for itself.
    fn encode_own(&self) -> Vec<u8> {
        let (Self::Open { params: p, .. }
        | Self::DepositAndOpen { params: p, .. }
        | Self::TopUp { params: p, .. }
        | Self::RequestClose { params: p }
        | Self::CancelClose { params: p }) = self
        else {
            return Vec::new();
        };
        let abi::ChannelParams {
            signer,
            provider,
            modelId,
            salt,
            ..
        } = params(p);
        match *self {
            Self::Open { amount, .. } => Escrow::openCall {
                signer,
                provider,
                modelId,
                salt,
                amount: u96(amount),
            }
            .abi_encode(),
            Self::DepositAndOpen { amount, .. } => Escrow::depositAndOpenCall {
                signer,
                provider,
                modelId,
                salt,
                amount: u96(amount),
            }
            .abi_encode(),
            Self::TopUp { amount, .. } => Escrow::topUpCall {
                signer,
                provider,
                modelId,
                salt,
                amount: u96(amount),
            }
            .abi_encode(),
            Self::RequestClose { .. } => Escrow::requestCloseCall {
                signer,
                provider,
                modelId,
                salt,
            }
            .abi_encode(),
            _ => Escrow::cancelCloseCall {
                signer,
                provider,
                modelId,
                salt,
            }
            .abi_encode(),
        }
    }

    /// What a payer signed and anybody sends.
    fn encode_signed(&self) -> Vec<u8> {
        match self.clone() {
            Self::DepositWithPermit {
                payer,
                amount,
                deadline,
                signature,
            } => {
                let ((v, r, s), deadline) = (parts(&signature), U256::from(deadline));
                let (payer, amount) = (evm(payer), u96(amount));
                Escrow::depositWithPermitCall {
                    payer,
                    amount,
                    deadline,
                    v,
                    r,
                    s,
                }
                .abi_encode()
            }
            Self::DepositWithAuthorization {
                payer,
                amount,
                window,
                salt,
                signature,
            } => {
                let (v, r, s) = parts(&signature);
                let call = Escrow::depositWithAuthorizationCall {
                    payer: evm(payer),
                    amount: u96(amount),
                    validAfter: U256::from(window.0),
                    validBefore: U256::from(window.1),
                    salt: B256::new(salt),
                    v,
                    r,
                    s,
                };
                call.abi_encode()
            }
            Self::DepositAndOpenWithAuthorization {
                params: p,
                amount,
                window,
                signature,
            } => {
                let (v, r, s) = parts(&signature);
                let call = Escrow::depositAndOpenWithAuthorizationCall {
                    params: params(&p),
                    amount: u96(amount),
                    validAfter: U256::from(window.0),
                    validBefore: U256::from(window.1),
                    v,
                    r,
                    s,
                };
                call.abi_encode()
            }
            Self::OpenWithSig {
                params: p,
                amount,
                signature,
                deadline,
            } => {
                let (params, amount, deadline) = (params(&p), u96(amount), U256::from(deadline));
                let signature = Bytes::from(signature);
                Escrow::openWithSigCall {
                    params,
                    amount,
                    signature,
                    deadline,
                }
                .abi_encode()
            }
            Self::RequestCloseWithSig {
                params: p,
                signature,
                deadline,
            } => {
                let (params, deadline, signature) = (params(&p), U256::from(deadline), Bytes::from(signature));
                Escrow::requestCloseWithSigCall {
                    params,
                    signature,
                    deadline,
                }
                .abi_encode()
            }
            Self::WithdrawWithSig {
                payer,
                amount,
                signature,
                deadline,
            } => {
                let (payer, amount, deadline) = (evm(payer), u96(amount), U256::from(deadline));
                let signature = Bytes::from(signature);
                Escrow::withdrawWithSigCall {
                    payer,
                    amount,
                    signature,
                    deadline,
                }
                .abi_encode()
            }
            _ => Vec::new(),
        }
    }
}
