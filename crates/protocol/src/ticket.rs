//! Tickets: a text by which another machine joins a market.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Address, Domain, NodeKey, bounded, offer::MAX_RELAY};

const PREFIX: &str = "rialto1";

/// Longest ticket text.
const MAX_LENGTH: usize = 4_096;

/// Most nodes that a ticket names.
const MAX_MEETING: usize = 64;

/// Most addresses of a node.
pub const MAX_ADDRESSES: usize = 16;

/// Most bytes of an address.
pub const MAX_ADDRESS: usize = 64;

/// The contracts of a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contracts {
    /// The stablecoin.
    pub token: Address,
    /// `Escrow`.
    pub escrow: Address,
    /// `Providers`.
    pub providers: Address,
    /// `Models`.
    pub models: Address,
}

/// A node and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The key by which it is dialled.
    pub node: NodeKey,
    /// Socket addresses, hints only.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_ADDRESSES, MAX_ADDRESS>")]
    pub addresses: Vec<String>,
    /// The URL of the relay at which it can be reached, if it has one.
    #[serde(deserialize_with = "bounded::maybe_text::<_, MAX_RELAY>")]
    pub relay: Option<String>,
}

/// Everything needed to join a market.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The chain's id.
    pub chain_id: u64,
    /// Where the chain answers.
    #[serde(deserialize_with = "bounded::text::<_, MAX_LENGTH>")]
    pub rpc_url: String,
    /// Its contracts.
    pub contracts: Contracts,
    /// Nodes that keep a book of offers.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_MEETING>")]
    pub meeting: Vec<Peer>,
}

/// A text that is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a market ticket: it starts with `{PREFIX}` and is printed by `rialto up`; was it copied whole?")]
pub struct BadTicket;

impl Ticket {
    /// The domain of all signatures in this market.
    pub fn domain(&self) -> Domain {
        Domain {
            chain_id: self.chain_id,
            escrow: self.contracts.escrow,
        }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{}",
            hex::encode(postcard::to_stdvec(self).unwrap_or_default())
        )
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(BadTicket);
        }
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or(BadTicket)?;
        let (ticket, rest): (Self, _) = postcard::take_from_bytes(&bytes).map_err(|_| BadTicket)?;
        if rest.is_empty() { Ok(ticket) } else { Err(BadTicket) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_being_copied() {
        let ticket = Ticket {
            chain_id: 31_337,
            rpc_url: "http://127.0.0.1:8545".into(),
            contracts: Contracts {
                token: Address([1; 20]),
                escrow: Address([2; 20]),
                providers: Address([3; 20]),
                models: Address([4; 20]),
            },
            meeting: vec![Peer {
                node: NodeKey([5; 32]),
                addresses: vec!["127.0.0.1:4000".into()],
                relay: Some("https://relay.example.org".into()),
            }],
        };
        let text = format!(" {ticket}\n");
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        assert!(text.trim().get(..text.len() - 6).unwrap().parse::<Ticket>().is_err());
    }
}
