//! What goes out with a request, and what comes of it.
//!
//! Start at [`Errand`] and [`SendError`]. How long an answer's head is waited for is here too, as it is
//! the same for either version of HTTP.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::Link;
use super::connect::ConnectError;
use super::tls::TlsFault;
use super::way::Pair;
use crate::http::timer::{Patience, Timer, Wake};
use crate::http::upload::{Progress, Upload};

/// A backend's answer, and the connection to give back when its body has ended.
pub struct Sent {
    pub response: Response<Incoming>,
    pub link: Link,
    pub reused: bool,
}

/// What became of a request that got no answer.
pub struct SendError {
    pub kind: SendErrorKind,
    /// The request, if nothing of it was written, or the backend said that it did nothing with it:
    /// it can go anywhere.
    pub unsent: Option<Request<Upload>>,
    pub reused: bool,
}

#[derive(Debug)]
pub enum SendErrorKind {
    Connect(ConnectError),
    /// The connection ended before a response head.
    Reset(hyper::Error),
    /// What came is no HTTP/1 response.
    BadResponse(hyper::Error),
    /// No response head in time.
    Timeout,
    /// The client's body broke off, or is too large (the upload's state says which).
    Upload,
    /// Every connection is taken, and stayed so, or too many wait already.
    Full {
        waited: bool,
    },
    Cut,
}

impl SendErrorKind {
    /// Whether the backend is shut for everybody, not for this request alone.
    pub fn shuts(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_evidence())
    }
}

/// The limits of one attempt.
pub struct Limits<'a> {
    pub now: Instant,
    pub timer: &'a Timer,
    pub connect: Duration,
    /// For the head of the answer; a byte of the request that moved is a sign of life.
    pub response: Patience,
    /// How long for a stream while all are taken, and beside how many others.
    pub hold: Duration,
    pub max_held: usize,
}

/// Which connection a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Any that is idle: the request can be sent again.
    Idle,
    /// One that was used within the last second, or a fresh one: the request is not idempotent.
    Lively,
    Fresh,
}

/// What goes with a request.
pub struct Errand<'a, A> {
    /// Where the backend is.
    pub addresses: A,
    pub progress: Option<Rc<Progress>>,
    pub take: Take,
    pub limits: Limits<'a>,
    /// Whose request it is, where the backend wants to know.
    pub pair: Option<Pair>,
}

impl SendError {
    /// There is no connection of a version that could carry it.
    pub fn unopened(request: Request<Upload>) -> Self {
        let kind = SendErrorKind::Connect(TlsFault::NoProtocol.into());
        Self { kind, unsent: Some(request), reused: false }
    }
}

pub fn not_connected(wake: Wake) -> SendErrorKind {
    match wake {
        Wake::Due => SendErrorKind::Connect(ConnectError::Timeout),
        Wake::Cut => SendErrorKind::Cut,
    }
}

/// Waits for the head of an answer as long as the limits say.
pub async fn head<F: Future>(
    mut answer: Pin<&mut F>,
    limits: &Limits<'_>,
    mut from: Instant,
    progress: &Option<Rc<Progress>>,
) -> Result<F::Output, SendErrorKind> {
    loop {
        limits.timer.set(from, limits.response.after(from));
        match limits.timer.limit(answer.as_mut()).await {
            Ok(output) => {
                // A cut that came with the answer is for its body.
                limits.timer.disarm();
                return Ok(output);
            }
            Err(Wake::Cut) => return Err(SendErrorKind::Cut),
            Err(Wake::Due) => match progress.as_ref().and_then(|progress| progress.moved()) {
                Some(moved) if moved > from && !limits.response.is_over(Instant::now) => from = moved,
                _ => return Err(SendErrorKind::Timeout),
            },
        }
    }
}
