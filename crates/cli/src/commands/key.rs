//! `rialto key`: the gateway's API keys.

use anyhow::{Context, Result, bail};
use rialto_gateway::Store;
use rialto_protocol::MicroDollars;
use serde_json::json;

use crate::{args, output, settings::Settings};

/// Does what was asked for; the gateway may run or not.
pub(crate) async fn run(settings: &Settings, action: &args::Key) -> Result<()> {
    settings.dir.folder("gateway")?;
    let store = Store::open(&settings.dir.path(super::gateway::STORE)).await?;
    match action {
        args::Key::Create { name, budget } => create(settings, &store, name, budget.as_deref()).await,
        args::Key::List => list(settings, &store).await,
        args::Key::Revoke { id } => {
            if !store.revoke_key(id.trim_start_matches("rk-")).await? {
                bail!("there is no valid key `{id}`: see `rialto key list`");
            }
            output::either(settings.json, &json!({ "revoked": id }), || {
                output::line(format_args!("revoked {id}"))
            })
        }
    }
}

async fn create(settings: &Settings, store: &Store, name: &str, budget: Option<&str>) -> Result<()> {
    let budget = budget.map(|text| MicroDollars::from_dollars(text).context("the budget: dollars, such as 2.50"));
    let key = store.create_key(name, budget.transpose()?).await?;
    output::either(settings.json, &json!({ "key": key.secret, "row": key.row }), || {
        output::line(&key.secret);
        output::say("it is shown this once: only its hash is kept");
    })
}

async fn list(settings: &Settings, store: &Store) -> Result<()> {
    let keys = store.keys().await?;
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
            let budget = key
                .budget
                .map_or_else(|| "no limit".into(), |amount| amount.to_string());
            vec![
                format!("rk-{}", key.id),
                key.name.clone(),
                state.into(),
                budget,
                key.spent.to_string(),
            ]
        })
        .collect();
    output::either(settings.json, &keys, || {
        output::table(&["KEY", "NAME", "STATE", "BUDGET", "SPENT"], &rows)
    })
}
