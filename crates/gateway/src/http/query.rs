//! What a URL asks of a list.

use std::collections::HashMap;

use axum::{extract::Query as Parsed, http::Uri};
use rialto_api::BadRequest;

use crate::{Error, store::Wanted};

/// Longest cursor.
const MAX_AFTER: usize = 64;

/// The part of a URL after its question mark. What is not known is not looked at.
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    /// Reads it; one that cannot be read counts as empty.
    pub(crate) fn of(uri: &Uri) -> Self {
        let read = Parsed::<HashMap<String, String>>::try_from_uri(uri);
        Self(read.map_or_else(|_| HashMap::new(), |query| query.0))
    }

    /// A parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The page that is asked for, of at most so many objects.
    pub(crate) fn page(&self, usual: u32, most: u32) -> Result<Wanted, Error> {
        let limit = match self.get("limit") {
            None => usual,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
                limit.ok_or_else(|| BadRequest::value("limit", format!("must be between 1 and {most}")))?
            }
        };
        let ascending = match self.get("order") {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(BadRequest::value("order", "must be 'asc' or 'desc'").into()),
        };
        let after = self.get("after").map(str::to_owned);
        if after.as_ref().is_some_and(|after| after.len() > MAX_AFTER) {
            return Err(BadRequest::value("after", "is not the id of an object").into());
        }
        Ok(Wanted {
            after,
            limit,
            ascending,
        })
    }
}
