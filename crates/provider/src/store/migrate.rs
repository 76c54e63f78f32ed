//! Brings the store to this version's schema.

use sqlx::SqliteConnection;

use crate::Error;

/// Applies the migrations that are missing, in order; refuses a store of a newer version.
pub(crate) async fn run(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::migrate!("./migrations").run(connection).await?;
    Ok(())
}
