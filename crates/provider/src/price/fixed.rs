//! Always the same price.

use rialto_protocol::Price;

/// The price that was said.
pub(super) fn price(said: Price) -> Price {
    said
}
