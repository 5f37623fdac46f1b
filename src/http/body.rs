//! A response's body on its way to the client: one enum, unboxed, carrying guards to its last byte.
//!
//! [`Body`] is nothing, a text of ours, or a backend's answer with whatever must live exactly as long
//! as it does. What the guards mean is not known here. Requests' bodies are in [`super::upload`].

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::serve::Call;
use super::timer::{Patience, Wake};
use super::trailers;

/// What travels inside a relayed body. Dropped without [`Guard::ended`]: the client went away.
pub trait Guard: Unpin {
    fn moved(&mut self, bytes: usize);
    fn ended(&mut self, ending: Ending);
}

/// How a relayed body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Complete,
    /// The backend broke off.
    Broken,
    /// The backend said nothing for the pool's `timeouts.idle`.
    Stalled,
    /// It was not whole when its time was over.
    Late,
    /// A drain's deadline or a shutdown.
    Cut,
}

/// A response body.
pub enum Body<G> {
    Empty,
    Full(Option<Bytes>),
    /// A text of ours for a request that was none (RFC 9113 section 8.1.1): its stream is reset after
    /// it, a turn of the event loop later, since a reset takes back what is not written yet.
    Refusal {
        text: Option<Bytes>,
        written: bool,
    },
    Relay(Relay<G>),
}

/// A backend's answer on its way to the client.
pub struct Relay<G> {
    incoming: Incoming,
    guard: G,
    call: Rc<Call>,
    patience: Patience,
    waiting: bool,
    over: bool,
}

impl<G: Guard> Body<G> {
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Full(Some(text.into()))
    }

    pub fn refusal(text: impl Into<Bytes>) -> Self {
        Self::Refusal { text: Some(text.into()), written: false }
    }

    /// Relays `incoming`, as long as `patience` lasts.
    pub fn relay(incoming: Incoming, mut guard: G, call: Rc<Call>, patience: Patience) -> Self {
        let over = incoming.is_end_stream();
        if over {
            guard.ended(Ending::Complete);
        }
        Self::Relay(Relay { incoming, guard, call, patience, waiting: false, over })
    }
}

/// A response body that did not arrive whole; the connection ends visibly short of its end.
#[derive(Debug)]
pub enum BodyError {
    Broken(hyper::Error),
    Ended(Ending),
    Malformed(h2::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(_) => f.write_str("the backend's answer broke off"),
            Self::Ended(ending) => write!(f, "the backend's answer was ended: {ending:?}"),
            Self::Malformed(_) => f.write_str("the request was malformed"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            // Where hyper finds the code to reset the stream with.
            Self::Malformed(error) => Some(error),
            Self::Ended(_) => None,
        }
    }
}

impl<G: Guard> Relay<G> {
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // One that never pauses is over all the same.
        if !self.over && self.patience.is_over(Instant::now) {
            return self.give_up(Ending::Late);
        }
        if self.call.is_ahead() {
            // The connection's loop asks again once that is written.
            return Poll::Pending;
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.waiting = false;
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::keep_allowed(trailers);
                }
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if bytes > 0 {
                    self.guard.moved(bytes);
                }
                // With a Content-Length hyper does not ask again after the last byte.
                if self.incoming.is_end_stream() || self.is_at_length(cx) {
                    self.end(Ending::Complete);
                }
                self.call.lend(bytes);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(Ending::Broken);
                Poll::Ready(Some(Err(BodyError::Broken(error))))
            }
            Poll::Ready(None) => {
                self.end(Ending::Complete);
                Poll::Ready(None)
            }
            Poll::Pending => {
                if !self.waiting {
                    self.waiting = true;
                    self.call.want();
                    let now = Instant::now();
                    self.call.timer.set(now, self.patience.after(now));
                }
                match std::task::ready!(self.call.timer.poll(cx)) {
                    Wake::Due if self.patience.is_over(Instant::now) => self.give_up(Ending::Late),
                    Wake::Due => self.give_up(Ending::Stalled),
                    Wake::Cut => self.give_up(Ending::Cut),
                }
            }
        }
    }

    /// Whether all bytes that an HTTP/2 answer announced have come. Its end may be in a frame of its
    /// own, and is read here: a body dropped before it would reset a stream that is complete.
    fn is_at_length(&mut self, cx: &mut Context<'_>) -> bool {
        let at_length = self.incoming.size_hint().exact() == Some(0);
        if at_length {
            let _ = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        at_length
    }

    fn give_up(&mut self, ending: Ending) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.end(ending);
        Poll::Ready(Some(Err(BodyError::Ended(ending))))
    }

    fn end(&mut self, ending: Ending) {
        if !self.over {
            self.over = true;
            self.call.timer.clear();
            self.guard.ended(ending);
        }
    }
}

impl<G: Guard> HttpBody for Body<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Refusal { text, written } => match text.take() {
                Some(text) => Poll::Ready(Some(Ok(Frame::data(text)))),
                None if *written => {
                    Poll::Ready(Some(Err(BodyError::Malformed(h2::Reason::PROTOCOL_ERROR.into()))))
                }
                None => {
                    *written = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            Self::Relay(relay) => relay.poll_relay(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(text) => text.is_none(),
            Self::Refusal { .. } => false,
            Self::Relay(relay) => relay.over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Refusal { .. } => SizeHint::new(),
            Self::Relay(relay) => relay.incoming.size_hint(),
        }
    }
}
