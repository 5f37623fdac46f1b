//! The paths of the admin API and what each answers.
//!
//! Start at [`route`], the whole list, and [`Door::answer`]. The shapes are in `view`, who may is
//! in `door`, and every fact comes from the `desk`.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time;

use super::desk::Gone;
use super::door::{Door, Need, Side};
use super::page;
use super::reply::{JSON, Reply, json, not_allowed, problem, text, whole};
use super::sse;
use super::view::{
    BackendView, Fault, PoolView, ReloadOrder, ShutdownOrder, StateOrder, Status, UpgradeOrder,
};

/// Bytes of a request body.
pub const MAX_BODY: usize = 1024 * 1024;
/// From a request's head to its answer's. An event stream has its head at once.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a new process may be given to be ready; then its order is answered.
pub const MAX_UPGRADE: Duration = Duration::from_secs(600);
/// A drain may take a year and a day; more is a slip of the unit.
pub const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// Something that a request can ask for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Page,
    Livez,
    Readyz,
    Metrics,
    Status,
    Config,
    Schema,
    Pools,
    Pool(String),
    Backend(String, String),
    Drain(u64),
    Routes,
    Listeners,
    Certificates,
    Events,
    Reload,
    Check,
    Shutdown,
    Upgrade,
    SetState(String, String),
}

/// Every path there is. Paths are exact; only names are percent-decoded.
fn route(method: &Method, path: &str) -> Option<Call> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    Some(match (method, segments.as_slice()) {
        ("GET", [""]) => Call::Page,
        ("GET", ["livez"]) => Call::Livez,
        ("GET", ["readyz"]) => Call::Readyz,
        ("GET", ["metrics"]) => Call::Metrics,
        ("GET", ["v1", "status"]) => Call::Status,
        ("GET", ["v1", "config"]) => Call::Config,
        ("GET", ["v1", "config.schema.json"]) => Call::Schema,
        ("GET", ["v1", "pools"]) => Call::Pools,
        ("GET", ["v1", "pools", pool]) => Call::Pool(decode(pool)?),
        ("GET", ["v1", "pools", pool, "backends", name]) => Call::Backend(decode(pool)?, decode(name)?),
        ("GET", ["v1", "drains", id]) => Call::Drain(id.parse().ok()?),
        ("GET", ["v1", "routes"]) => Call::Routes,
        ("GET", ["v1", "listeners"]) => Call::Listeners,
        ("GET", ["v1", "certificates"]) => Call::Certificates,
        ("GET", ["v1", "events"]) => Call::Events,
        ("POST", ["v1", "reload"]) => Call::Reload,
        ("POST", ["v1", "check"]) => Call::Check,
        ("POST", ["v1", "shutdown"]) => Call::Shutdown,
        ("POST", ["v1", "upgrade"]) => Call::Upgrade,
        ("PATCH", ["v1", "pools", pool, "backends", name]) => Call::SetState(decode(pool)?, decode(name)?),
        _ => return None,
    })
}

/// The methods that a path takes, as `Allow` lists them; empty where there is no such path.
fn allowed(path: &str) -> String {
    let takes = |method: &Method| route(method, path).is_some();
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PATCH];
    methods.iter().filter(|method| takes(method)).map(Method::as_str).collect::<Vec<_>>().join(", ")
}

impl Call {
    fn need(&self) -> Need {
        match self {
            Self::Livez | Self::Readyz | Self::Metrics => Need::Nothing,
            Self::Upgrade => Need::Socket,
            // A check changes nothing, but opens the files that the text names.
            Self::Reload | Self::Check | Self::Shutdown | Self::SetState(..) => Need::Write,
            _ => Need::Read,
        }
    }
}

impl Door {
    /// Answers one request, whatever it is.
    pub async fn answer<B>(&self, side: Side, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let path = request.uri().path();
        let call = route(request.method(), path);
        let need = call.as_ref().map_or(Need::Read, Call::need);
        if let Err(fault) = self.admit(side, need, request.uri(), request.headers()) {
            return problem(&fault);
        }
        let Some(call) = call else {
            return match allowed(path).as_str() {
                "" => {
                    problem(&Fault::new(StatusCode::NOT_FOUND, "no_such_path", format!("no `{path}` here")))
                }
                methods => not_allowed(methods),
            };
        };
        let limit = if call == Call::Upgrade { MAX_UPGRADE + REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
        match time::timeout(limit, self.perform(call, request)).await {
            Ok(done) => done.unwrap_or_else(|fault| problem(&fault)),
            Err(_) => problem(&Fault::new(
                StatusCode::GATEWAY_TIMEOUT,
                "no_answer",
                format!("no answer within {limit:?}; an order may still be carried out"),
            )),
        }
    }

    async fn perform<B>(&self, call: Call, request: Request<B>) -> Result<Reply, Fault>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let desk = &self.desk;
        Ok(match call {
            Call::Page if accepts_html(request.headers()) => page::reply(&desk.status().await?),
            Call::Page => text(StatusCode::OK, page::text(&desk.status().await?)),
            Call::Livez => text(StatusCode::OK, "ok\n"),
            Call::Readyz => match desk.readiness().await? {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reasons) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("; ")))
                }
            },
            Call::Metrics => {
                whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", desk.metrics().await?)
            }
            Call::Status => ok(&desk.status().await?),
            Call::Config => {
                let document = desk.config().await?;
                whole(StatusCode::OK, document.content_type, document.text)
            }
            Call::Schema => whole(StatusCode::OK, JSON, self.schema.clone()),
            Call::Pools => ok(&desk.status().await?.pools),
            Call::Pool(pool) => ok(find_pool(&desk.status().await?, &pool)?),
            Call::Backend(pool, name) => ok(find_backend(&desk.status().await?, &pool, &name)?),
            Call::Drain(id) => match desk.drain(id).await? {
                Some(drain) => ok(&drain),
                None => return Err(unknown("drain", &id.to_string(), &[])),
            },
            Call::Routes => ok(&desk.routes().await?),
            Call::Listeners => ok(&desk.status().await?.listeners),
            Call::Certificates => ok(&desk.status().await?.certificates),
            Call::Events => self.events(request.headers()).await?,
            Call::Reload => ok(&desk.reload(order::<ReloadOrder, _>(request).await?).await??),
            Call::Check => ok(&desk.check(read(request.into_body()).await?).await?),
            Call::Shutdown => {
                let order = order::<ShutdownOrder, _>(request).await?;
                sane("drain_seconds", order.drain_seconds, MAX_SECONDS)?;
                desk.shutdown(order).await?;
                json(StatusCode::ACCEPTED, &serde_json::json!({ "state": "draining" }))
            }
            Call::Upgrade => {
                let order = order::<UpgradeOrder, _>(request).await?;
                sane("timeout_seconds", order.timeout_seconds, MAX_UPGRADE.as_secs_f64())?;
                ok(&desk.upgrade(order).await??)
            }
            Call::SetState(pool, backend) => {
                let order = order::<StateOrder, _>(request).await?;
                sane("deadline_seconds", order.deadline_seconds, MAX_SECONDS)?;
                ok(&desk.set_state(pool, backend, order).await??)
            }
        })
    }

    async fn events(&self, headers: &HeaderMap) -> Result<Reply, Fault> {
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            let detail = "too many event streams are open";
            return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail));
        };
        let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
        let subscription = self.desk.events().subscribe(last_seen);
        Ok(sse::stream(&self.desk.status().await?, subscription, seat))
    }
}

impl From<Gone> for Fault {
    fn from(gone: Gone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ending", gone.to_string())
    }
}

fn ok(value: &impl Serialize) -> Reply {
    json(StatusCode::OK, value)
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT);
    accepts.iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

fn find_pool<'s>(status: &'s Status, name: &str) -> Result<&'s PoolView, Fault> {
    let names = || status.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>();
    status.pools.iter().find(|pool| pool.name == name).ok_or_else(|| unknown("pool", name, &names()))
}

fn find_backend<'s>(status: &'s Status, pool: &str, name: &str) -> Result<&'s BackendView, Fault> {
    let backends = &find_pool(status, pool)?.backends;
    let names = || backends.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>();
    backends.iter().find(|backend| backend.name == name).ok_or_else(|| unknown("backend", name, &names()))
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> Fault {
    let fault =
        Fault::new(StatusCode::NOT_FOUND, &format!("unknown_{kind}"), format!("there is no {kind} `{name}`"));
    if known.is_empty() { fault } else { fault.with_hint(format!("there is `{}`", known.join("`, `"))) }
}

/// An order in JSON; an empty body is the order without particulars.
async fn order<T, B>(request: Request<B>) -> Result<T, Fault>
where
    T: DeserializeOwned + Default,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    let kind = head.headers.get(CONTENT_TYPE).map_or(Ok(JSON), |kind| kind.to_str()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON)) {
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "json_only", "this path takes JSON")
            .with_hint("send the header `Content-Type: application/json`"));
    }
    serde_json::from_str(&body).map_err(|error| {
        Fault::new(StatusCode::BAD_REQUEST, "bad_json", format!("the body cannot be read: {error}"))
    })
}

async fn read<B>(body: B) -> Result<String, Fault>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let bytes = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let detail = format!("a body may have {MAX_BODY} bytes");
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        } else {
            Fault::new(StatusCode::BAD_REQUEST, "bad_body", "the body ended early")
        }
    })?;
    String::from_utf8(bytes.to_bytes().into())
        .map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "not_utf8", "the body is not UTF-8"))
}

/// What comes from the network becomes a duration later, and that must not panic.
fn sane(field: &str, seconds: Option<f64>, most: f64) -> Result<(), Fault> {
    if seconds.is_none_or(|seconds| (0.0..=most).contains(&seconds)) {
        return Ok(());
    }
    let detail = format!("`{field}` must be between 0 and {most}");
    Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_seconds", detail))
}

/// A name in a path: `%5B::1%5D:80` is `[::1]:80`. `None` where the escapes are broken.
pub fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).expect("two hex digits fit a byte"));
            rest = tail;
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_come_escaped_or_as_it_is() {
        let backend = |path: &str| route(&Method::GET, path);
        let expected = || Some(Call::Backend("app".to_owned(), "[::1]:9001".to_owned()));
        assert_eq!(backend("/v1/pools/app/backends/[::1]:9001"), expected());
        assert_eq!(backend("/v1/pools/app/backends/%5b%3A%3a1%5D:9001"), expected());
        for broken in ["%", "%5", "%zz", "%+1", "%ff"] {
            assert_eq!(backend(&format!("/v1/pools/app/backends/{broken}")), None, "{broken}");
        }
    }

    #[test]
    fn paths_are_exact() {
        for path in ["//", "/v1", "/v1/status/", "/V1/status", "/%6civez", "/v1/drains/x", "*", ""] {
            assert_eq!(route(&Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn a_path_says_which_methods_it_takes() {
        assert_eq!(allowed("/v1/status"), "GET, HEAD");
        assert_eq!(allowed("/v1/reload"), "POST");
        assert_eq!(allowed("/v1/pools/app/backends/a1"), "GET, HEAD, PATCH");
        assert_eq!(allowed("/v1/nothing"), "");
    }

    #[test]
    fn seconds_that_no_clock_can_hold_are_refused() {
        for seconds in [-1.0, 1e300, f64::NAN, f64::INFINITY] {
            assert!(sane("deadline_seconds", Some(seconds), MAX_SECONDS).is_err(), "{seconds}");
        }
        let sane = |seconds| sane("deadline_seconds", seconds, MAX_SECONDS).is_ok();
        assert!(sane(Some(0.0)) && sane(None));
    }
}
