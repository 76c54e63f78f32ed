//! Reads a batch's file line by line, and notes its requests.

use rialto_api::{
    BadRequest,
    openai::{
        BatchEndpoint, BatchError, BatchLine, BatchStatus, ChatRequest, CompletionRequest, EmbeddingRequest,
        MAX_BATCH_REQUESTS,
    },
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::{
    Error,
    desk::Desk,
    store::{BatchRow, LineRow, now},
};

/// Errors that are told; a file with more is as useless.
const MAX_ERRORS: usize = 100;
/// Lines that are noted at a time: requests of others write in between.
const GROUP: usize = 256;
/// Bytes of a line besides its body.
const AROUND_BODY: u64 = 4_096;

/// Reads the file, and moves the batch on.
pub(super) async fn run(desk: &Desk, batch: &BatchRow) -> Result<(), Error> {
    desk.store.clear_lines(&batch.id).await?;
    let mut reading = Reading {
        desk,
        batch,
        offset: 0,
        number: 0,
        group: Vec::new(),
        errors: Vec::new(),
        total: 0,
    };
    if let Err(error) = reading.all().await {
        // Another look would find the same.
        let Error::Files(reason) = error else { return Err(error) };
        tracing::error!(batch = %batch.id, reason, "a batch's file cannot be read");
        let message = "The input file cannot be read any more. Upload it again.".to_owned();
        reading.errors = vec![whole("unreadable_file", message)];
    }
    let Reading { errors, total, .. } = reading;
    if !errors.is_empty() {
        return desk.store.fail_batch(&batch.id, &errors, now()).await;
    }
    desk.store.set_total(&batch.id, total).await?;
    // False if it was cancelled meanwhile.
    let (from, to) = (BatchStatus::Validating, BatchStatus::InProgress);
    desk.store.move_batch(&batch.id, from, to, now()).await?;
    Ok(())
}

struct Reading<'a> {
    desk: &'a Desk,
    batch: &'a BatchRow,
    offset: u64,
    number: u64,
    group: Vec<LineRow>,
    errors: Vec<BatchError>,
    total: u64,
}

impl Reading<'_> {
    async fn all(&mut self) -> Result<(), Error> {
        let file = self.desk.batches.folder.read(&self.batch.input_file).await?;
        let most = u64::try_from(self.desk.config.max_body_bytes)
            .unwrap_or(u64::MAX)
            .saturating_add(AROUND_BODY);
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line that is too long is not read into memory.
            let read = (&mut reader)
                .take(most.saturating_add(1))
                .read_until(b'\n', &mut line)
                .await;
            let read = u64::try_from(read.map_err(|error| Error::Files(error.to_string()))?).unwrap_or(u64::MAX);
            if read == 0 {
                break;
            }
            self.number += 1;
            if read > most {
                let bad = BadRequest::value("body", format!("a line has at most {most} bytes"));
                self.errors.push(BatchError::at(self.number, bad));
                break;
            }
            self.take(&line).await?;
            self.offset = self.offset.saturating_add(read);
            if self.errors.len() >= MAX_ERRORS || self.total > MAX_BATCH_REQUESTS {
                break;
            }
        }
        self.flush().await?;
        self.judge();
        Ok(())
    }

    /// What is wrong with the file as a whole.
    fn judge(&mut self) {
        if self.total > MAX_BATCH_REQUESTS {
            let message = format!("The file has more than {MAX_BATCH_REQUESTS} requests.");
            self.errors.push(whole("too_many_requests", message));
        } else if self.total == 0 && self.errors.is_empty() {
            self.errors
                .push(whole("empty_file", "The file has no requests.".into()));
        }
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), Error> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        // A file may end with empty lines; an empty line elsewhere does no harm either.
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        self.total += 1;
        match BatchLine::parse(text, self.batch.endpoint) {
            Ok(read) => {
                let (model, input, output) = self.expected(&read);
                self.group.push(LineRow {
                    number: self.number,
                    id: line_id(&self.batch.id, self.number),
                    custom_id: read.custom_id,
                    offset: self.offset,
                    length: u64::try_from(text.len()).unwrap_or(u64::MAX),
                    model,
                    input,
                    output,
                });
            }
            Err(bad) => self.errors.push(BatchError::at(self.number, bad)),
        }
        if self.group.len() >= GROUP {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let group = std::mem::take(&mut self.group);
        // What is to be refused anyway need not be noted.
        if group.is_empty() || !self.errors.is_empty() {
            return Ok(());
        }
        if let Some(number) = self.desk.store.add_lines(&self.batch.id, &group).await? {
            let bad = BadRequest::value("custom_id", "it is used by an earlier line");
            self.errors.push(BatchError::at(number, bad));
        }
        Ok(())
    }

    /// The model that a request names, and the units that it is likely to need at most: sellers bid for them. A body that
    /// cannot be read fails when it is asked, as it would alone.
    fn expected(&self, line: &BatchLine) -> (String, u64, u64) {
        let body = line.body.get().as_bytes();
        let input = u64::try_from(body.len()).unwrap_or(u64::MAX) / 3 + 64;
        let default = self.desk.config.default_max_tokens;
        let read = match self.batch.endpoint {
            BatchEndpoint::Chat => {
                ChatRequest::parse(body).map(|asked| (asked.model, asked.sampling.limit().unwrap_or(default)))
            }
            BatchEndpoint::Completion => {
                CompletionRequest::parse(body).map(|asked| (asked.model, asked.sampling.limit().unwrap_or(default)))
            }
            BatchEndpoint::Embedding => EmbeddingRequest::parse(body).map(|asked| (asked.model, 0)),
        };
        match read {
            Ok((model, output)) => (model.chars().take(256).collect(), input, output),
            Err(_) => (String::new(), 0, 0),
        }
    }
}

/// What is wrong with a file as a whole.
fn whole(code: &str, message: String) -> BatchError {
    BatchError {
        code: code.into(),
        message,
        param: None,
        line: None,
    }
}

/// The idempotency id of a request: of its batch and its line alone.
fn line_id(batch: &str, number: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("rialto gateway 2026-11 batch line v1");
    hasher.update(batch.as_bytes());
    hasher.update(&number.to_le_bytes());
    *hasher.finalize().as_bytes()
}
