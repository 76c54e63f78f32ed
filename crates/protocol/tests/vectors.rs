//! The hashes and signatures of this crate against those of the contracts: `contracts/vectors/eip712.json`, which the
//! Solidity tests write and check.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it cannot go on")]

use std::{collections::BTreeMap, path::Path};

use rialto_protocol::{
    Address, ChannelParams, Digest, Domain, MicroDollars, NanoDollars, Receipt, ReceiptStatus, Region, Signature,
    SigningKey, Usage, Voucher, claim::Claim, hash::keccak256, manifest::model_id,
};
use serde::Deserialize;

/// One vector: names and values, all texts.
type Fields = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    domain: Fields,
    type_hashes: Fields,
    models: Vec<Fields>,
    channels: Vec<Fields>,
    vouchers: Vec<Fields>,
    receipts: Vec<Fields>,
    claims: Vec<Fields>,
}

fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/vectors/eip712.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn get<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields
        .get(name)
        .unwrap_or_else(|| panic!("the vector has no field {name}"))
}

/// Reads a field of any type that is read from text.
fn parse<T: std::str::FromStr>(fields: &Fields, name: &str) -> T {
    let text = get(fields, name);
    text.parse().unwrap_or_else(|_| panic!("field {name}: {text}"))
}

fn micro(fields: &Fields, name: &str) -> MicroDollars {
    MicroDollars::try_from(parse::<u128>(fields, name)).unwrap()
}

fn nano(fields: &Fields, name: &str) -> NanoDollars {
    NanoDollars(parse(fields, name))
}

fn bytes(fields: &Fields, name: &str) -> Vec<u8> {
    hex::decode(get(fields, name).trim_start_matches("0x")).unwrap()
}

fn key(fields: &Fields) -> SigningKey {
    SigningKey::from_bytes(&parse::<Digest>(fields, "key").0).unwrap()
}

fn domain(vectors: &Vectors) -> Domain {
    Domain {
        chain_id: parse(&vectors.domain, "chainId"),
        escrow: parse(&vectors.domain, "verifyingContract"),
    }
}

fn params(fields: &Fields) -> ChannelParams {
    ChannelParams {
        payer: parse(fields, "payer"),
        signer: parse(fields, "signer"),
        provider: parse(fields, "provider"),
        model: parse(fields, "modelId"),
        token: parse(fields, "token"),
        salt: parse(fields, "salt"),
    }
}

/// Checks a signature in both of its forms, and that it is the one that the key makes here.
fn check_signature(fields: &Fields, digest: Digest) {
    assert_eq!(digest, parse(fields, "digest"));
    let key = key(fields);
    let signer: Address = parse(fields, "signedBy");
    assert_eq!(key.address(), signer);
    let signature = Signature::from_bytes(&bytes(fields, "signature")).unwrap();
    assert_eq!(signature.to_compact().as_slice(), bytes(fields, "compact"));
    assert_eq!(signature.recover(&digest).unwrap().address(), signer);
    assert_eq!(key.sign(&digest), signature, "the signature is deterministic");
}

#[test]
fn the_domain_and_the_types_are_the_same() {
    let vectors = vectors();
    assert_eq!(get(&vectors.domain, "name"), rialto_protocol::eip712::NAME);
    assert_eq!(get(&vectors.domain, "version"), rialto_protocol::eip712::VERSION);
    let separator: Digest = parse(&vectors.domain, "separator");
    assert_eq!(domain(&vectors).separator(), separator.0);
    let voucher = "Voucher(bytes32 channelId,uint96 cumulative,bytes32 receiptsHead)";
    let hash: Digest = parse(&vectors.type_hashes, "voucher");
    assert_eq!(keccak256(&[voucher.as_bytes()]), hash.0);
}

#[test]
fn ids_of_models_and_channels_are_the_same() {
    let vectors = vectors();
    for fields in &vectors.models {
        let id = model_id(parse(fields, "publisher"), parse(fields, "manifestHash"));
        assert_eq!(id, parse(fields, "modelId"));
    }
    for fields in &vectors.channels {
        assert_eq!(params(fields).id(), parse(fields, "channelId"));
    }
    assert!(vectors.models.len() >= 3 && vectors.channels.len() >= 4);
}

#[test]
fn vouchers_are_the_same() {
    let vectors = vectors();
    for fields in &vectors.vouchers {
        let voucher = Voucher {
            channel: parse(fields, "channelId"),
            cumulative: micro(fields, "cumulative"),
            receipts_head: parse(fields, "receiptsHead"),
        };
        assert_eq!(voucher.struct_hash(), parse::<Digest>(fields, "structHash").0);
        check_signature(fields, voucher.digest(&domain(&vectors)));
    }
    assert!(vectors.vouchers.len() >= 5);
}

fn status(fields: &Fields) -> Option<ReceiptStatus> {
    match parse::<u8>(fields, "status") {
        0 => Some(ReceiptStatus::Complete),
        1 => Some(ReceiptStatus::Cancelled),
        2 => Some(ReceiptStatus::Failed),
        3 => Some(ReceiptStatus::Interrupted),
        // The contract takes numbers that have no meaning yet.
        _ => None,
    }
}

fn receipt(fields: &Fields) -> Option<Receipt> {
    Some(Receipt {
        channel: parse(fields, "channelId"),
        sequence: parse(fields, "sequence"),
        request: parse(fields, "requestId"),
        model: parse(fields, "modelId"),
        request_hash: parse(fields, "requestHash"),
        response_hash: parse(fields, "responseHash"),
        usage: Usage {
            input: parse(fields, "inputUnits"),
            output: parse(fields, "outputUnits"),
        },
        cost: nano(fields, "costNano"),
        total: nano(fields, "totalNano"),
        status: status(fields)?,
        finished_at: parse(fields, "finishedAt"),
        region: parse::<Region>(fields, "region"),
        energy_millijoules: parse(fields, "energyMillijoules"),
        fingerprint_root: parse(fields, "fingerprintRoot"),
        previous_head: parse(fields, "previousHead"),
    })
}

#[test]
fn receipts_and_their_running_hash_are_the_same() {
    let vectors = vectors();
    let receipts: Vec<_> = vectors
        .receipts
        .iter()
        .filter_map(|fields| Some((fields, receipt(fields)?)))
        .collect();
    for (fields, receipt) in &receipts {
        assert_eq!(receipt.struct_hash(), parse::<Digest>(fields, "structHash").0);
        assert_eq!(receipt.head(), parse(fields, "head"));
        check_signature(fields, receipt.digest(&domain(&vectors)));
    }
    assert!(receipts.len() >= 3, "too few receipts with a known status");
}

#[test]
fn packed_claims_are_the_same() {
    let vectors = vectors();
    for fields in &vectors.claims {
        let channel = params(fields);
        let voucher = Voucher {
            channel: channel.id(),
            cumulative: micro(fields, "cumulative"),
            receipts_head: parse(fields, "receiptsHead"),
        };
        let claim = Claim {
            channel,
            voucher: voucher.sign(&domain(&vectors), &key(fields)),
            amount: micro(fields, "amount"),
        };
        assert_eq!(claim.pack().as_slice(), bytes(fields, "packed"));
    }
    assert!(vectors.claims.len() >= 3);
}
