//! What accounts have on chain, rebuilt from the escrow's events alone: for whoever lost its records.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rialto_protocol::{Address, ChannelId, ChannelParams};
use rialto_settlement::{Mirror, MirroredChannel};
use serde_json::json;

use crate::{
    args::Place,
    commands::wallet::ROLES,
    keys,
    market::{Market, Record},
    output,
    settings::Settings,
};

/// Prints the channels, balances and credits of this machine's accounts, or of one account.
pub(super) async fn list(settings: &Settings, account: Option<Address>) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let accounts = match account {
        Some(account) => vec![account],
        None => own_accounts(settings)?,
    };
    ensure!(
        !accounts.is_empty(),
        "this data directory has no accounts yet: name one with --account"
    );
    let mirror = read(settings, &market).await?;
    let books = mirror.books();
    let mut channels: BTreeMap<(u64, ChannelId), &MirroredChannel> = BTreeMap::new();
    for account in &accounts {
        for channel in books.channels_of(*account) {
            channels.insert((channel.opened_block, channel.params.id()), channel);
        }
    }
    let held = |account: &Address| {
        let of = |amounts: &BTreeMap<Address, _>| amounts.get(account).copied().unwrap_or_default();
        (of(&books.balances), of(&books.credits))
    };
    let balances = accounts.iter().map(|account| {
        let (in_escrow, credit) = held(account);
        json!({ "account": account, "in_escrow": in_escrow, "credit": credit })
    });
    let listed = channels
        .iter()
        .map(|((_, id), channel)| json!({ "id": id, "channel": channel }));
    let value = json!({
        "read_to_block": mirror.next_block().saturating_sub(1),
        "accounts": balances.collect::<Vec<_>>(),
        "channels": listed.collect::<Vec<_>>(),
    });
    output::either(settings.json, &value, || {
        let rows: Vec<_> = channels.iter().map(|((_, id), channel)| row(id, channel)).collect();
        output::table(&["CHANNEL", "PAYER", "PROVIDER", "STATUS", "FUNDED", "REDEEMED"], &rows);
        for account in &accounts {
            let (in_escrow, credit) = held(account);
            output::line(format_args!(
                "{account}: {in_escrow} free in the escrow, {credit} of royalties"
            ));
        }
    })
}

/// What the id of a payer's channel is made of; `None` if the payer never opened such a channel.
pub(super) async fn params_of(
    settings: &Settings,
    market: &Market,
    payer: Address,
    id: ChannelId,
) -> Result<Option<ChannelParams>> {
    let mirror = read(settings, market).await?;
    let found = mirror.books().channels.get(&id).map(|channel| channel.params);
    Ok(found.filter(|params| params.payer == payer))
}

/// All events of the escrow, read and booked.
async fn read(settings: &Settings, market: &Market) -> Result<Mirror> {
    let first = Record::load(settings)?.map_or(0, |record| record.block);
    let mut mirror = Mirror::begin(&market.chain, first).await?;
    mirror.catch_up(&market.chain).await?;
    Ok(mirror)
}

fn own_accounts(settings: &Settings) -> Result<Vec<Address>> {
    let mut accounts = Vec::new();
    for (_, file) in ROLES {
        if let Some(key) = keys::existing(&settings.dir, file)? {
            accounts.push(key.address());
        }
    }
    Ok(accounts)
}

fn row(id: &ChannelId, channel: &MirroredChannel) -> Vec<String> {
    let MirroredChannel { params, state, .. } = channel;
    let status = match (state.closed, state.closes_at) {
        (true, _) => "closed".to_owned(),
        (false, 0) => "open".to_owned(),
        (false, at) => format!("closing at {at}"),
    };
    vec![
        id.to_string(),
        params.payer.to_string(),
        params.provider.to_string(),
        status,
        state.funded.to_string(),
        state.redeemed.to_string(),
    ]
}
