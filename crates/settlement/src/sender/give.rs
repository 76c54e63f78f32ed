//! Giving a signed transaction to the nodes, and what their answers mean.

use alloy::primitives::Bytes;
use tokio::time::sleep;

use super::{POLL, Sender};
use crate::{Error, rpc::Failure};

/// What became of giving a transaction to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    /// A node has it, or may have it.
    Perhaps,
    /// Its nonce is in a block already.
    Past,
    /// Another transaction with its nonce waits and offers as much.
    Occupied,
    /// It offers less than any block takes.
    TooCheap,
}

impl Sender {
    /// Gives a transaction to the nodes; the same again is harmless, so a lost answer is asked for once more.
    pub(super) async fn give(&self, raw: &Bytes) -> Result<Submitted, Error> {
        let mut perhaps = false;
        for pause in [POLL.0, POLL.1, POLL.1] {
            let Err(failures) = self.link.rpc.broadcast(raw).await else {
                return Ok(Submitted::Perhaps);
            };
            let said: Vec<_> = failures.iter().map(answer).collect();
            if said.contains(&Answer::Known) {
                return Ok(Submitted::Perhaps);
            }
            perhaps |= said.contains(&Answer::Lost);
            let refused = said
                .iter()
                .find(|said| !matches!(said, Answer::Lost | Answer::NotDelivered));
            match refused {
                Some(_) if perhaps => return Ok(Submitted::Perhaps),
                Some(Answer::Refused(submitted)) => return Ok(*submitted),
                // No node has it: the first one's reason, a refusal before a lack of answers.
                _ if !perhaps => return Err(worst(failures)),
                _ => sleep(pause).await,
            }
        }
        Ok(Submitted::Perhaps)
    }
}

/// What a node's failure says about a transaction that was given to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It has it.
    Known,
    /// It does not take it.
    Refused(Submitted),
    /// It does not take it for another reason.
    Other,
    /// It may have it.
    Lost,
    /// It does not have it.
    NotDelivered,
}

fn answer(failure: &Failure) -> Answer {
    let message = match failure {
        Failure::NotDelivered(_) | Failure::WrongChain { .. } => return Answer::NotDelivered,
        // An answer that cannot be read may still be the answer of a node that took it.
        Failure::NoAnswer(_) | Failure::Corrupt(_) => return Answer::Lost,
        Failure::Refused { message, .. } => message.to_lowercase(),
    };
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["already known", "already imported", "known transaction"]) {
        Answer::Known
    } else if says(&["nonce too low", "nonce is too low", "nonce has already been used"]) {
        Answer::Refused(Submitted::Past)
    } else if says(&["replacement transaction underpriced", "replacement fee too low"]) {
        Answer::Refused(Submitted::Occupied)
    } else if says(&["less than block base fee", "feecap", "fee cap less than", "underpriced"]) {
        Answer::Refused(Submitted::TooCheap)
    } else {
        Answer::Other
    }
}

/// The failure that says most: a refusal, else the first.
fn worst(failures: Vec<Failure>) -> Error {
    let mut first = None;
    for failure in failures {
        if matches!(failure, Failure::Refused { .. }) {
            return failure.into();
        }
        first.get_or_insert(failure);
    }
    first.map_or_else(
        || Error::Unreachable {
            reason: "there is no node to ask".into(),
        },
        Error::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_is_understood() {
        let says = |message: &str| {
            answer(&Failure::Refused {
                code: -32000,
                message: message.into(),
                data: None,
            })
        };
        assert_eq!(says("already known"), Answer::Known);
        assert_eq!(says("transaction already imported"), Answer::Known);
        assert_eq!(
            says("nonce too low: next nonce 5, tx nonce 4"),
            Answer::Refused(Submitted::Past)
        );
        assert_eq!(
            says("replacement transaction underpriced"),
            Answer::Refused(Submitted::Occupied)
        );
        assert_eq!(says("transaction underpriced"), Answer::Refused(Submitted::TooCheap));
        assert_eq!(
            says("max fee per gas less than block base fee: address 0x0"),
            Answer::Refused(Submitted::TooCheap)
        );
        assert_eq!(says("intrinsic gas too low"), Answer::Other);
        assert_eq!(answer(&Failure::NoAnswer(String::new())), Answer::Lost);
    }
}
