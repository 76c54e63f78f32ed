//! The sending end of a border: written at once where the socket takes it, later where it does not.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::{net::UnixStream, sync::Notify};

use super::frames::append;

/// Most bytes that wait for the other side. More means that it does not read any more.
const MOST_WAITING: usize = 512 << 20;

/// The sending end. Frames from one thread arrive in order; sending never blocks.
#[derive(Debug)]
pub struct Outbox {
    stream: Arc<UnixStream>,
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Bytes at the start that were written.
    written: usize,
}

impl Outbox {
    /// The sending end of this socket. [`Self::flush`] has to run beside it.
    pub fn new(stream: Arc<UnixStream>) -> Self {
        Self {
            stream,
            waiting: Mutex::default(),
            more: Notify::new(),
        }
    }

    /// Appends a frame to bytes that are sent in another way.
    pub fn encode<T: Serialize>(bytes: &mut Vec<u8>, frame: &T) -> io::Result<()> {
        append(bytes, frame)
    }

    /// Sends a frame. Fails when the other side is gone, does not read, or the frame is too large.
    pub fn send<T: Serialize>(&self, frame: &T) -> io::Result<()> {
        self.send_all(std::slice::from_ref(frame))
    }

    /// Sends frames in one go: each write by itself wakes the other side. Fails as [`Self::send`] does.
    pub fn send_all<T: Serialize>(&self, frames: &[T]) -> io::Result<()> {
        let mut waiting = self.waiting();
        let behind = !waiting.bytes.is_empty();
        let before = waiting.bytes.len();
        for frame in frames {
            if let Err(error) = append(&mut waiting.bytes, frame) {
                // All of them or none.
                waiting.bytes.truncate(before);
                return Err(error);
            }
        }
        if waiting.bytes.len() > MOST_WAITING {
            return Err(io::Error::other("the other side of the border does not read"));
        }
        // What was sent before goes first.
        if behind {
            return Ok(());
        }
        self.write(&mut waiting)?;
        if !waiting.bytes.is_empty() {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Writes what the socket would not take at once, for as long as the other side is there.
    pub async fn flush(&self) -> io::Result<()> {
        loop {
            self.more.notified().await;
            loop {
                self.stream.writable().await?;
                let mut waiting = self.waiting();
                self.write(&mut waiting)?;
                if waiting.bytes.is_empty() {
                    break;
                }
            }
        }
    }

    /// Writes as much as the socket takes.
    fn write(&self, waiting: &mut Waiting) -> io::Result<()> {
        loop {
            let rest = waiting.bytes.get(waiting.written..).unwrap_or_default();
            if rest.is_empty() {
                waiting.bytes.clear();
                // One large frame must not keep its memory for ever.
                waiting.bytes.shrink_to(1 << 20);
                waiting.written = 0;
                return Ok(());
            }
            match self.stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => waiting.written = waiting.written.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::border::{FrameReader, ToWorker};
    use rialto_protocol::job::Job;

    #[tokio::test]
    async fn frames_larger_than_the_socket_arrive_in_order_while_others_are_sent() {
        let (one, other) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(Arc::new(one)));
        let flushing = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.flush().await }
        });
        let large = ToWorker::Replay {
            id: 1,
            job: Job::Embedding {
                inputs: vec!["x".repeat(3 << 20)],
            },
            answer: vec![],
        };
        for number in 0..4 {
            outbox.send(&large).unwrap();
            outbox.send(&ToWorker::Ping { number }).unwrap();
        }
        let (mut reader, mut found, mut buffer) = (FrameReader::default(), Vec::new(), vec![0; 1 << 16]);
        while found.len() < 8 {
            other.readable().await.unwrap();
            if let Ok(count) = other.try_read(&mut buffer) {
                reader.extend(&buffer[..count]);
                while let Some(frame) = reader.take::<ToWorker>().unwrap() {
                    found.push(frame);
                }
            }
        }
        for (number, pair) in (0u64..).zip(found.chunks(2)) {
            assert_eq!(pair, [large.clone(), ToWorker::Ping { number }]);
        }
        drop(other);
        assert!(
            (0..10).any(|_| outbox.send(&large).is_err()),
            "nobody is there any more"
        );
        flushing.abort();
    }
}
