//! `rialto key`: the gateway's API keys.

use anyhow::{Context, Result, bail};
use rialto_gateway::{
    Limits, Store,
    store::{KeyRow, Used},
};
use rialto_protocol::MicroDollars;
use serde_json::{Value, json};

use crate::{
    args::{self, KeyTerms},
    output,
    settings::Settings,
};

/// What lifts a limit.
const NONE: &str = "none";

/// Does what was asked for; the gateway may run or not.
pub(crate) async fn run(settings: &Settings, action: &args::Key) -> Result<()> {
    settings.dir.folder("gateway")?;
    let store = Store::open(&settings.dir.path(super::gateway::STORE)).await?;
    match action {
        args::Key::Create { name, terms } => create(settings, &store, name, terms).await,
        args::Key::Set { id, terms } => {
            let key = find(&store, id).await?;
            apply(&store, &Change::of(terms, &key)?, &key).await?;
            show(settings, &store, id).await
        }
        args::Key::Show { id } => show(settings, &store, id).await,
        args::Key::List => list(settings, &store).await,
        args::Key::Revoke { id } => {
            if !store.revoke_key(digits(id)).await? {
                bail!("there is no valid key `{id}`: see `rialto key list`");
            }
            output::either(settings.json, &json!({ "revoked": id }), || {
                output::line(format_args!("revoked {id}"))
            })
        }
    }
}

fn digits(id: &str) -> &str {
    id.trim_start_matches("rk-")
}

async fn find(store: &Store, id: &str) -> Result<KeyRow> {
    let key = store.key(digits(id)).await?;
    key.with_context(|| format!("there is no key `{id}`: see `rialto key list`"))
}

/// What a key is to have, all of it.
struct Change {
    budget: Option<MicroDollars>,
    limits: Limits,
    provider: Option<Value>,
}

impl Change {
    /// What was asked for; what was not named is as before.
    fn of(terms: &KeyTerms, before: &KeyRow) -> Result<Self> {
        let was = before.limits;
        let limits = Limits {
            requests_a_minute: number(&terms.requests_a_minute, was.requests_a_minute, "--requests-a-minute")?,
            at_a_time: number(&terms.at_a_time, was.at_a_time, "--at-a-time")?,
            tokens_a_minute: number(&terms.tokens_a_minute, was.tokens_a_minute, "--tokens-a-minute")?,
            tokens_a_day: number(&terms.tokens_a_day, was.tokens_a_day, "--tokens-a-day")?,
            dollars_a_minute: dollars(&terms.dollars_a_minute, was.dollars_a_minute, "--dollars-a-minute")?,
            dollars_a_day: dollars(&terms.dollars_a_day, was.dollars_a_day, "--dollars-a-day")?,
        };
        let parse = |text: &str| serde_json::from_str(text).context("--provider: a JSON object, or `none`");
        Ok(Self {
            budget: dollars(&terms.budget, before.budget, "--budget")?,
            limits,
            provider: given(&terms.provider, before.provider.clone(), parse)?,
        })
    }
}

/// What was given, or nothing for `none`, or what was before.
fn given<T>(text: &Option<String>, before: Option<T>, parse: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    match text.as_deref() {
        None => Ok(before),
        Some(NONE) => Ok(None),
        Some(text) => parse(text).map(Some),
    }
}

fn number(text: &Option<String>, before: Option<u64>, name: &str) -> Result<Option<u64>> {
    given(text, before, |text| {
        let plain = text.replace(['_', ','], "");
        plain
            .parse()
            .with_context(|| format!("{name}: a whole number, such as 60, or `none`"))
    })
}

fn dollars(text: &Option<String>, before: Option<MicroDollars>, name: &str) -> Result<Option<MicroDollars>> {
    given(text, before, |text| {
        MicroDollars::from_dollars(text).with_context(|| format!("{name}: dollars, such as 2.50, or `none`"))
    })
}

async fn apply(store: &Store, change: &Change, before: &KeyRow) -> Result<()> {
    // First what can be refused.
    if change.provider != before.provider {
        let set = store.set_provider(&before.id, change.provider.as_ref()).await;
        set.map_err(|error| anyhow::anyhow!("--provider: {error}"))?;
    }
    if change.limits != before.limits {
        store.set_limits(&before.id, &change.limits).await?;
    }
    if change.budget != before.budget {
        store.set_budget(&before.id, change.budget).await?;
    }
    Ok(())
}

async fn create(settings: &Settings, store: &Store, name: &str, terms: &KeyTerms) -> Result<()> {
    let change = Change::of(terms, &KeyRow::default())?;
    let key = store.create_key(name, change.budget).await?;
    if let Err(error) = apply(store, &change, &key.row).await {
        // Nobody was told its text.
        store.revoke_key(&key.row.id).await?;
        return Err(error);
    }
    let row = find(store, &key.row.id).await?;
    output::either(settings.json, &json!({ "key": key.secret, "row": row }), || {
        output::line(&key.secret);
        output::say("it is shown this once: only its hash is kept");
    })
}

async fn show(settings: &Settings, store: &Store, id: &str) -> Result<()> {
    let key = find(store, id).await?;
    let used = store.used_now(&key.id).await?;
    output::either(settings.json, &json!({ "key": key, "used": used }), || {
        let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
        output::line(format_args!("rk-{}  {}  {state}", key.id, key.name));
        output::table(&["LIMIT", "MOST", "USED"], &rows(&key, &used));
        if let Some(provider) = &key.provider {
            output::line(format_args!("wants of sellers: {provider}"));
        }
    })
}

fn shown<T: ToString>(most: Option<T>) -> String {
    most.map_or_else(|| NONE.into(), |most| most.to_string())
}

/// Every limit that a key can have, with what is used or reserved of it.
fn rows(key: &KeyRow, used: &Used) -> Vec<Vec<String>> {
    let limits = &key.limits;
    let row = |name: &str, most: String, used: String| vec![name.to_owned(), most, used];
    let unless = |limited: bool, used: String| if limited { used } else { "not counted".into() };
    let counted = !limits.is_empty();
    vec![
        row("budget", shown(key.budget), key.spent.plus(key.held).to_string()),
        row(
            "requests a minute",
            shown(limits.requests_a_minute),
            "in the gateway's memory".into(),
        ),
        row(
            "requests at a time",
            shown(limits.at_a_time),
            "in the gateway's memory".into(),
        ),
        row(
            "tokens a minute",
            shown(limits.tokens_a_minute),
            unless(counted, used.tokens_in_minute.to_string()),
        ),
        row(
            "tokens a day",
            shown(limits.tokens_a_day),
            unless(counted, used.tokens_in_day.to_string()),
        ),
        row(
            "dollars a minute",
            shown(limits.dollars_a_minute),
            unless(counted, used.cost_in_minute.to_string()),
        ),
        row(
            "dollars a day",
            shown(limits.dollars_a_day),
            unless(counted, used.cost_in_day.to_string()),
        ),
    ]
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
            let limits = if key.limits.is_empty() { "none" } else { "some" };
            vec![
                format!("rk-{}", key.id),
                key.name.clone(),
                state.into(),
                budget,
                key.spent.to_string(),
                limits.into(),
            ]
        })
        .collect();
    output::either(settings.json, &keys, || {
        output::table(&["KEY", "NAME", "STATE", "BUDGET", "SPENT", "LIMITS"], &rows)
    })
}
