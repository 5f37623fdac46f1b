//! What the operator meant: complete, plain values, ready to compare and print.
//!
//! Start at [`Plan`]. Made by `config::compile`, read by everybody. No serde, no locks, no
//! sockets and no clocks here: a plan is what two files can be compared by.

mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

pub use self::tls::{BackendTlsPlan, CertificatePlan, ClientAuth, ClientsPlan, Facts, TlsPlan, TlsVersion};

/// A whole configuration, every default filled in and every reference resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub server: ServerPlan,
    pub log: LogPlan,
    pub admin: AdminPlan,
    pub listeners: Vec<ListenerPlan>,
    pub routes: Vec<RoutePlan>,
    pub pools: Vec<PoolPlan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServerPlan {
    pub state_dir: Option<PathBuf>,
    /// Data threads; 0 means one per CPU.
    pub workers: usize,
    /// Descriptors for connections on both sides; 0 means 90 % of the limit.
    pub max_connections: usize,
    /// Bytes of request heads that have not come whole, over all connections.
    pub max_head_memory: usize,
    pub watch: bool,
    pub trusted_proxies: Vec<IpNet>,
    pub client_ip_from: ClientIpFrom,
    /// `None`: 0 s, or 5 s under Kubernetes.
    pub drain_grace: Option<Duration>,
    pub drain_timeout: Duration,
}

/// The one forwarding header that is believed, when it comes from a trusted peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIpFrom {
    XForwardedFor,
    Forwarded,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogPlan {
    /// `error`, `warn`, `info`, `debug`, `trace` or a filter such as `info,pintle::pool=debug`.
    pub level: String,
    pub format: EventFormat,
    pub access: AccessLogPlan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFormat {
    Auto,
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogPlan {
    pub enabled: bool,
    pub format: AccessFormat,
    pub output: LogOutput,
    pub on_full: OnFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    Auto,
    Json,
    Logfmt,
    Combined,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// What happens to an access-log line when the writer cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    Drop,
    Block,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AdminPlan {
    /// `None`: the first of the conventional places that can be written.
    pub socket: Option<PathBuf>,
    pub bind: AdminBind,
    pub token: Option<Secret>,
    /// Host names, besides addresses and `localhost`, that the TCP side answers to.
    pub hosts: Vec<String>,
}

impl AdminPlan {
    /// Tells one token from another without showing either.
    fn token_mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.token.as_ref().map(|token| &token.0).hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// Nobody asked: 127.0.0.1:9900 if it is free, else a warning.
    Default,
    At(SocketAddr),
    Off,
}

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ListenerPlan {
    pub name: String,
    pub bind: Vec<SocketAddr>,
    /// Which PROXY header comes before everything else.
    pub proxy_protocol: ProxyProtocol,
    /// `None`: in the clear.
    pub tls: Option<TlsPlan>,
    pub protocols: Protocols,
    pub limits: ListenerLimits,
}

/// The PROXY header that every connection of a listener begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    V1,
    V2,
    /// Either, but one of them.
    Any,
}

/// What is spoken on a listener: at least one of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub http1: bool,
    /// Where TLS is, by ALPN; in the clear, known beforehand.
    pub http2: bool,
}

/// Named limits of the client side; `max_body` and `max_connections_per_client` 0 mean none.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    pub first_byte_timeout: Duration,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    /// Bytes of one request head.
    pub max_header_size: usize,
    pub max_headers: usize,
    pub max_body: u64,
    /// Bytes per second of a request's body, while the client is waited for; 0 means any.
    pub min_body_rate: u64,
    /// Streams that an HTTP/2 connection carries at a time.
    pub max_streams: u32,
    /// Streams that an HTTP/2 client may reset, unless it is trusted.
    pub max_resets_per_second: u32,
    /// Connections that a client has at a time, unless it is trusted.
    pub max_connections_per_client: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// Shown in logs and metrics; made from the matcher where the file gives none.
    pub name: String,
    /// `None` matches both.
    pub scheme: Option<Scheme>,
    pub hosts: Vec<HostPattern>,
    pub path: PathPattern,
    /// Empty means every method.
    pub methods: Vec<Method>,
    pub action: Action,
    pub limit: Option<LimitPlan>,
    pub timeout: Option<Duration>,
    pub retry: RetryPlan,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub tunnel_idle_timeout: Duration,
}

/// What a client came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// Lower case, no port.
    Exact(String),
    /// `*.example.com` is kept as `example.com` and matches one or more labels before it.
    Suffix(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathPattern {
    Exact(String),
    /// Matches on segment borders: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The name of a pool that exists.
    Forward(String),
    /// Pools that exist and their shares, each at least 1.
    Split(Vec<(String, u32)>),
    Respond {
        status: StatusCode,
        body: String,
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    Redirect {
        to: Vec<TemplatePart>,
        status: StatusCode,
    },
}

/// How many requests each client may make: so many in a time, evenly, and `burst` at once. Both
/// numbers are at least 1, and a request has at least a microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitPlan {
    pub requests: u32,
    pub per: Duration,
    pub burst: u32,
    /// What clients are told apart by: their address, a header or a cookie.
    pub key: HashOn,
}

impl fmt::Display for LimitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}, burst {}, by ", self.requests, self.burst)?;
        match &self.key {
            HashOn::ClientIp => f.write_str("client_ip"),
            HashOn::Cookie(name) => write!(f, "cookie:{name}"),
            HashOn::Header(name) => write!(f, "header:{name}"),
            HashOn::Query(name) => write!(f, "query:{name}"),
            HashOn::Path => f.write_str("path"),
        }
    }
}

/// A piece of a redirect's `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    Text(String),
    Host,
    Path,
    Query,
    PathAndQuery,
}

/// When a failed attempt may go elsewhere. `attempts` counts sends and is at least 1. `budget` is
/// the share of the route's requests that may be sent again, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPlan {
    pub attempts: u32,
    pub connect: bool,
    pub reset_before_response: bool,
    pub response_timeout: bool,
    /// Answers after which another backend is asked.
    pub statuses: Vec<u16>,
    pub budget: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// What is spoken with backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolProtocol {
    Http1,
    /// HTTP/2 on a clear connection, known beforehand and not negotiated.
    H2c,
    /// HTTP/2 over TLS, which the backend must choose.
    H2,
    /// Whichever of HTTP/2 and HTTP/1.1 the backend chooses over TLS.
    Auto,
}

/// Whether each connection to a backend begins by saying whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxy {
    Off,
    V2,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    pub name: String,
    /// How somebody without a valid token is placed (for `sticky_cookie`: its fallback).
    pub policy: PolicyPlan,
    /// Present exactly when the file says `policy = "sticky_cookie"`: whether tokens are honoured.
    pub sticky: bool,
    /// The cookie's settings, kept under every policy so that switching back finds them.
    pub cookie: StickyPlan,
    pub backends: Vec<BackendPlan>,
    pub protocol: PoolProtocol,
    /// `None`: in the clear.
    pub tls: Option<BackendTlsPlan>,
    pub proxy_protocol: SendProxy,
    pub host: HostHeader,
    pub slow_start: Duration,
    pub via: bool,
    /// Requests and tunnels that each backend has at a time; 0: no limit.
    pub max_in_flight: u32,
    pub hold: HoldPlan,
    /// Below this healthy share health is ignored; 0: never.
    pub panic_threshold: f64,
    pub outlier: Option<OutlierPlan>,
    pub health: Option<HealthPlan>,
    pub timeouts: TimeoutsPlan,
    pub connections: ConnectionsPlan,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PolicyPlan {
    RoundRobin,
    LeastConn,
    LeastTime,
    RandomTwo,
    /// Always on the client's address.
    IpHash(HashPlan),
    ConsistentHash(HashPlan),
}

#[derive(Clone, Debug, PartialEq)]
pub struct HashPlan {
    pub on: HashOn,
    pub prefix: IpPrefix,
    /// Replaces the key that is derived from the pool's name.
    pub key: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    ClientIp,
    Cookie(String),
    Header(HeaderName),
    Query(String),
    Path,
}

/// How many leading bits of an address are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPrefix {
    pub v4: u8,
    pub v6: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StickyPlan {
    pub cookie: String,
    /// Empty: one is generated. The first signs, all are accepted.
    pub keys: Vec<StickyKey>,
    /// Zero: a browser session.
    pub max_idle: Duration,
    /// Zero: no limit.
    pub max_life: Duration,
    pub path: String,
    /// Empty: host-only.
    pub domain: String,
    pub secure: Secure,
    pub http_only: bool,
    pub same_site: SameSite,
    pub on_down: OnDown,
    pub on_drain: OnDrain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyKey {
    /// 1 to 16 characters, letters, digits, `-` and `_`.
    pub id: String,
    /// Exactly 32 bytes.
    pub secret: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// When the client came by TLS.
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

/// What a token gets whose backend is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    Repick,
    Fail,
}

/// Whether a draining backend keeps the clients that hold its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrain {
    Keep,
    Move,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BackendPlan {
    /// With the pool's name, the identity of the backend.
    pub name: String,
    pub address: BackendAddress,
    /// 1 to 256.
    pub weight: u32,
    pub backup: bool,
    pub state: FileState,
}

/// Where a backend is: an IP address, or a name to look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    Ip(SocketAddr),
    Name { host: String, port: u16 },
}

impl BackendAddress {
    pub fn set_port(&mut self, to: u16) {
        match self {
            Self::Ip(address) => address.set_port(to),
            Self::Name { port, .. } => *port = to,
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A backend's `state` as the file gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    Active,
    Draining,
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    Preserve,
    Backend,
    Literal(HeaderValue),
}

/// Requests parked while no backend can take them; `max` 0 answers 503 at once.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldPlan {
    pub max: usize,
    pub timeout: Duration,
}

/// When a backend's failures in traffic take it out for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierPlan {
    /// Attempts without an answer, in a row; 0: off.
    pub consecutive_errors: u32,
    /// Answers of 500 to 599, in a row; 0: off.
    pub consecutive_5xx: u32,
    /// The first time; it doubles.
    pub eject: Duration,
    /// Share of the pool, 0 to 1, that may sit out at a time.
    pub max_ejected: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthPlan {
    pub probe: Probe,
    /// 0: the backend's own.
    pub port: u16,
    /// Empty: the backend's own.
    pub host: String,
    pub interval: Duration,
    /// Share of the interval, 0 to 1, by which a probe may come early or late.
    pub jitter: f64,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    pub init: HealthInit,
    pub expect: StatusSet,
    pub drain_on: Option<StatusSet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Http {
        path: String,
    },
    Tcp,
    /// gRPC's health service; an empty name asks about the whole backend.
    Grpc {
        service: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthInit {
    /// No traffic before the first pass.
    Probe,
    Up,
}

/// Inclusive ranges of status codes, as in `2xx`, `200` or `200-399`, joined by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(pub Vec<(u16, u16)>);

impl StatusSet {
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&status.as_u16()))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TimeoutsPlan {
    pub connect: Duration,
    /// Per attempt, from the last byte of the request that moved to the response head.
    pub response: Duration,
    /// Between bytes of a response.
    pub idle: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionsPlan {
    /// Idle connections per backend, divided among threads.
    pub max_idle: usize,
    pub idle: Duration,
    /// Zero: no limit.
    pub max_age: Duration,
}

impl Plan {
    pub fn pool(&self, name: &str) -> Option<&PoolPlan> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The settings that a reload cannot apply, by the name that the file gives them.
    pub fn restart_only(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("server.workers", format!("{:?}", self.server.workers)),
            ("server.state_dir", format!("{:?}", self.server.state_dir)),
            ("[admin]", format!("{:?} {:x}", self.admin, self.admin.token_mark())),
        ])
    }
}

impl PoolPlan {
    /// The policy's name as the file spells it.
    pub fn policy_name(&self) -> &'static str {
        if self.sticky { "sticky_cookie" } else { self.policy.name() }
    }
}

impl PolicyPlan {
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::LeastTime => "least_time",
            Self::RandomTwo => "random_two",
            Self::IpHash(_) => "ip_hash",
            Self::ConsistentHash(_) => "consistent_hash",
        }
    }
}
