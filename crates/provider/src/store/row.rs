//! How our values are kept in columns, and read back strictly.

use rialto_protocol::MicroDollars;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, sqlite::SqliteRow};

use crate::Error;

/// A structure as bytes.
pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(value).map_err(|_| Error::Corrupt("a value cannot be encoded"))
}

/// A structure from bytes, all of which must be used.
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| Error::Corrupt("a row cannot be decoded"))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Error::Corrupt("a row has bytes after its end"))
    }
}

/// A structure from a column.
pub(crate) fn unpacked<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T, Error> {
    unpack(&row.try_get::<Vec<u8>, _>(column)?)
}

/// An id from a column.
pub(crate) fn id<const N: usize, T: From<[u8; N]>>(row: &SqliteRow, column: &'static str) -> Result<T, Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let bytes: [u8; N] = bytes
        .try_into()
        .map_err(|_| Error::Corrupt("an id has another length"))?;
    Ok(T::from(bytes))
}

/// An amount from decimal text.
pub(crate) fn amount(row: &SqliteRow, column: &'static str) -> Result<MicroDollars, Error> {
    let text: String = row.try_get(column)?;
    parse_amount(&text)
}

/// An amount from decimal text.
pub(crate) fn parse_amount(text: &str) -> Result<MicroDollars, Error> {
    let micro: u128 = text.parse().map_err(|_| Error::Corrupt("an amount is no number"))?;
    MicroDollars::try_from(micro).map_err(|_| Error::Corrupt("an amount is too large"))
}

/// A count from a column.
pub(crate) fn count(row: &SqliteRow, column: &'static str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::Corrupt("a count is negative"))
}

/// A count for a column; SQLite's integers end at 2⁶³ − 1.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A large count for a column.
pub(crate) fn wide(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
