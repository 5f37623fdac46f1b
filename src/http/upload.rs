//! A request's body on its way to a backend.
//!
//! Start at [`Upload`]. It notes how far it got in a [`Progress`], which whoever waits for the answer
//! looks at. Answers' bodies are in `body`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::pace::{PaceWatch, TooSlow};
use super::replay::Replay;
use super::timer::Wheel;
use super::trailers;

/// Bytes of a body that are read while its request waits for a backend, give or take a piece.
const MAX_EARLY: u64 = 16 * 1024;

/// A request body on its way to a backend.
pub enum Upload {
    Empty,
    Stream {
        incoming: Incoming,
        progress: Rc<Progress>,
        gate: Option<Gate>,
        /// Its first pieces, where they were read before anybody wanted them.
        early: VecDeque<Frame<Bytes>>,
    },
    /// From its beginning, after a backend said that it did nothing with it.
    Again(Box<Replay>),
}

/// What an upload waits for before anybody is asked for its first byte, and whether it then is.
pub type Gate = Pin<Box<dyn Future<Output = bool>>>;

/// How far an upload got. Shared with whoever waits for the answer.
pub struct Progress {
    limit: u64,
    bytes: Cell<u64>,
    moved: Cell<Option<Instant>>,
    state: Cell<UploadState>,
    watch: Option<PaceWatch>,
    over: Cell<bool>,
    asks: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// Nobody has asked for a byte yet.
    Whole,
    Moving,
    Done,
    /// More than the listener's `max_body`.
    TooLarge,
    /// It came more slowly than the listener's `min_body_rate`.
    TooSlow,
    /// The client broke off or sent what is no body.
    Failed,
}

impl Progress {
    /// `limit` in bytes, 0 for none.
    pub fn new(limit: u64) -> Self {
        let state = Cell::new(UploadState::Whole);
        Self {
            limit,
            bytes: Cell::new(0),
            moved: Cell::new(None),
            state,
            watch: None,
            over: Cell::new(false),
            asks: RefCell::default(),
        }
    }

    /// Nobody wants the rest: whoever waits for it is told.
    pub fn give_up(&self) {
        self.over.set(true);
        if let Some(waker) = self.asks.take() {
            waker.wake();
        }
    }

    /// Ready when nobody wants the rest.
    fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        if self.over.get() {
            return Poll::Ready(());
        }
        let mut asks = self.asks.borrow_mut();
        if !asks.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *asks = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// At least so many bytes per second that the client is waited for; 0 for any.
    pub fn at_least(self, rate: u64, wheel: &Wheel) -> Self {
        Self { watch: (rate != 0).then(|| PaceWatch::new(rate, wheel)), ..self }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// When the last byte moved.
    pub fn moved(&self) -> Option<Instant> {
        self.moved.get()
    }

    pub fn state(&self) -> UploadState {
        self.state.get()
    }

    /// Bytes have come.
    fn came(&self, bytes: usize) {
        let now = Instant::now();
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.moved.set(Some(now));
        self.watch.iter().for_each(|watch| watch.came(now, bytes));
    }

    /// Nothing is there. Ready once the client has been waited for too long.
    fn poll_too_slow(&self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        self.watch.as_ref().map_or(Poll::Pending, |watch| watch.poll_too_slow(cx))
    }
}

/// A request body that ended before its end.
#[derive(Debug)]
pub enum UploadError {
    TooLarge,
    TooSlow,
    /// The backend answered without asking for it.
    Unwanted,
    Client(hyper::Error),
    /// Nobody wants it any more.
    Over,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is larger than max_body",
            Self::TooSlow => "the request's body comes more slowly than min_body_rate",
            Self::Unwanted => "nobody asked for the request's body",
            Self::Client(_) => "the client's body broke off",
            Self::Over => "the answer came before the end of the request",
        })
    }
}

impl std::error::Error for UploadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooLarge | Self::TooSlow | Self::Unwanted | Self::Over => None,
            Self::Client(error) => Some(error),
        }
    }
}

impl Upload {
    /// Ready when its client is found to have left before anybody wanted a byte. To notice that, the
    /// first pieces are read, of most bodies all there are; after their end hyper sees by itself
    /// whether the client is there. Not for one that waits to be asked.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Stream { incoming, progress, gate: None, early } = self else { return Poll::Pending };
        while lengths(early) < MAX_EARLY {
            match std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                Some(Ok(frame)) => early.push_back(frame),
                Some(Err(_)) => {
                    progress.state.set(UploadState::Failed);
                    return Poll::Ready(());
                }
                None => break,
            }
        }
        Poll::Pending
    }
}

fn lengths(frames: &VecDeque<Frame<Bytes>>) -> u64 {
    frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum()
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let (incoming, progress, gate, early) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Stream { incoming, progress, gate, early } => (incoming, progress, gate, early),
            Self::Again(replay) => return replay.poll_frame(0, cx),
        };
        if let Some(waiting) = gate {
            let wanted = std::task::ready!(waiting.as_mut().poll(cx));
            *gate = None;
            if !wanted {
                return Poll::Ready(Some(Err(UploadError::Unwanted)));
            }
        }
        if progress.state.get() == UploadState::Whole {
            progress.state.set(UploadState::Moving);
        }
        let next = match early.pop_front() {
            Some(early) => Poll::Ready(Some(Ok(early))),
            None => Pin::new(&mut *incoming).poll_frame(cx),
        };
        let Poll::Ready(frame) = next else {
            if progress.poll_over(cx).is_ready() {
                return Poll::Ready(Some(Err(UploadError::Over)));
            }
            let TooSlow = std::task::ready!(progress.poll_too_slow(cx));
            progress.state.set(UploadState::TooSlow);
            return Poll::Ready(Some(Err(UploadError::TooSlow)));
        };
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::keep_allowed(trailers);
                }
                progress.came(frame.data_ref().map_or(0, Bytes::len));
                if progress.limit != 0 && progress.bytes() > progress.limit {
                    progress.state.set(UploadState::TooLarge);
                    return Poll::Ready(Some(Err(UploadError::TooLarge)));
                }
                if early.is_empty() && incoming.is_end_stream() {
                    progress.state.set(UploadState::Done);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                progress.state.set(UploadState::Failed);
                Poll::Ready(Some(Err(UploadError::Client(error))))
            }
            None => {
                progress.state.set(UploadState::Done);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { incoming, early, .. } => early.is_empty() && incoming.is_end_stream(),
            Self::Again(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { incoming, early, .. } => with(incoming.size_hint(), lengths(early)),
            Self::Again(replay) => replay.size_hint(),
        }
    }
}

/// The size with what has been read already.
fn with(mut hint: SizeHint, read: u64) -> SizeHint {
    match hint.exact() {
        Some(rest) => hint = SizeHint::with_exact(rest + read),
        None => hint.set_lower(hint.lower() + read),
    }
    hint
}
