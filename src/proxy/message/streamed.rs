//! A body that is written while it is made.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

use super::byte_body::BodyError;

/// What comes through a channel. It ends with the sender.
#[derive(Debug)]
pub struct StreamedBody(mpsc::Receiver<Bytes>);

impl StreamedBody {
    /// The body that `parts` make.
    pub(crate) fn new(parts: mpsc::Receiver<Bytes>) -> Self {
        Self(parts)
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}
