//! Who is asking.

use axum::http::{HeaderMap, header};

use crate::{Error, desk::Desk, store::KeyRow};

/// The valid key that a request carries. Nothing of the request but this header is looked at before.
pub(crate) async fn authenticate(desk: &Desk, headers: &HeaderMap) -> Result<KeyRow, Error> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Error::NoKey)?;
    let text = value.to_str().map_err(|_| Error::BadKey)?;
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(Error::BadKey),
    };
    desk.store.find_key(token).await?.ok_or(Error::BadKey)
}
