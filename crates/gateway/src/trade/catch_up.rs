//! Receipts that come late: of requests that a crash or a broken stream cut off.

use rialto_protocol::{SignedReceipt, Usage, account::Observed};

use crate::{Error, desk::Desk, paying::Channel, store::OpenRequest};

/// Checks late receipts against what the store knows of their requests, and takes them in. The first that cannot be true
/// is returned as the complaint; those after it are not looked at.
pub(super) async fn take_in(desk: &Desk, channel: &Channel, receipts: &[SignedReceipt]) -> Result<(), String> {
    for signed in receipts {
        let receipt = &signed.receipt;
        let ours = {
            let account = channel.account();
            // A request under way is settled by its own stream, which knows what arrived.
            !account.knows(receipt.sequence) && !account.is_active(&receipt.request)
        };
        if !ours {
            continue;
        }
        let known = desk
            .store
            .request(receipt.request)
            .await
            .map_err(|error| error.to_string())?;
        // Every request is on disk before its first voucher leaves, so a receipt for another one is made up.
        let known = known.filter(|known| known.channel == channel.id);
        let observed = known
            .as_ref()
            .map(limits)
            .ok_or("a receipt is for a request that was never made")?;
        settle(desk, channel, signed, &observed)
            .await
            .map_err(|error| error.to_string())?;
        tracing::info!(channel = %channel.id, sequence = receipt.sequence, cost = %receipt.cost, "a late receipt settled");
    }
    Ok(())
}

/// The most that a late receipt may say: what was paid ahead, and an answer of which no more is known.
fn limits(known: &OpenRequest) -> Observed {
    Observed {
        price: known.price,
        request_hash: known.request_hash,
        usage: Usage {
            // What the provider counted when it accepted; without that, the most that there can be.
            input: if known.received_input > 0 {
                known.received_input
            } else {
                known.max_input
            },
            output: known.covered_output,
        },
        response_hash: None,
    }
}

async fn settle(desk: &Desk, channel: &Channel, signed: &SignedReceipt, observed: &Observed) -> Result<(), Error> {
    let settled = channel.account().settle(signed, Some(observed), &desk.ledger.domain);
    settled.map_err(|error| Error::ProviderFailed {
        reason: error.to_string(),
        charged: true,
    })?;
    desk.store.settle_request(signed).await
}

#[cfg(test)]
mod tests {
    use rialto_protocol::{ChannelId, Digest, Price};

    use super::*;

    #[test]
    fn a_late_receipt_may_bill_the_input_that_its_provider_counted() {
        let mut known = OpenRequest {
            channel: ChannelId::default(),
            price: Price::default(),
            request_hash: Digest::default(),
            max_input: 100,
            received_input: 7,
            covered_output: 4,
        };
        assert_eq!(limits(&known).usage, Usage { input: 7, output: 4 });
        known.received_input = 0;
        assert_eq!(limits(&known).usage, Usage { input: 100, output: 4 });
    }
}
