//! A stream with its two buffers, cut into frames.
//!
//! Reading and writing are one future, [`Connection::progress`]: the task that owns a connection needs no lock to read
//! while it writes, and none of the two can starve the other. Frames are taken from the read buffer and put into the write
//! buffer without waiting; only `progress` waits, and dropping it loses nothing.
//!
//! # Invariants
//! - Who puts frames in asks [`Connection::waiting_bytes`] first: it is the bound that keeps the write buffer small.
//! - The read buffer grows with what has arrived, never with what a frame's length claims.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use trine_protocol::frame::{Frame, FrameCodec, FrameError};

/// Bytes that a read makes room for where nothing says how much comes.
const READ_BYTES: usize = 16 * 1024;
/// A buffer that has grown beyond this by one large frame is given back when it is empty.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// How long a closing side waits for the other to read the last error, before the socket goes.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes that are read and thrown away meanwhile.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What [`Connection::progress`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that arrived.
    pub read: usize,
    /// Bytes that left.
    pub written: usize,
    /// The other side sends nothing any more.
    pub ended: bool,
}

/// A stream, cut into frames.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    codec: FrameCodec,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A fresh connection: the first frame that it reads must belong to a handshake.
    pub fn new(stream: S) -> Self {
        Self { stream, codec: FrameCodec::new(), incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    /// The next frame, if it has arrived as a whole.
    ///
    /// # Errors
    /// Where the bytes are no frame. The connection is of no use any more.
    pub fn take_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = self.codec.decode(&mut self.incoming);
        if self.incoming.is_empty() && self.incoming.capacity() > KEPT_BYTES_MAX {
            self.incoming = BytesMut::new();
        }
        frame
    }

    /// Whether the stream's end cut a frame in two.
    pub fn is_cut_off(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Puts a frame behind those that wait to be sent.
    ///
    /// # Errors
    /// `TooLarge`; then nothing was put in.
    pub fn put_frame(&mut self, frame: &Frame) -> Result<(), FrameError> {
        self.codec.encode(frame, &mut self.outgoing)
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends what waits and, if asked to, reads what comes; returns when either has got on. Dropping it loses nothing.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn progress(&mut self, read: bool) -> io::Result<Progress> {
        poll_fn(|context| self.poll_progress(read, context)).await
    }

    fn poll_progress(&mut self, read: bool, context: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        let mut progress = Progress::default();
        while !self.outgoing.is_empty() {
            match poll_write_buf(Pin::new(&mut self.stream), context, &mut self.outgoing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => progress.written += bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if self.outgoing.is_empty() && self.outgoing.capacity() > KEPT_BYTES_MAX {
            self.outgoing = BytesMut::new();
        }
        if read {
            self.incoming.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut self.stream), context, &mut self.incoming) {
                Poll::Ready(Ok(0)) => progress.ended = true,
                Poll::Ready(Ok(bytes)) => progress.read = bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        match progress == Progress::default() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(progress)),
        }
    }

    /// Reads until a whole frame is there. None where the stream ends before it begins.
    ///
    /// # Errors
    /// Where the stream fails, ends inside a frame, or carries none.
    pub async fn read_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            let progress = self.progress(true).await?;
            if progress.ended {
                return match self.incoming.len() {
                    0 => Ok(None),
                    bytes => Err(FrameError::CutOff(bytes)),
                };
            }
        }
    }

    /// Sends all that waits.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            self.progress(false).await?;
        }
        self.stream.flush().await
    }

    /// Says a last frame and closes. Closing with unread bytes would reset the connection and could take the frame away
    /// from under the other side; so what still comes is read and thrown away, for a moment.
    pub async fn close_with(mut self, last: &Frame) {
        let _ = self.put_frame(last);
        let farewell = async {
            self.flush().await?;
            self.stream.shutdown().await?;
            self.incoming.clear();
            let mut thrown_away = self.incoming.remaining();
            while thrown_away < LINGER_BYTES_MAX {
                let bytes = self.stream.read_buf(&mut self.incoming).await?;
                if bytes == 0 {
                    break;
                }
                thrown_away += bytes;
                self.incoming.clear();
            }
            io::Result::Ok(())
        };
        // Whether the other side hears it is its own affair.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}
