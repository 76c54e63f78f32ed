//! Outcomes of requests as lines of the output and of the errors, and the files that they are in.

use rialto_api::openai::{BatchFailure, BatchOutcome, BatchResponse};
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::{
    Error,
    desk::Desk,
    http::Failure,
    store::{BatchRow, Ended, LineRow, Written},
};

/// How one request ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) number: u64,
    good: bool,
    /// A line of the output or of the errors.
    text: Vec<u8>,
}

impl Outcome {
    fn new(line: &LineRow, good: bool, response: Option<BatchResponse>, error: Option<BatchFailure>) -> Self {
        let outcome = BatchOutcome {
            id: request_id(line),
            custom_id: line.custom_id.clone(),
            response,
            error,
        };
        let mut text = serde_json::to_vec(&outcome).unwrap_or_default();
        text.push(b'\n');
        Self {
            number: line.number,
            good,
            text,
        }
    }

    /// It was answered.
    pub(super) fn answered(line: &LineRow, status: u16, body: &[u8]) -> Self {
        let good = (200..300).contains(&status);
        let response = BatchResponse {
            status_code: status,
            request_id: request_id(line),
            body: serde_json::from_slice(body).unwrap_or_default(),
        };
        Self::new(line, good, Some(response), None)
    }

    /// It failed as it would have failed alone.
    pub(super) fn failed(line: &LineRow, error: Error) -> Self {
        let (status, _, body) = Failure::from(error).parts();
        Self::answered(line, status, &body)
    }

    /// Its batch's time ran out before it was asked.
    pub(super) fn expired(line: &LineRow) -> Self {
        let error = BatchFailure {
            code: "batch_expired".into(),
            message: "This request could not be executed before the completion window expired.".into(),
        };
        Self::new(line, false, None, Some(error))
    }

    /// It was sent, and a crash took its answer. It is not sent again: it would be paid twice.
    pub(super) fn lost(line: &LineRow) -> Self {
        let public = Error::IdempotencyLost.public();
        let message = "The answer to this request was lost, and it may have been billed. Send it in a new batch to run \
                       it again.";
        let error = BatchFailure {
            code: public.code.into(),
            message: message.into(),
        };
        Self::new(line, false, None, Some(error))
    }
}

/// A request's id, the same however often it is looked at.
fn request_id(line: &LineRow) -> String {
    let (first, _) = line.id.split_at(16);
    format!("batch_req_{}", hex::encode(first))
}

/// The ids of a batch's output and of its errors. They are made of the batch's own, so that a crash in the middle of
/// writing them leaves nothing behind that is not found again.
pub(super) fn file_ids(batch: &str) -> [String; 2] {
    ["output", "errors"].map(|part| {
        let mut hasher = blake3::Hasher::new_derive_key("rialto gateway 2026-11 batch file v1");
        hasher.update(batch.as_bytes());
        hasher.update(part.as_bytes());
        let hash = hasher.finalize();
        let (first, _) = hash.as_bytes().split_at(12);
        format!("file-{}", hex::encode(first))
    })
}

/// A batch's output and errors while it is worked on.
pub(super) struct Outputs {
    output: File,
    errors: File,
    written: Written,
}

impl Outputs {
    /// Opens both, without what was written and not noted.
    pub(super) async fn resume(desk: &Desk, batch: &BatchRow) -> Result<Self, Error> {
        let [output, errors] = file_ids(&batch.id);
        let folder = &desk.batches.folder;
        Ok(Self {
            output: folder.resume(&output, batch.written.output).await?,
            errors: folder.resume(&errors, batch.written.errors).await?,
            written: batch.written,
        })
    }

    /// Writes outcomes and has them on disk, then notes them: in this order, so that what is noted is there.
    pub(super) async fn write(&mut self, desk: &Desk, batch: &str, outcomes: &[Outcome]) -> Result<(), Error> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            let part = if outcome.good { &mut good } else { &mut bad };
            part.extend_from_slice(&outcome.text);
        }
        append(&mut self.output, &good).await?;
        append(&mut self.errors, &bad).await?;
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let written = Written {
            output: self.written.output.saturating_add(length(&good)),
            errors: self.written.errors.saturating_add(length(&bad)),
        };
        let ended: Vec<Ended> = outcomes
            .iter()
            .map(|outcome| Ended {
                number: outcome.number,
                good: outcome.good,
            })
            .collect();
        desk.store.end_lines(batch, &ended, written).await?;
        self.written = written;
        Ok(())
    }
}

async fn append(file: &mut File, bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    let write = async {
        file.write_all(bytes).await?;
        file.sync_data().await
    };
    write.await.map_err(|error| Error::Files(error.to_string()))
}
