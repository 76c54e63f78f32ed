//! What a gateway remembers over a restart, a row for each: how far it followed the chain, who answered, what was on sale.

use rialto_protocol::{offer::Announcement, ticket::Peer};
use rialto_settlement::Trail;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::Row as _;

use super::{Store, pack, unpack};
use crate::{Error, routing::Memory};

/// Under this name the store keeps how far the chain was followed.
const TRAIL: &str = "trail";

/// Under this name it keeps nodes that answered.
const CONTACTS: &str = "contacts";

/// Under this name it keeps offers of the book.
const OFFERS: &str = "offers";

/// Under this name it keeps what is known of sellers.
const SELLERS: &str = "sellers";

impl Store {
    /// How far the chain was followed; `None` if it never was.
    pub(crate) async fn trail(&self) -> Result<Option<Trail>, Error> {
        self.note(TRAIL).await
    }

    /// Notes how far the chain was followed.
    pub(crate) async fn set_trail(&self, trail: &Trail) -> Result<(), Error> {
        self.set_note(TRAIL, trail).await
    }

    /// Nodes that answered before the last stop.
    pub(crate) async fn contacts(&self) -> Result<Vec<Peer>, Error> {
        Ok(self.note(CONTACTS).await?.unwrap_or_default())
    }

    /// Notes nodes that answer.
    pub(crate) async fn set_contacts(&self, contacts: &[Peer]) -> Result<(), Error> {
        self.set_note(CONTACTS, contacts).await
    }

    /// Offers that were in the book a while ago.
    pub(crate) async fn offers(&self) -> Result<Vec<Announcement>, Error> {
        self.list(OFFERS).await
    }

    /// What was known of sellers a while ago.
    pub(crate) async fn memories(&self) -> Result<Vec<Memory>, Error> {
        self.list(SELLERS).await
    }

    /// Notes what is known of sellers.
    pub(crate) async fn set_memories(&self, memories: &[Memory]) -> Result<(), Error> {
        self.set_note(SELLERS, memories).await
    }

    /// A list in a form that another version may not understand: then it is empty.
    async fn list<T: DeserializeOwned>(&self, name: &'static str) -> Result<Vec<T>, Error> {
        let kept = self.note(name).await;
        if let Err(Error::BadStore(reason)) = &kept {
            tracing::debug!(name, reason, "what was noted before is not understood");
            return Ok(Vec::new());
        }
        Ok(kept?.unwrap_or_default())
    }

    /// Notes offers of the book.
    pub(crate) async fn set_offers(&self, offers: &[Announcement]) -> Result<(), Error> {
        self.set_note(OFFERS, offers).await
    }

    async fn note<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, Error> {
        let query = sqlx::query("SELECT body FROM notes WHERE name = ?").bind(name);
        let row = query.fetch_optional(&self.readers).await?;
        row.map(|row| unpack(row.try_get("body")?)).transpose()
    }

    async fn set_note<T: Serialize + ?Sized>(&self, name: &'static str, body: &T) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO notes (name, body) VALUES (?, ?)")
            .bind(name)
            .bind(pack(body)?)
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }
}
