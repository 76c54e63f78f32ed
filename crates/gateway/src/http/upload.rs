//! A file on its way to disk: a form of several parts, bounded in size and time, and never whole in memory.

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use multer::{Constraints, Field, Multipart, SizeLimit, parse_boundary};
use rialto_api::{
    BadRequest,
    openai::{ExpiresAfter, file_name},
};
use tokio::{fs::File, io::AsyncWriteExt as _, time::timeout};

use crate::{Error, batch::Folder, config::ms, desk::Desk};

/// Longest value of a part that is not the file, and most parts.
const MAX_VALUE: usize = 256;
const MAX_PARTS: usize = 16;
/// Bytes of a form besides its file.
const AROUND_FILE: u64 = 64 << 10;

/// A file that is on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Seconds after which it is gone, if its owner said so.
    pub(super) seconds: Option<u64>,
}

/// How a form is read.
struct Reader<'a> {
    folder: &'a Folder,
    id: &'a str,
    most: u64,
    /// For each piece to arrive, in milliseconds.
    patience: u64,
}

/// The parts of a form that were read.
#[derive(Default)]
struct Form {
    file: Option<(String, u64, File)>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

/// Receives a form with a file, and keeps the file under an id.
pub(super) async fn receive(desk: &Desk, headers: &HeaderMap, body: Body, id: &str) -> Result<Received, Error> {
    let reader = Reader {
        folder: &desk.batches.folder,
        id,
        most: desk.config.batches.max_file_bytes,
        patience: desk.config.timeouts.body_ms,
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = parse_boundary(kind.unwrap_or_default());
    let boundary = boundary.map_err(|_| malformed("the content type must be multipart/form-data with a boundary"))?;
    reader.receive(body, boundary).await
}

fn malformed(reason: &str) -> Error {
    BadRequest {
        param: None,
        code: "invalid_form",
        message: format!("We could not read the form of your request: {reason}."),
    }
    .into()
}

impl Reader<'_> {
    async fn receive(&self, body: Body, boundary: String) -> Result<Received, Error> {
        let whole = SizeLimit::new().whole_stream(self.most.saturating_add(AROUND_FILE));
        let limits = Constraints::new().size_limit(whole);
        let mut parts = Multipart::with_constraints(body.into_data_stream(), boundary, limits);
        let mut form = Form::default();
        for _ in 0..MAX_PARTS {
            let part = timeout(ms(self.patience), parts.next_field()).await;
            let part = part.map_err(|_| Error::BodyMissing)?;
            match part.map_err(|error| self.explain(&error))? {
                Some(part) => self.take(part, &mut form).await?,
                None => return self.keep(form).await,
            }
        }
        Err(malformed("it has too many parts"))
    }

    async fn take(&self, part: Field<'_>, form: &mut Form) -> Result<(), Error> {
        let name = part.name().unwrap_or_default().to_owned();
        let slot = match name.as_str() {
            "file" if form.file.is_some() => return Err(BadRequest::value("file", "it comes twice").into()),
            "file" => {
                form.file = Some(self.store(part).await?);
                return Ok(());
            }
            "purpose" => &mut form.purpose,
            "expires_after[anchor]" => &mut form.anchor,
            "expires_after[seconds]" => &mut form.seconds,
            _ => {
                let shown: String = name.chars().take(64).collect();
                return Err(BadRequest::unsupported(shown, "it is not known").into());
            }
        };
        *slot = Some(self.value(part, &name).await?);
        Ok(())
    }

    async fn piece(&self, part: &mut Field<'_>) -> Result<Option<bytes::Bytes>, Error> {
        let piece = timeout(ms(self.patience), part.chunk()).await;
        piece
            .map_err(|_| Error::BodyMissing)?
            .map_err(|error| self.explain(&error))
    }

    async fn value(&self, mut part: Field<'_>, name: &str) -> Result<String, Error> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut part).await? {
            if bytes.len() + piece.len() > MAX_VALUE {
                return Err(BadRequest::value(name, format!("at most {MAX_VALUE} bytes")).into());
            }
            bytes.extend_from_slice(&piece);
        }
        String::from_utf8(bytes).map_err(|_| BadRequest::value(name, "must be text in UTF-8").into())
    }

    async fn store(&self, mut part: Field<'_>) -> Result<(String, u64, File), Error> {
        let name = file_name(part.file_name().unwrap_or_default());
        let mut file = self.folder.begin(self.id).await?;
        let mut length = 0u64;
        while let Some(piece) = self.piece(&mut part).await? {
            length = length.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if length > self.most {
                return Err(self.too_large());
            }
            let written = file.write_all(&piece).await;
            written.map_err(|error| Error::Files(error.to_string()))?;
        }
        let flushed = file.flush().await;
        flushed.map_err(|error| Error::Files(error.to_string()))?;
        Ok((name, length, file))
    }

    /// Checks the whole form, and gives its file its name.
    async fn keep(&self, form: Form) -> Result<Received, Error> {
        let (name, bytes, file) = form.file.ok_or_else(|| BadRequest::missing("file"))?;
        let purpose = form.purpose.ok_or_else(|| BadRequest::missing("purpose"))?;
        if purpose != "batch" {
            return Err(BadRequest::value("purpose", "only 'batch' is supported").into());
        }
        if bytes == 0 {
            return Err(BadRequest::value("file", "it is empty").into());
        }
        let seconds = match (form.anchor, form.seconds) {
            (None, None) => None,
            (anchor, seconds) => {
                let seconds = seconds.ok_or_else(|| BadRequest::missing("expires_after[seconds]"))?;
                let after = ExpiresAfter {
                    anchor: anchor.ok_or_else(|| BadRequest::missing("expires_after[anchor]"))?,
                    seconds: seconds
                        .parse()
                        .map_err(|_| BadRequest::value("expires_after[seconds]", "must be a number"))?,
                };
                Some(after.checked("expires_after")?)
            }
        };
        self.folder.keep(self.id, file).await?;
        Ok(Received { name, bytes, seconds })
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            limit: usize::try_from(self.most).unwrap_or(usize::MAX),
        }
    }

    fn explain(&self, error: &multer::Error) -> Error {
        match error {
            multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => self.too_large(),
            multer::Error::StreamReadFailed(_) => Error::BodyMissing,
            _ => malformed("its parts are not separated as its content type says"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const MOST: u64 = 64;

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut text = String::new();
        for (name, value) in parts {
            let file = if *name == "file" { "; filename=\"a.jsonl\"" } else { "" };
            text += &format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n");
        }
        (text + "--B--\r\n").into_bytes()
    }

    /// Receives a form that arrives in pieces of this size.
    async fn received(bytes: &[u8], size: usize) -> (Result<Received, Error>, Option<Vec<u8>>) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).await.unwrap();
        let pieces: Vec<Result<Bytes, std::io::Error>> = bytes
            .chunks(size.max(1))
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let reader = Reader {
            folder: &folder,
            id: "file-1",
            most: MOST,
            patience: 5_000,
        };
        let body = Body::from_stream(futures::stream::iter(pieces));
        let result = reader.receive(body, "B".into()).await;
        (result, std::fs::read(root.path().join("file-1")).ok())
    }

    fn param(result: Result<Received, Error>) -> String {
        let public = result.unwrap_err().public();
        public.param.unwrap_or(public.code.to_owned())
    }

    #[tokio::test]
    async fn a_form_is_checked_part_by_part_and_nothing_is_kept_of_a_bad_one() {
        let good = form(&[("purpose", "batch"), ("file", "{}\n")]);
        let (kept, content) = received(&good, 7).await;
        assert_eq!(
            (kept.unwrap(), content.unwrap()),
            (
                Received {
                    name: "a.jsonl".into(),
                    bytes: 3,
                    seconds: None
                },
                b"{}\n".to_vec()
            )
        );
        let long = "x".repeat(65);
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("purpose", "batch")], "file"),
            (&[("file", "x")], "purpose"),
            (&[("purpose", "vision"), ("file", "x")], "purpose"),
            (&[("purpose", "batch"), ("file", "")], "file"),
            (&[("purpose", "batch"), ("file", "x"), ("file", "y")], "file"),
            (&[("purpose", "batch"), ("file", &long)], "request_too_large"),
            (&[("colour", "red")], "colour"),
            (
                &[("purpose", "batch"), ("file", "x"), ("expires_after[seconds]", "7200")],
                "expires_after[anchor]",
            ),
        ];
        for (parts, fault) in cases {
            let (result, content) = received(&form(parts), 1_000).await;
            assert_eq!((param(result).as_str(), content), (fault, None), "{parts:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// How a form is cut on its way changes nothing.
        #[test]
        fn any_content_arrives_as_it_was_sent(content in "[a-z\r\n-]{1,60}", size in 1usize..80) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let bytes = form(&[("file", &content), ("purpose", "batch")]);
            prop_assume!(!content.contains("--B"));
            let (result, kept) = runtime.block_on(received(&bytes, size));
            prop_assert_eq!(result.unwrap().bytes, u64::try_from(content.len()).unwrap());
            prop_assert_eq!(kept.unwrap(), content.into_bytes());
        }

        /// A form that is cut short, or no form at all, is refused, and nothing is kept.
        #[test]
        fn what_is_no_whole_form_is_refused(cut in 0usize..1_000, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let bytes = form(&[("purpose", "batch"), ("file", "{\"a\": 1}")]);
            // The last separator ends with two dashes; what follows them does not count.
            let short = bytes.get(..cut % (bytes.len() - 4)).unwrap();
            for bytes in [short, noise.as_slice()] {
                let (result, kept) = runtime.block_on(received(bytes, 16));
                prop_assert!(result.is_err() && kept.is_none());
            }
        }
    }
}
