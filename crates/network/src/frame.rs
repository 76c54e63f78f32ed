//! Frames: a four-byte big-endian length, then postcard. The version is in the stream's ALPN.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use iroh::endpoint::{RecvStream, SendStream, VarInt};
use rialto_protocol::wire::{
    BuyerFrame, MAX_CONTROL_FRAME, MAX_OUTPUT_FRAME, MAX_REQUEST_FRAME, OffersRequest, OffersResponse, SellerFrame,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// Most bytes taken from the stream at a time; bounds what a peer can make us hold beyond a frame.
const READ_CHUNK: usize = 64 << 10;

/// Most bytes of a frame of the offers protocol.
const MAX_OFFERS_FRAME: usize = 4 << 20;

/// A message that travels in frames, with the largest size that a peer may send.
pub trait Frame: Serialize + DeserializeOwned + Send {
    /// Most bytes of the first frame of a stream.
    const FIRST_LIMIT: usize;
    /// Most bytes of every later frame.
    const LATER_LIMIT: usize;
}

impl Frame for BuyerFrame {
    const FIRST_LIMIT: usize = MAX_REQUEST_FRAME;
    const LATER_LIMIT: usize = MAX_CONTROL_FRAME;
}

impl Frame for SellerFrame {
    const FIRST_LIMIT: usize = MAX_OUTPUT_FRAME;
    const LATER_LIMIT: usize = MAX_OUTPUT_FRAME;
}

impl Frame for OffersRequest {
    const FIRST_LIMIT: usize = MAX_OFFERS_FRAME;
    const LATER_LIMIT: usize = 0;
}

impl Frame for OffersResponse {
    const FIRST_LIMIT: usize = MAX_OFFERS_FRAME;
    const LATER_LIMIT: usize = 0;
}

/// Both directions of one stream: `S` is sent, `R` is received.
#[derive(Debug)]
pub struct Trade<S, R> {
    sender: FrameSender<S>,
    receiver: FrameReceiver<R>,
}

impl<S: Frame, R: Frame> Trade<S, R> {
    pub(crate) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self {
            sender: FrameSender::new(send),
            receiver: FrameReceiver::new(recv),
        }
    }

    /// The two directions, to be used by different tasks.
    pub fn split(self) -> (FrameSender<S>, FrameReceiver<R>) {
        (self.sender, self.receiver)
    }
}

/// Sends frames.
#[derive(Debug)]
pub struct FrameSender<S> {
    stream: SendStream,
    frame: PhantomData<fn(S)>,
}

impl<S: Frame> FrameSender<S> {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            frame: PhantomData,
        }
    }

    /// Sends a frame; waits while the peer does not read. Not cancel-safe: a frame may be cut.
    pub async fn send(&mut self, frame: &S) -> Result<(), Error> {
        let bytes = encode(frame)?;
        self.stream.write_all(&bytes).await.map_err(Error::broken)
    }

    /// Ends the stream cleanly: the peer receives everything that was sent, then the end. Waits, for a short time at
    /// most, until it has.
    pub async fn finish(mut self) {
        if self.stream.finish().is_ok() {
            let wait = std::time::Duration::from_secs(5);
            drop(tokio::time::timeout(wait, self.stream.stopped()).await);
        }
    }

    /// Breaks the stream off: the peer may not receive what was sent last.
    pub fn abort(mut self) {
        // An error says that the stream is closed already.
        drop(self.stream.reset(VarInt::from_u32(1)));
    }
}

/// Receives frames.
#[derive(Debug)]
pub struct FrameReceiver<R> {
    stream: RecvStream,
    buffer: BytesMut,
    limit: usize,
    frame: PhantomData<fn() -> R>,
}

impl<R: Frame> FrameReceiver<R> {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limit: R::FIRST_LIMIT,
            frame: PhantomData,
        }
    }

    /// The next frame; `None` at a clean end. Cancel-safe: what was read so far is kept for the next call.
    pub async fn next(&mut self) -> Result<Option<R>, Error> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, self.limit)? {
                self.limit = R::LATER_LIMIT;
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_CHUNK).await.map_err(Error::broken)? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::Protocol("the stream ended inside a frame")),
            }
        }
    }
}

fn encode<S: Frame>(frame: &S) -> Result<Vec<u8>, Error> {
    let mut bytes =
        postcard::to_extend(frame, vec![0u8; 4]).map_err(|_| Error::Protocol("a frame cannot be encoded"))?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| Error::Protocol("a frame is too long"))?;
    if let Some(prefix) = bytes.first_chunk_mut::<4>() {
        *prefix = length.to_be_bytes();
    }
    Ok(bytes)
}

/// Takes one frame off the front of the buffer; `None` while it is not complete.
fn decode<R: Frame>(buffer: &mut BytesMut, limit: usize) -> Result<Option<R>, Error> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| Error::Protocol("a frame is too long"))?;
    if length > limit {
        return Err(Error::Protocol("a frame is longer than allowed"));
    }
    let Some(body) = buffer.get(4..4 + length) else {
        return Ok(None);
    };
    let (frame, rest) = postcard::take_from_bytes(body).map_err(|_| Error::Protocol("a frame cannot be decoded"))?;
    if !rest.is_empty() {
        return Err(Error::Protocol("a frame has bytes after its end"));
    }
    buffer.advance(4 + length);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rialto_protocol::wire::OffersRequest;

    use super::*;

    #[test]
    fn a_frame_survives_being_cut_anywhere() {
        let bytes = encode(&BuyerFrame::Cancel).unwrap();
        let mut buffer = BytesMut::new();
        for (index, byte) in bytes.iter().enumerate() {
            assert!(
                decode::<BuyerFrame>(&mut buffer, 100).unwrap().is_none(),
                "complete after {index} bytes"
            );
            buffer.extend_from_slice(&[*byte]);
        }
        assert_eq!(
            decode::<BuyerFrame>(&mut buffer, 100).unwrap(),
            Some(BuyerFrame::Cancel)
        );
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(
            decode::<OffersRequest>(&mut buffer, MAX_OFFERS_FRAME),
            Err(Error::Protocol(_))
        ));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&BuyerFrame::Cancel).unwrap();
        bytes.push(0);
        bytes[3] += 1;
        assert!(decode::<BuyerFrame>(&mut BytesMut::from(&bytes[..]), 100).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<BuyerFrame>(&mut buffer, 512) {}
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<SellerFrame>(&mut buffer, 512) {}
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<OffersRequest>(&mut buffer, 512) {}
        }
    }
}
