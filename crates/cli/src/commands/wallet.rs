//! `rialto wallet`: the accounts of this machine and what they hold.

use anyhow::Result;
use serde_json::json;

use crate::{args::Place, keys, market::Market, output, settings::Settings};

/// Roles and their key files.
pub(super) const ROLES: [(&str, &str); 4] = [
    ("buyer", "gateway/owner.json"),
    ("session", "gateway/session.json"),
    ("provider", "provider/account.json"),
    ("publisher", "publisher/account.json"),
];

/// Prints every account with its balances.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for (role, file) in ROLES {
        let Some(key) = keys::existing(&settings.dir, file)? else {
            continue;
        };
        let account = key.address();
        let token = market.chain.token_balance(account).await?;
        let free = market.chain.free_balance(account).await?;
        let credit = market.chain.credit_of(account).await?;
        let wei = market.chain.native_balance(account).await?;
        values.push(json!({
            "role": role, "account": account, "key_file": settings.dir.path(file),
            "stablecoin": token, "in_escrow": free, "credit": credit, "wei": wei.to_string(),
        }));
        rows.push(vec![
            role.to_owned(),
            account.to_string(),
            token.to_string(),
            free.to_string(),
            credit.to_string(),
        ]);
    }
    output::either(settings.json, &values, || {
        output::table(&["ROLE", "ACCOUNT", "STABLECOIN", "IN ESCROW", "CREDIT"], &rows);
    })
}
