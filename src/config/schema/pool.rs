//! `[pool.NAME]` as written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::tls::BackendTls;
use super::words::{Auto, Fallback, Policy, SecureWord};
use crate::config::spelling::{
    CookieDomain, CookieName, CookiePath, EnvName, FilePath, HostName, KeyId, Name, OneOf, ProbePath,
    ServiceName, Spelled, spelled,
};
use crate::plan::{
    BackendAddress, FileState, HashOn, HealthInit, HostHeader, OnDown, OnDrain, PoolProtocol, SameSite,
    SendProxy, StatusSet,
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-hint" = "a pool has a name: [pool.NAME]"))]
pub(crate) struct Pool {
    /// How a backend is chosen; every policy works with no further settings.
    pub(crate) policy: OneOf<Policy>,
    /// Who answers: `"host:port"`, or a table where more is to be said.
    #[schemars(length(min = 1, max = 1000))]
    pub(crate) backends: Option<Vec<Backend>>,
    /// What backends speak: http/1.1, h2 (over TLS), h2c (HTTP/2 without TLS, known beforehand) or auto (whichever of
    /// h2 and http/1.1 they choose over TLS).
    pub(crate) protocol: OneOf<PoolProtocol>,
    /// TLS to the backends; no table means in the clear.
    pub(crate) tls: Option<BackendTls>,
    /// Whether each connection begins with the client's address: off or v2.
    pub(crate) proxy_protocol: OneOf<SendProxy>,
    /// The Host that backends see: preserve, backend (its address) or a name.
    pub(crate) host: Spelled<HostHeader>,
    /// What consistent_hash hashes: client_ip, path, cookie:NAME, header:NAME or query:NAME.
    pub(crate) hash_on: Spelled<HashOn>,
    /// Replaces the hash key that is derived from the pool's name; at least 16 bytes.
    pub(crate) hash_key: Option<Secret>,
    /// How much of client_ip is hashed; nginx's ip_hash is { v4 = 24, v6 = 128 }.
    pub(crate) ip_prefix: Prefix,
    /// How long a backend that comes back or joins takes to reach its full share; 0s means at once.
    #[schemars(extend("x-max" = "1h"))]
    pub(crate) slow_start: Spelled<Duration>,
    /// Whether backends see a Via header; some stop compressing when they do.
    pub(crate) via: bool,
    /// Requests and tunnels that each backend has at a time, over all threads; 0 is no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) max_in_flight: u32,
    /// Requests that wait while no backend can take them.
    pub(crate) hold: Hold,
    /// Below this share of healthy backends health is ignored and every one is used; 0 is never.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) panic_threshold: f64,
    /// Takes a backend out for a while when its traffic fails; no table means never.
    pub(crate) outlier: Option<Outlier>,
    /// The cookie of sticky_cookie; kept under every policy.
    pub(crate) sticky: Sticky,
    /// Probes; no table means none.
    pub(crate) health: Option<Health>,
    /// How long to wait for a backend.
    pub(crate) timeouts: Timeouts,
    /// Idle connections to backends.
    pub(crate) connections: Connections,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            policy: OneOf(Policy::RoundRobin),
            backends: None,
            protocol: OneOf(PoolProtocol::Http1),
            tls: None,
            proxy_protocol: OneOf(SendProxy::Off),
            host: spelled("preserve"),
            hash_on: spelled("client_ip"),
            hash_key: None,
            ip_prefix: Prefix::default(),
            slow_start: spelled("0s"),
            via: false,
            max_in_flight: 0,
            hold: Hold::default(),
            panic_threshold: 0.0,
            outlier: None,
            sticky: Sticky::default(),
            health: None,
            timeouts: Timeouts::default(),
            connections: Connections::default(),
        }
    }
}

/// A backend: an address, or a table.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Backend {
    Address(Spelled<BackendAddress>),
    Table(BackendTable),
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendTable {
    /// Its identity in logs, metrics and tokens; the address where unset.
    pub(crate) name: Option<Spelled<Name>>,
    /// host:port with IPv4, IPv6 in brackets or a DNS name; port 80, or 443 with TLS, when left out.
    pub(crate) address: Spelled<BackendAddress>,
    /// Its share beside the others.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256), extend("x-too-small" = "to take a backend out of rotation: `state = \"draining\"`"))]
    pub(crate) weight: u32,
    /// Used while no other can be.
    #[serde(default)]
    pub(crate) backup: bool,
    /// draining keeps known sessions and gets no new ones; stopped gets nothing.
    #[serde(default = "active")]
    pub(crate) state: OneOf<FileState>,
}

fn one() -> u32 {
    1
}

fn active() -> OneOf<FileState> {
    OneOf(FileState::Active)
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Prefix {
    /// Leading bits of an IPv4 address.
    #[schemars(range(min = 0, max = 32))]
    pub(crate) v4: u8,
    /// Leading bits of an IPv6 address.
    #[schemars(range(min = 0, max = 128))]
    pub(crate) v6: u8,
}

impl Default for Prefix {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hold {
    /// How many may wait; 0 answers 503 at once.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) max: usize,
    /// How long each may wait.
    #[schemars(extend("x-min" = "10ms", "x-max" = "10m"))]
    pub(crate) timeout: Spelled<Duration>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { max: 256, timeout: spelled("2s") }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outlier {
    /// Attempts without an answer in a row that eject a backend; 0 is off.
    #[schemars(range(min = 0, max = 1000))]
    pub(crate) consecutive_errors: u32,
    /// Answers of 500 to 599 in a row that do; 0 is off.
    #[schemars(range(min = 0, max = 1000))]
    pub(crate) consecutive_5xx: u32,
    /// How long the first time; it doubles each time, up to 5m.
    #[schemars(extend("x-min" = "100ms", "x-max" = "5m"))]
    pub(crate) eject: Spelled<Duration>,
    /// The share of the pool that may be ejected at a time; never its last backend.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) max_ejected: f64,
}

impl Default for Outlier {
    fn default() -> Self {
        Self { consecutive_errors: 3, consecutive_5xx: 0, eject: spelled("30s"), max_ejected: 0.5 }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sticky {
    /// Its name; unset, `pintle_` and the pool's name.
    pub(crate) cookie: Option<Spelled<CookieName>>,
    /// 32 bytes each: the first signs, all are accepted. None: one is generated.
    #[schemars(length(max = 16))]
    pub(crate) keys: Vec<Key>,
    /// How long a silent client is remembered; 0s means until its browser closes.
    #[schemars(extend("x-min" = "1s", "x-max" = "400d", "x-zero" = true))]
    pub(crate) max_idle: Spelled<Duration>,
    /// How long a client is remembered at all; 0s means no limit.
    #[schemars(extend("x-min" = "1s", "x-max" = "400d", "x-zero" = true))]
    pub(crate) max_life: Spelled<Duration>,
    /// The cookie's Path.
    pub(crate) path: Spelled<CookiePath>,
    /// The cookie's Domain; "" is this host only.
    pub(crate) domain: Spelled<CookieDomain>,
    /// Secure: "auto" is when the client came by TLS, else true or false.
    pub(crate) secure: SecureWord,
    /// Hidden from scripts.
    pub(crate) http_only: bool,
    /// lax, strict or none.
    pub(crate) same_site: OneOf<SameSite>,
    /// Who picks when there is no valid cookie.
    pub(crate) fallback: OneOf<Fallback>,
    /// When the cookie's backend is down: repick another, or fail with 503.
    pub(crate) on_down: OneOf<OnDown>,
    /// When it is draining: keep known sessions there, or move them.
    pub(crate) on_drain: OneOf<OnDrain>,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            cookie: None,
            keys: Vec::new(),
            max_idle: spelled("0s"),
            max_life: spelled("0s"),
            path: spelled("/"),
            domain: spelled(""),
            secure: SecureWord::Auto(OneOf(Auto::Auto)),
            http_only: true,
            same_site: OneOf(SameSite::Lax),
            fallback: OneOf(Fallback(Policy::LeastConn)),
            on_down: OneOf(OnDown::Repick),
            on_drain: OneOf(OnDrain::Keep),
        }
    }
}

/// A sticky key: 32 bytes, raw, as 64 hex digits or as base64.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "secrets stay out of this file"), extend("x-write" = "{ id = \"k1\", file = \"sticky-k1.key\" }"))]
pub(crate) struct Key {
    /// Its name in tokens.
    pub(crate) id: Spelled<KeyId>,
    /// A file that holds it.
    pub(crate) file: Option<Spelled<FilePath>>,
    /// An environment variable that holds it.
    pub(crate) env: Option<Spelled<EnvName>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Health {
    /// Ask for this path; or else `tcp` or `grpc`.
    pub(crate) path: Option<Spelled<ProbePath>>,
    /// Only connect; or else `path` or `grpc`.
    pub(crate) tcp: bool,
    /// Ask gRPC's health service about this service, "" for the whole backend; or else `path` or `tcp`.
    pub(crate) grpc: Option<Spelled<ServiceName>>,
    /// The port to probe; 0 is the backend's own.
    #[schemars(range(min = 0, max = 65535))]
    pub(crate) port: u16,
    /// The Host of probes; "" is the backend's own.
    pub(crate) host: Spelled<HostName>,
    /// From one probe to the next.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1h"))]
    pub(crate) interval: Spelled<Duration>,
    /// Share of the interval by which a probe may come early or late.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) jitter: f64,
    /// How long an answer may take.
    #[schemars(extend("x-min" = "10ms", "x-max" = "1h"))]
    pub(crate) timeout: Spelled<Duration>,
    /// Passes in a row that bring a backend back.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) rise: u32,
    /// Failures in a row that take it out.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) fall: u32,
    /// probe: no traffic before the first pass; up: at once.
    pub(crate) init: OneOf<HealthInit>,
    /// Answers that are a pass.
    pub(crate) expect: Spelled<StatusSet>,
    /// Answers that mean "keep my sessions, send me nobody new".
    pub(crate) drain_on: Option<Spelled<StatusSet>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            tcp: false,
            grpc: None,
            port: 0,
            host: spelled(""),
            interval: spelled("2s"),
            jitter: 0.1,
            timeout: spelled("1s"),
            rise: 2,
            fall: 3,
            init: OneOf(HealthInit::Probe),
            expect: spelled("2xx"),
            drain_on: None,
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// To open a connection.
    #[schemars(extend("x-min" = "10ms", "x-max" = "10m"))]
    pub(crate) connect: Spelled<Duration>,
    /// Per attempt, from the last byte of the request that moved to the response head; for gRPC its grpc-timeout.
    #[schemars(extend("x-min" = "10ms", "x-max" = "24h"))]
    pub(crate) response: Spelled<Duration>,
    /// Between bytes of a response; not for gRPC.
    #[schemars(extend("x-min" = "10ms", "x-max" = "24h"))]
    pub(crate) idle: Spelled<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: spelled("2s"), response: spelled("60s"), idle: spelled("60s") }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Connections {
    /// Idle connections per backend, divided among threads.
    #[schemars(range(min = 0, max = 65536))]
    pub(crate) max_idle: usize,
    /// How long one is kept at most; less where the backend says or shows that it closes sooner.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1h"))]
    pub(crate) idle: Spelled<Duration>,
    /// How long one is used at all; 0s means no limit.
    #[schemars(extend("x-min" = "1s", "x-max" = "24h", "x-zero" = true))]
    pub(crate) max_age: Spelled<Duration>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { max_idle: 256, idle: spelled("4s"), max_age: spelled("0s") }
    }
}
