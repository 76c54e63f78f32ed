//! Vouchers signed and verified by one core, with EIP-712 hashing and the ledgers of both sides.

use anyhow::Result;
use rialto_benches::{Report, median, seconds};
use rialto_protocol::{
    Address, ChannelParams, Domain, MicroDollars, ModelId, NanoDollars, RequestId, SignedVoucher, SigningKey,
    account::{BuyerAccount, SellerAccount},
    voucher::VoucherVerifier,
};

const VOUCHERS: u64 = 20_000;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let session = SigningKey::from_bytes(&[1; 32])?;
    let provider = SigningKey::from_bytes(&[2; 32])?;
    let domain = Domain {
        chain_id: 31_337,
        escrow: Address([3; 20]),
    };
    let params = ChannelParams {
        payer: Address([4; 20]),
        signer: session.address(),
        provider: provider.address(),
        model: ModelId([5; 32]),
        token: Address([6; 20]),
        salt: 1,
    };
    let (mut signing, mut verifying) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (spent, vouchers) = seconds(|| sign(&params, &domain, &session));
        let vouchers = vouchers?;
        signing.push(per_second(spent));
        let (spent, verified) = seconds(|| verify(&params, &domain, &vouchers));
        verified?;
        verifying.push(per_second(spent));
    }
    let mut report = Report::new("vouchers");
    report.row(
        "signed by one core: ledger, hash, signature",
        median(signing),
        "per second",
    );
    report.row(
        "verified by one core: hash, signature, ledger",
        median(verifying),
        "per second",
    );
    report.finish()
}

fn per_second(seconds: f64) -> f64 {
    f64::from(u32::try_from(VOUCHERS).unwrap_or(u32::MAX)) / seconds
}

fn sign(params: &ChannelParams, domain: &Domain, key: &SigningKey) -> Result<Vec<SignedVoucher>> {
    let mut account = BuyerAccount::new(*params, MicroDollars::MAX);
    let request = RequestId([7; 32]);
    (1..=VOUCHERS)
        .map(|number| {
            Ok(account
                .reserve(request, NanoDollars(u128::from(number) * 1_000))?
                .sign(domain, key))
        })
        .collect()
}

fn verify(params: &ChannelParams, domain: &Domain, vouchers: &[SignedVoucher]) -> Result<()> {
    let mut account = SellerAccount::new(*params, MicroDollars::MAX);
    let mut verifier = VoucherVerifier::new(*domain, params.signer);
    let request = RequestId([7; 32]);
    for (number, voucher) in (1u128..).zip(vouchers) {
        verifier.verify(voucher)?;
        account.reserve(request, NanoDollars(number * 1_000), voucher)?;
    }
    Ok(())
}
