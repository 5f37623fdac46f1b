//! A request's body on one stream, and the answer's share in it.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::Stream;
use crate::http::replay::{Reader, Replay};
use crate::http::upload::UploadError;

/// What hyper reads. The stream is counted until both this and the answer have ended.
pub struct Part {
    reader: Reader,
    _stream: Rc<Stream>,
}

impl Part {
    pub fn new(body: &Rc<RefCell<Replay>>, stream: &Rc<Stream>) -> Self {
        Self { reader: Reader::new(body), _stream: stream.clone() }
    }
}

impl Body for Part {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let poll = self.get_mut().reader.poll_frame(cx);
        poll.map(|frame| frame.map(|frame| frame.map_err(Broken::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}

/// A request whose body does not come whole. hyper looks for a reason among the causes: this one
/// is told to the backend, and not that somebody here made a mistake.
#[derive(Debug)]
pub struct Broken {
    why: UploadError,
    reason: h2::Error,
}

impl Broken {
    fn new(why: UploadError) -> Self {
        Self { why, reason: h2::Reason::CANCEL.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

/// An answer's share of a connection. Dropped, what is left of the request is wanted no longer.
pub struct Share {
    body: Rc<RefCell<Replay>>,
    _stream: Rc<Stream>,
}

impl Share {
    pub fn new(body: Rc<RefCell<Replay>>, stream: Rc<Stream>) -> Self {
        body.borrow_mut().forget();
        Self { body, _stream: stream }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.body.borrow_mut().detach();
    }
}
