//! What a buyer is told when something fails: our errors as refusals, with the inside kept in the log.

use rialto_engine::Error as EngineError;
use rialto_protocol::{
    account::VoucherError,
    job::BadJob,
    wire::{Refusal, RefusalCode},
};
use tracing::error;

use crate::{Error, queue::Full};

/// Most bytes of a message, by the protocol.
const MAX_MESSAGE: usize = 1_024;

/// A failure of this room.
pub(crate) fn internal(inside: &Error) -> Refusal {
    error!(error = %inside, "a trade failed inside");
    // A store that failed stays so until a restart: for a buyer that is a provider that stops.
    let code = if matches!(inside, Error::Stopping | Error::StoreFailed) {
        RefusalCode::ShuttingDown
    } else {
        RefusalCode::EngineFailed
    };
    Refusal::new(code, inside.public())
}

/// A job that is out of bounds.
pub(crate) fn job(bad: &BadJob) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, short(bad.to_string())).with_field(bad.field.clone())
}

/// An engine's complaint.
pub(crate) fn engine(complaint: &EngineError) -> Refusal {
    let message = short(complaint.public());
    match complaint {
        EngineError::BadRequest(bad) => job(bad),
        EngineError::ContextExceeded { .. } => Refusal::new(RefusalCode::ContextExceeded, message),
        EngineError::Busy => Refusal::new(RefusalCode::Busy, message).with_retry_after(1_000),
        inside => {
            error!(error = %inside, "the engine failed");
            Refusal::new(RefusalCode::EngineFailed, message)
        }
    }
}

/// A request that cannot be served in time.
pub(crate) fn full(full: Full) -> Refusal {
    busy("all slots are taken for longer than this can wait", full.retry_after_ms)
}

/// Somebody who asks for too much at once; may come back in so many milliseconds.
pub(crate) fn busy(message: &str, retry_after_ms: u64) -> Refusal {
    Refusal::new(RefusalCode::Busy, message).with_retry_after(retry_after_ms)
}

/// A request that its buyer cancelled before anything was done for it.
pub(crate) fn cancelled() -> Refusal {
    Refusal::new(RefusalCode::BadRequest, "the request was cancelled while it waited")
}

/// A voucher that does not pay.
pub(crate) fn voucher(complaint: VoucherError) -> Refusal {
    let code = match complaint {
        VoucherError::Unfunded { .. } => RefusalCode::ChannelExhausted,
        VoucherError::OtherChannel
        | VoucherError::TooLow { .. }
        | VoucherError::UnknownHead
        | VoucherError::TooLarge(_) => RefusalCode::BadVoucher,
    };
    Refusal::new(code, complaint.to_string())
}

/// A provider that is stopping.
pub(crate) fn stopping() -> Refusal {
    Refusal::new(RefusalCode::ShuttingDown, Error::Stopping.public())
}

fn short(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = short("ä".repeat(1_000));
        assert_eq!(cut.len(), MAX_MESSAGE);
        assert_eq!(short("ok".into()), "ok");
    }

    #[test]
    fn the_inside_of_a_failure_is_not_told() {
        let refusal = internal(&Error::Corrupt("row 7 of /secret/path"));
        assert!(!refusal.message.contains("secret"));
        let refusal = engine(&EngineError::Failed("cuda at 0x7f".into()));
        assert_eq!(refusal.code, RefusalCode::EngineFailed);
        assert!(!refusal.message.contains("cuda"));
    }
}
