//! The ten funded development accounts, whose keys the whole world knows.

use alloy::{
    consensus::{SignableTransaction, TxEnvelope, TypedTransaction},
    primitives::{Address, B256, U256, address, b256},
    signers::{SignerSync, local::PrivateKeySigner},
};
use zeroize::Zeroizing;

/// What each development account holds at genesis: 10,000 ether, in wei.
pub(crate) const FUNDS: U256 = U256::from_limbs([0x19e0_c9ba_b240_0000, 0x21e, 0, 0]);

/// The public test mnemonic's accounts (`test test … junk`, path `m/44'/60'/0'/0/0` to `/9`), the same that
/// other development chains fund, so that scripts work on both.
const PUBLIC: [(Address, B256); 10] = [
    (
        address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"),
    ),
    (
        address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        b256!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"),
    ),
    (
        address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        b256!("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"),
    ),
    (
        address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
        b256!("7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"),
    ),
    (
        address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
        b256!("47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"),
    ),
    (
        address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
        b256!("8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba"),
    ),
    (
        address!("976EA74026E726554dB657fA54763abd0C3a0aa9"),
        b256!("92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e"),
    ),
    (
        address!("14dC79964da2C08b23698B3D3cc7Ca32193d9955"),
        b256!("4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356"),
    ),
    (
        address!("23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f"),
        b256!("dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97"),
    ),
    (
        address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720"),
        b256!("2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6"),
    ),
];

/// One funded account of the development chain.
///
/// **The secret is public knowledge.** It is printed by every development chain there is; anything sent to this
/// address on a public chain is taken by somebody within seconds.
#[derive(Clone)]
pub struct DevelopmentKey {
    /// The account's address, funded with 10,000 ether at genesis.
    pub address: Address,
    /// The account's secp256k1 secret key, 32 bytes, big endian.
    pub secret: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for DevelopmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Public or not, a key that is never formatted cannot be copied into a log as a habit.
        f.debug_struct("DevelopmentKey")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The ten accounts that every new chain funds with 10,000 ether each.
///
/// Their keys are public knowledge: use them on this chain and nowhere else.
pub fn development_keys() -> [DevelopmentKey; 10] {
    PUBLIC.map(|(address, secret)| DevelopmentKey {
        address,
        secret: Zeroizing::new(secret.0),
    })
}

/// The addresses of the funded accounts, in order.
pub(crate) fn addresses() -> [Address; 10] {
    PUBLIC.map(|(address, _)| address)
}

/// Signs `transaction` for a development account; `None` when `from` is not one of them.
pub(crate) fn sign(from: Address, transaction: TypedTransaction) -> Option<TxEnvelope> {
    let (_, secret) = PUBLIC.iter().find(|(address, _)| *address == from)?;
    let signer = PrivateKeySigner::from_bytes(secret).ok()?;
    let signature = signer.sign_hash_sync(&transaction.signature_hash()).ok()?;
    Some(transaction.into_envelope(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_belongs_to_its_address() {
        for key in development_keys() {
            let signer = PrivateKeySigner::from_slice(key.secret.as_slice()).unwrap();
            assert_eq!(signer.address(), key.address);
        }
    }

    #[test]
    fn funds_are_ten_thousand_ether() {
        assert_eq!(FUNDS, U256::from(10_000u64) * U256::from(10u64).pow(U256::from(18u64)));
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", development_keys());
        assert!(!text.contains("ac0974") && !text.contains("172, 9, 116"));
    }
}
