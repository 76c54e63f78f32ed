//! API keys: kept as a hash, each with a budget.

use std::{fmt::Write as _, time::Instant};

use rialto_api::{BadRequest, openai::Provider};
use rialto_protocol::{MicroDollars, NanoDollars};
use serde::Deserialize as _;
use sqlx::{Row as _, sqlite::SqliteRow};
use subtle::ConstantTimeEq as _;

use super::{Store, from_sql, now, to_sql};
use crate::{Error, Limits, routing::Preferences};

/// Separates this hash from every other use of BLAKE3.
const CONTEXT: &str = "rialto gateway 2026-11 api key v1";
const PREFIX: &str = "rk-";
const ID_DIGITS: usize = 12;
const SECRET_DIGITS: usize = 48;

/// A key that was just created: the only time that its text is known.
pub struct NewKey {
    /// What the client sends. Never kept.
    pub secret: String,
    /// Its row.
    pub row: KeyRow,
}

/// What the store knows of an API key.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct KeyRow {
    /// Its public part: the digits after `rk-`.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// Most that it may spend; `None` for no limit.
    pub budget: Option<MicroDollars>,
    /// What receipts say that it spent.
    pub spent: NanoDollars,
    /// What requests hold that have no receipt yet.
    pub held: NanoDollars,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970; `None` while it is valid.
    pub revoked_at: Option<u64>,
    /// What it may use in a stretch of time.
    pub limits: Limits,
    /// What its requests want of a seller when they do not say it themselves: a `provider` object.
    pub provider: Option<serde_json::Value>,
}

impl KeyRow {
    /// What is left of the budget; `None` for no limit.
    pub fn left(&self) -> Option<NanoDollars> {
        let used = self.spent.plus(self.held);
        self.budget.map(|budget| budget.to_nano().saturating_sub(used))
    }

    /// What its requests want of a seller when they do not say it themselves.
    pub(crate) fn usual(&self) -> Result<Option<Provider>, Error> {
        let read = self.provider.as_ref().map(Provider::deserialize).transpose();
        read.map_err(|error| Error::BadStore(format!("the provider object of key {}: {error}", self.id)))
    }
}

const COLUMNS_ALL: &str = "SELECT k.id, k.name, k.budget_micro, k.spent_nano, k.created_at, k.revoked_at, k.hash,
    k.limits, k.provider,
    (SELECT COALESCE(SUM(r.hold_nano), 0) FROM requests r
     WHERE r.key = k.id AND r.state IN ('open', 'interrupted')) AS held
    FROM keys k ORDER BY k.created_at DESC, k.id";
const COLUMNS_BY_ID: &str = "SELECT k.id, k.name, k.budget_micro, k.spent_nano, k.created_at, k.revoked_at, k.hash,
    k.limits, k.provider,
    (SELECT COALESCE(SUM(r.hold_nano), 0) FROM requests r
     WHERE r.key = k.id AND r.state IN ('open', 'interrupted')) AS held
    FROM keys k WHERE k.id = ?";

fn key_row(row: &SqliteRow) -> Result<KeyRow, Error> {
    Ok(KeyRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        budget: row
            .try_get::<Option<i64>, _>("budget_micro")?
            .map(|micro| MicroDollars::new(from_sql(micro))),
        spent: NanoDollars(from_sql(row.try_get("spent_nano")?).into()),
        held: NanoDollars(from_sql(row.try_get("held")?).into()),
        created_at: from_sql(row.try_get("created_at")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(from_sql),
        limits: read_json(row.try_get("limits")?)?.unwrap_or_default(),
        provider: read_json(row.try_get("provider")?)?,
    })
}

/// A column of JSON.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, Error> {
    let read = text.map(serde_json::from_str).transpose();
    read.map_err(|error| Error::BadStore(error.to_string()))
}

fn hash(secret: &str) -> [u8; 32] {
    blake3::derive_key(CONTEXT, secret.as_bytes())
}

/// The public part of a well-formed key.
fn public_part(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('-')?;
    let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits(id, ID_DIGITS) && digits(secret, SECRET_DIGITS)).then_some(id)
}

impl Store {
    /// Creates a key. Its text is returned once and kept nowhere.
    pub async fn create_key(&self, name: &str, budget: Option<MicroDollars>) -> Result<NewKey, Error> {
        let (id, secret): ([u8; ID_DIGITS / 2], [u8; SECRET_DIGITS / 2]) = (rand::random(), rand::random());
        let id = hex::encode(id);
        let mut text = format!("{PREFIX}{id}-");
        for byte in secret {
            let _ = write!(text, "{byte:02x}");
        }
        let created_at = now();
        sqlx::query("INSERT INTO keys (id, name, hash, budget_micro, created_at) VALUES (?, ?, ?, ?, ?)")
            .bind(&id)
            .bind(name)
            .bind(hash(&text).to_vec())
            .bind(budget.map(|amount| to_sql(amount.get())))
            .bind(to_sql(created_at.into()))
            .execute(&mut *self.write().await?)
            .await?;
        let row = KeyRow {
            id,
            name: name.to_owned(),
            budget,
            spent: NanoDollars::ZERO,
            held: NanoDollars::ZERO,
            created_at,
            revoked_at: None,
            limits: Limits::default(),
            provider: None,
        };
        Ok(NewKey { secret: text, row })
    }

    /// The valid key with this text. The text is compared as a hash and in constant time, whether or not it exists. A change
    /// that another process made is seen a moment later.
    pub async fn find_key(&self, text: &str) -> Result<Option<KeyRow>, Error> {
        let Some(id) = public_part(text) else {
            return Ok(None);
        };
        let hash = hash(text);
        if let Some(key) = self.remembered.find(id, &hash) {
            return Ok(Some(key));
        }
        let read = Instant::now();
        let row = sqlx::query(COLUMNS_BY_ID)
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        let stored = row
            .as_ref()
            .and_then(|row| row.try_get::<Vec<u8>, _>("hash").ok())
            .unwrap_or_else(|| vec![0; 32]);
        let same = bool::from(hash.as_slice().ct_eq(stored.as_slice()));
        let Some(row) = row.filter(|_| same) else {
            return Ok(None);
        };
        let key = key_row(&row)?;
        if key.revoked_at.is_some() {
            return Ok(None);
        }
        self.remembered.note(read, hash, &key);
        Ok(Some(key))
    }

    /// All keys, newest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, Error> {
        let rows = sqlx::query(COLUMNS_ALL).fetch_all(&self.readers).await?;
        rows.iter().map(key_row).collect()
    }

    /// The key with this public part.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRow>, Error> {
        let row = sqlx::query(COLUMNS_BY_ID)
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(key_row).transpose()
    }

    /// Revokes the key with this public part. Returns whether there was a valid one.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(to_sql(now().into()))
            .bind(id)
            .execute(&mut *self.write().await?)
            .await?;
        self.remembered.forget(id);
        Ok(done.rows_affected() > 0)
    }

    /// Sets the budget of the key with this public part; `None` for no limit. Returns whether there is such a key.
    pub async fn set_budget(&self, id: &str, budget: Option<MicroDollars>) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE keys SET budget_micro = ? WHERE id = ?")
            .bind(budget.map(|amount| to_sql(amount.get())))
            .bind(id)
            .execute(&mut *self.write().await?)
            .await?;
        self.remembered.forget(id);
        Ok(done.rows_affected() > 0)
    }

    /// Sets what the key with this public part may use. What it used lately counts from when it had limits. Returns whether
    /// there is such a key.
    pub async fn set_limits(&self, id: &str, limits: &Limits) -> Result<bool, Error> {
        let text = serde_json::to_string(limits).map_err(|error| Error::BadStore(error.to_string()))?;
        let mut transaction = self.transaction().await?;
        let done = sqlx::query("UPDATE keys SET limits = ? WHERE id = ?")
            .bind((!limits.is_empty()).then_some(text))
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        if limits.is_empty() {
            sqlx::query("DELETE FROM uses WHERE key = ?")
                .bind(id)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        self.remembered.forget(id);
        Ok(done.rows_affected() > 0)
    }

    /// Sets what requests with the key of this public part want of a seller, a `provider` object. Returns whether there is
    /// such a key. Refuses an object that would be refused in a request.
    pub async fn set_provider(&self, id: &str, provider: Option<&serde_json::Value>) -> Result<bool, Error> {
        if let Some(value) = provider {
            let read =
                Provider::deserialize(value).map_err(|error| BadRequest::value("provider", error.to_string()))?;
            Preferences::default().narrowed(&read)?;
        }
        let done = sqlx::query("UPDATE keys SET provider = ? WHERE id = ?")
            .bind(provider.map(ToString::to_string))
            .bind(id)
            .execute(&mut *self.write().await?)
            .await?;
        self.remembered.forget(id);
        Ok(done.rows_affected() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_key_is_found_by_its_text_until_it_is_revoked() {
        let (folder, store) = store().await;
        let new = store.create_key("laptop", Some(MicroDollars::new(5))).await.unwrap();
        assert!(new.secret.starts_with("rk-"));
        assert_eq!(store.find_key(&new.secret).await.unwrap().unwrap(), new.row);
        let file = std::fs::read(folder.path().join("gateway.db-wal")).unwrap();
        let secret = new.secret.rsplit('-').next().unwrap().as_bytes().to_vec();
        assert!(
            !file.windows(secret.len()).any(|window| window == secret),
            "the text is in the file"
        );
        assert!(store.revoke_key(&new.row.id).await.unwrap());
        assert!(!store.revoke_key(&new.row.id).await.unwrap());
        assert!(store.find_key(&new.secret).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn other_texts_are_not_keys() {
        let (_folder, store) = store().await;
        let new = store.create_key("laptop", None).await.unwrap();
        let mut wrong = new.secret.clone();
        let last = if wrong.pop() == Some('0') { '1' } else { '0' };
        wrong.push(last);
        for text in [
            "",
            "rk-",
            "sk-abc",
            "rk-é",
            &wrong,
            &format!("{}0", new.secret),
            &new.secret.to_uppercase(),
        ] {
            assert!(store.find_key(text).await.unwrap().is_none(), "{text}");
        }
        assert!(store.find_key(&new.secret).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_second_process_creates_keys_while_the_first_runs() {
        let (folder, store) = store().await;
        let other = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let new = other.create_key("from the command line", None).await.unwrap();
        assert!(store.find_key(&new.secret).await.unwrap().is_some());
        assert!(other.set_budget(&new.row.id, Some(MicroDollars::new(9))).await.unwrap());
        // The key was found a moment ago: soon it is read anew.
        while store.find_key(&new.secret).await.unwrap().unwrap().left() != Some(NanoDollars(9_000)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(store.find_key(&new.secret).await.unwrap().is_some());
        assert!(other.revoke_key(&new.row.id).await.unwrap());
        assert!(store.find_key(&new.secret).await.unwrap().is_none());
    }
}
