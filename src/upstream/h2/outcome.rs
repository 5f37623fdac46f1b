//! What became of a request that found no stream, or lost its own.

use std::error::Error;

use hyper::Request;

use crate::http::upload::Upload;
use crate::upstream::Failed;
use crate::upstream::alone::Alone;
use crate::upstream::errand::{SendError, SendErrorKind};
use crate::upstream::tls::TlsFault;

/// Why there is no stream.
pub enum Unopened {
    Failed(SendErrorKind),
    /// The backend now speaks HTTP/1; a connection, where one has been opened.
    Turned(Option<Box<Alone>>),
}

impl From<SendErrorKind> for Unopened {
    fn from(kind: SendErrorKind) -> Self {
        Self::Failed(kind)
    }
}

impl Unopened {
    /// Of a request that is there still, whole unless it has gone out before.
    pub(in crate::upstream) fn failed(self, request: Option<Request<Upload>>) -> Failed {
        match (self, request) {
            (Self::Turned(alone), Some(request)) => Failed::Turned(request, alone),
            (Self::Turned(_), None) => {
                let kind = SendErrorKind::Connect(TlsFault::NoProtocol.into());
                Failed::Send(SendError { kind, unsent: None, reused: false })
            }
            (Self::Failed(kind), unsent) => Failed::Send(SendError { kind, unsent, reused: false }),
        }
    }
}

/// What is known of a request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The backend did nothing with it, and takes others.
    Refused,
    /// The backend did nothing with it, and the connection takes no more.
    Leaving,
    /// The stream alone has ended. Nobody knows what was done.
    Reset,
    /// The connection has. Nor here.
    Broken,
}

impl Lost {
    /// RFC 9113 section 8.7.
    pub fn of(error: &hyper::Error) -> Self {
        let Some(error) = cause(error) else { return Self::Broken };
        let refused = error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        match (error.is_reset(), error.is_go_away()) {
            (true, _) if refused => Self::Refused,
            (true, _) => Self::Reset,
            // Streams that a GOAWAY leaves in place learn of the end, when it comes, in another way.
            (_, true) if error.is_remote() => Self::Leaving,
            _ => Self::Broken,
        }
    }
}

/// Whether what came breaks the rules of HTTP/2.
pub fn is_nonsense(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| error.is_library())
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}
