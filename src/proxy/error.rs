//! What can go wrong with a request, and its one mapping to a status and a sentence.
//!
//! Clients get a status and a short fixed sentence; the cause goes to the log.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use crate::http::answer::BadAnswer;
use crate::http::check::BadRequest;
use crate::http::grpc;
use crate::telemetry::End;
use crate::upstream::{ConnectError, SendErrorKind};

#[derive(Debug)]
pub enum ProxyError {
    BadRequest(BadRequest),
    /// Its `Host` is not the name that the connection was made for.
    Misdirected,
    /// The body is larger than `max_body`.
    TooLarge,
    /// The body came more slowly than `min_body_rate`.
    SlowUpload,
    /// The client's body broke off, or was none.
    BrokenUpload,
    NoRoute {
        host: String,
        path: String,
    },
    /// Its client is over the route's limit, and has to wait so long.
    RateLimited {
        wait: Duration,
    },
    /// Nobody is up and the pool holds nobody (any more).
    NoBackend {
        pool: String,
    },
    /// Everybody who is up has as many requests as may be, and so has the line.
    Full {
        pool: String,
    },
    HoldTimeout {
        pool: String,
    },
    /// The pool's protocol knows no upgrade.
    NoUpgrade {
        pool: String,
    },
    Send {
        pool: String,
        kind: SendErrorKind,
    },
    /// A backend's answer that must not be passed on.
    BadResponse {
        pool: String,
        why: BadAnswer,
    },
    /// A drain's deadline, or the end of a shutdown.
    Cut,
    Panic,
}

impl ProxyError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(bad) => bad.status(),
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowUpload => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenUpload => StatusCode::BAD_REQUEST,
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoBackend { .. } | Self::Full { .. } | Self::HoldTimeout { .. } | Self::Cut => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Send { kind, .. } => match kind {
                SendErrorKind::Timeout | SendErrorKind::Connect(ConnectError::Timeout) => {
                    StatusCode::GATEWAY_TIMEOUT
                }
                SendErrorKind::Cut | SendErrorKind::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            },
            Self::BadResponse { .. } | Self::NoUpgrade { .. } => StatusCode::BAD_GATEWAY,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a gRPC client reads; `late` when its own deadline has passed.
    pub fn grpc_status(&self, late: bool) -> grpc::Status {
        match self {
            // Whoever's limit it was: unlike what is unavailable, it may have been done.
            Self::Send { kind: SendErrorKind::Timeout, .. } => grpc::Status::DeadlineExceeded,
            // The limit that ended these was cut down to the call's own.
            Self::NoBackend { .. } | Self::Full { .. } | Self::HoldTimeout { .. } | Self::Send { .. }
                if late =>
            {
                grpc::Status::DeadlineExceeded
            }
            Self::TooLarge | Self::RateLimited { .. } => grpc::Status::ResourceExhausted,
            Self::Panic => grpc::Status::Internal,
            _ => grpc::Status::of_http(self.status()),
        }
    }

    /// Whether the request breaks the rules of its protocol, whatever it asks for.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::BadRequest(bad) if bad.status() == StatusCode::BAD_REQUEST)
    }

    /// How the log names it.
    pub fn end(&self) -> End {
        match self {
            Self::BadRequest(_) | Self::BrokenUpload | Self::Misdirected => End::BadRequest,
            Self::TooLarge => End::TooLarge,
            Self::SlowUpload => End::IdleTimeout,
            Self::NoRoute { .. } | Self::NoUpgrade { .. } | Self::Panic => End::Ok,
            Self::RateLimited { .. } => End::RateLimited,
            Self::NoBackend { .. } | Self::Full { .. } => End::NoBackend,
            Self::HoldTimeout { .. } => End::HoldTimeout,
            Self::Cut => End::Drained,
            Self::BadResponse { .. } => End::ResetBeforeResponse,
            Self::Send { kind, .. } => match kind {
                SendErrorKind::Connect(ConnectError::Timeout) => End::ConnectTimeout,
                SendErrorKind::Connect(ConnectError::Tls(_)) => End::TlsError,
                SendErrorKind::Connect(_) => End::ConnectRefused,
                SendErrorKind::Timeout => End::ResponseTimeout,
                SendErrorKind::Cut => End::Drained,
                SendErrorKind::Full { waited: true } => End::HoldTimeout,
                SendErrorKind::Full { waited: false } => End::NoBackend,
                SendErrorKind::Upload => End::BadRequest,
                SendErrorKind::Reset(_) | SendErrorKind::BadResponse(_) => End::ResetBeforeResponse,
            },
        }
    }

    /// A word for programs and a sentence for people.
    pub fn public(&self) -> (&'static str, Cow<'static, str>) {
        match self {
            Self::BadRequest(bad) => ("bad_request", bad.public().into()),
            Self::Misdirected => {
                ("misdirected", "this connection was made for another name; open one for this host".into())
            }
            Self::TooLarge => ("too_large", "the request's body is larger than this listener takes".into()),
            Self::SlowUpload => ("min_body_rate", "the request's body came too slowly".into()),
            Self::BrokenUpload => ("bad_request", "the request's body broke off".into()),
            Self::NoRoute { host, path } => {
                ("no_route", format!("no route for host `{host}` and path `{path}`").into())
            }
            Self::RateLimited { .. } => {
                let seconds = self.retry_after().unwrap_or_default();
                ("rate_limited", format!("too many requests; the next may come in {seconds} s").into())
            }
            Self::NoBackend { pool } => {
                ("no_backend", format!("every backend of pool {pool} is down or draining").into())
            }
            Self::Full { pool } => {
                ("no_backend", format!("every backend of pool {pool} that is up is full").into())
            }
            Self::HoldTimeout { pool } => {
                ("hold_timeout", format!("no backend of pool {pool} could take it in time").into())
            }
            Self::NoUpgrade { pool } => {
                ("no_upgrade", format!("no upgrade over HTTP/2, which pool {pool} speaks").into())
            }
            Self::Send { pool, kind } => match kind {
                SendErrorKind::Connect(ConnectError::Timeout) => (
                    "connect_timeout",
                    format!("a backend of pool {pool} did not take a connection in time").into(),
                ),
                SendErrorKind::Connect(ConnectError::Tls(fault)) => {
                    ("tls_error", format!("a backend of pool {pool} {fault}").into())
                }
                SendErrorKind::Connect(_) => {
                    ("connect_refused", format!("no backend of pool {pool} took a connection").into())
                }
                SendErrorKind::Timeout => {
                    ("response_timeout", format!("a backend of pool {pool} did not answer in time").into())
                }
                SendErrorKind::BadResponse(_) => {
                    ("bad_response", format!("a backend of pool {pool} answered with what is no HTTP").into())
                }
                SendErrorKind::Full { waited: true } => {
                    ("hold_timeout", format!("no backend of pool {pool} had room in time").into())
                }
                SendErrorKind::Full { waited: false } => {
                    ("no_backend", format!("every backend of pool {pool} is full").into())
                }
                SendErrorKind::Upload => ("bad_request", "the request's body broke off".into()),
                SendErrorKind::Cut => ("drained", "the backend was being drained".into()),
                SendErrorKind::Reset(_) => (
                    "reset_before_response",
                    format!("a backend of pool {pool} closed before it answered").into(),
                ),
            },
            Self::BadResponse { pool, why } => (
                "bad_response",
                format!("a backend of pool {pool} answered with what cannot be passed on: {}", why.reason())
                    .into(),
            ),
            Self::Cut => ("drained", "this proxy is shutting down".into()),
            Self::Panic => ("internal", "the proxy made a mistake; it is logged".into()),
        }
    }

    /// In how many whole seconds the same request may come again, where that is known.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited { wait } => {
                Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1))
            }
            _ => None,
        }
    }

    /// Whether the connection can carry another request: not after a head that we could not
    /// take at its word, nor with a body that nobody will read.
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_) | Self::TooLarge | Self::SlowUpload | Self::BrokenUpload | Self::Cut
        )
    }
}
