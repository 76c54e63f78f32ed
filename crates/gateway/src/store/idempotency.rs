//! Idempotent answers: the first status and body of a key, replayed until they expire.

use sqlx::Row as _;

use super::{Store, count_to_sql, now, pack, unpack};
use crate::Error;

/// Most answers kept for one API key.
const MAX_PER_KEY: i64 = 10_000;

/// An answer as it was first given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredAnswer {
    pub(crate) status: u16,
    /// Names and values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What a claim of an idempotency key found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody used it, or nobody got as far as a provider: run the request.
    Fresh,
    /// The same request is being answered now.
    Running,
    /// It was answered.
    Answered(StoredAnswer),
    /// It was used with another body.
    Conflict,
    /// An earlier run of the gateway sent something to a provider and did not get to answer.
    Lost,
    /// Too many are kept.
    Full,
}

impl Store {
    /// Claims an idempotency key for a body. `boot` tells runs of the gateway apart.
    pub(crate) async fn claim(&self, id: [u8; 32], key: &str, body: [u8; 32], boot: [u8; 16]) -> Result<Claim, Error> {
        let mut transaction = self.transaction().await?;
        let row = sqlx::query("SELECT body_hash, boot, status, headers, body FROM idempotency WHERE id = ?")
            .bind(id.to_vec())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else {
            let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM idempotency WHERE key = ?")
                .bind(key)
                .fetch_one(&mut *transaction)
                .await?;
            if count >= MAX_PER_KEY {
                return Ok(Claim::Full);
            }
            sqlx::query("INSERT INTO idempotency (id, key, body_hash, boot, created_at) VALUES (?, ?, ?, ?, ?)")
                .bind(id.to_vec())
                .bind(key)
                .bind(body.to_vec())
                .bind(boot.to_vec())
                .bind(count_to_sql(now()))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            return Ok(Claim::Fresh);
        };
        if row.try_get::<Vec<u8>, _>("body_hash")? != body {
            return Ok(Claim::Conflict);
        }
        if let Some(status) = row.try_get::<Option<i64>, _>("status")? {
            return Ok(Claim::Answered(StoredAnswer {
                status: u16::try_from(status).unwrap_or(500),
                headers: unpack(row.try_get("headers")?)?,
                body: row.try_get("body")?,
            }));
        }
        if row.try_get::<Vec<u8>, _>("boot")? == boot {
            return Ok(Claim::Running);
        }
        let sent = sqlx::query("SELECT 1 FROM requests WHERE idempotency = ? LIMIT 1")
            .bind(id.to_vec())
            .fetch_optional(&mut *transaction)
            .await?;
        if sent.is_some() {
            return Ok(Claim::Lost);
        }
        sqlx::query("UPDATE idempotency SET boot = ? WHERE id = ?")
            .bind(boot.to_vec())
            .bind(id.to_vec())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Claim::Fresh)
    }

    /// Keeps the answer of a claimed key.
    pub(crate) async fn keep_answer(&self, id: [u8; 32], answer: &StoredAnswer) -> Result<(), Error> {
        sqlx::query("UPDATE idempotency SET status = ?, headers = ?, body = ? WHERE id = ?")
            .bind(i64::from(answer.status))
            .bind(pack(&answer.headers)?)
            .bind(&answer.body)
            .bind(id.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Gives a claimed key back, unless something that was sent under it may still be billed. Returns whether it did.
    pub(crate) async fn release_claim(&self, id: [u8; 32]) -> Result<bool, Error> {
        let done = sqlx::query(
            "DELETE FROM idempotency WHERE id = ?1 AND status IS NULL AND NOT EXISTS
             (SELECT 1 FROM requests WHERE idempotency = ?1 AND state IN ('open', 'interrupted'))",
        )
        .bind(id.to_vec())
        .execute(&mut *self.write().await?)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes a claimed key from this run of the gateway, which has no answer to keep for it: the next claim finds what an
    /// earlier run left behind.
    pub(crate) async fn lose_claim(&self, id: [u8; 32]) -> Result<(), Error> {
        sqlx::query("UPDATE idempotency SET boot = zeroblob(16) WHERE id = ? AND status IS NULL")
            .bind(id.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Forgets answers that were given before this time.
    pub(crate) async fn prune_answers(&self, before: u64) -> Result<u64, Error> {
        let done = sqlx::query("DELETE FROM idempotency WHERE created_at < ?")
            .bind(count_to_sql(before))
            .execute(&mut *self.write().await?)
            .await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: [u8; 16] = [1; 16];
    const SECOND: [u8; 16] = [2; 16];

    #[tokio::test]
    async fn an_answer_is_replayed_and_a_changed_body_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let claim = async |body, boot| store.claim([7; 32], "key", body, boot).await.unwrap();
        assert_eq!(claim([1; 32], FIRST).await, Claim::Fresh);
        assert_eq!(claim([1; 32], FIRST).await, Claim::Running);
        assert_eq!(claim([2; 32], FIRST).await, Claim::Conflict);
        let answer = StoredAnswer {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: b"{}".to_vec(),
        };
        store.keep_answer([7; 32], &answer).await.unwrap();
        assert_eq!(claim([1; 32], SECOND).await, Claim::Answered(answer));
        assert_eq!(claim([2; 32], SECOND).await, Claim::Conflict);
        assert_eq!(store.prune_answers(now() + 1).await.unwrap(), 1);
        assert_eq!(claim([2; 32], SECOND).await, Claim::Fresh);
    }

    #[tokio::test]
    async fn after_a_crash_only_what_was_never_sent_runs_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        assert_eq!(store.claim([7; 32], "key", [1; 32], FIRST).await.unwrap(), Claim::Fresh);
        assert_eq!(
            store.claim([7; 32], "key", [1; 32], SECOND).await.unwrap(),
            Claim::Fresh
        );
        crate::store::tests::begin(&store, Some([7; 32])).await;
        assert_eq!(store.claim([7; 32], "key", [1; 32], FIRST).await.unwrap(), Claim::Lost);
        assert_eq!(
            store.claim([7; 32], "key", [1; 32], SECOND).await.unwrap(),
            Claim::Running
        );
    }

    #[tokio::test]
    async fn a_lost_claim_is_told_only_if_something_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let claim = async || store.claim([7; 32], "key", [1; 32], FIRST).await.unwrap();
        assert_eq!(claim().await, Claim::Fresh);
        store.lose_claim([7; 32]).await.unwrap();
        assert_eq!(claim().await, Claim::Fresh);
        crate::store::tests::begin(&store, Some([7; 32])).await;
        assert_eq!(claim().await, Claim::Running);
        store.lose_claim([7; 32]).await.unwrap();
        assert_eq!(claim().await, Claim::Lost);
        assert_eq!(claim().await, Claim::Lost);
    }

    #[tokio::test]
    async fn a_key_is_not_given_back_while_a_provider_may_bill() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let claim = async || store.claim([7; 32], "key", [1; 32], FIRST).await.unwrap();
        assert_eq!(claim().await, Claim::Fresh);
        crate::store::tests::begin(&store, Some([7; 32])).await;
        assert!(!store.release_claim([7; 32]).await.unwrap());
        store.interrupt_all().await.unwrap();
        assert!(!store.release_claim([7; 32]).await.unwrap());
        assert_eq!(claim().await, Claim::Running);
        store.void_requests(crate::store::tests::params().id()).await.unwrap();
        assert!(store.release_claim([7; 32]).await.unwrap());
        assert_eq!(claim().await, Claim::Fresh);
    }
}
