//! Between the market's types and the chain's.

use alloy::primitives::{
    Address as EvmAddress, B256, U256, Uint,
    aliases::{U40, U96},
};
use rialto_protocol::{Address, ChannelParams, Digest, MicroDollars, money::MAX_MICRO};

use crate::{Error, bindings};

pub(crate) fn to_evm(address: Address) -> EvmAddress {
    EvmAddress::from(address.0)
}

pub(crate) fn from_evm(address: EvmAddress) -> Address {
    Address(address.0.0)
}

pub(crate) fn digest(hash: B256) -> Digest {
    Digest(hash.0)
}

pub(crate) fn to_u96(amount: MicroDollars) -> U96 {
    Uint::from_be_bytes(amount.to_be_bytes12())
}

/// An amount of stablecoin; no honest token has more than 96 bits of it.
pub(crate) fn micro(value: U256, what: &str) -> Result<MicroDollars, Error> {
    u128::try_from(value)
        .ok()
        .and_then(|value| MicroDollars::try_from(value).ok())
        .ok_or_else(|| Error::corrupt(format!("{what} of more than 96 bits")))
}

pub(crate) fn micro96(value: U96) -> Result<MicroDollars, Error> {
    micro(U256::from(value), "an amount")
}

pub(crate) fn seconds(value: U40) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Twelve big-endian bytes as an amount.
pub(crate) fn micro12(bytes: &[u8]) -> Option<MicroDollars> {
    let bytes: [u8; 12] = bytes.try_into().ok()?;
    micro96(U96::from_be_bytes(bytes)).ok()
}

pub(crate) fn channel_params(params: &ChannelParams) -> Result<bindings::ChannelParams, Error> {
    Ok(bindings::ChannelParams {
        payer: to_evm(params.payer),
        signer: to_evm(params.signer),
        provider: to_evm(params.provider),
        modelId: B256::from(params.model.0),
        salt: salt(params)?,
    })
}

/// A channel's salt; one above 96 bits would have another id here than on chain.
pub(crate) fn salt(params: &ChannelParams) -> Result<U96, Error> {
    if params.salt > MAX_MICRO {
        return Err(Error::invalid("a channel's salt has at most 96 bits"));
    }
    Ok(U96::from_be_bytes(params.salt_bytes12()))
}
