//! The file as written: one type per table, one doc comment per key, defaults spelled as the file
//! spells them.
//!
//! Start at [`File`]. The same types give the parser, the suggestions and the JSON Schema; their
//! doc comments are its descriptions. Limits stand beside the keys: `range` for numbers,
//! `x-min` and `x-max` for durations and sizes (`x-zero` where zero means something of its own),
//! `x-hint` is what to say when the kind of value is wrong. Meaning is `compile`'s.

mod json;
mod pool;
mod route;
mod tls;
mod words;

pub(crate) use json::{annotated, published};
pub(crate) use pool::{Backend, Connections, Health, Key, Pool, Sticky, Timeouts};
pub(crate) use route::{Edits, Limit, Respond, Retry, Route};
pub(crate) use tls::{BackendTls, CertificateFiles, Tls};
pub(crate) use words::{Policy, Protocol, RetryOn, SecureWord};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spelling::{EnvName, FilePath, HostName, LogLevel, OneOf, Rate, Size, Spelled, spelled};
use crate::plan::{AccessFormat, AdminBind, ClientIpFrom, EventFormat, LogOutput, OnFull, ProxyProtocol};

/// Pintle's configuration.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "pintle.toml")]
pub(crate) struct File {
    /// The process.
    pub(crate) server: Server,
    /// Events for people, and one line per exchange.
    pub(crate) log: Log,
    /// The operator's door.
    pub(crate) admin: Admin,
    /// Where clients connect, by name. None: one called `default` on 127.0.0.1:8080.
    #[schemars(extend("propertyNames" = { "format": "name" }, "x-hint" = "each has a heading of its own: [listener.NAME]"))]
    pub(crate) listener: BTreeMap<String, Listener>,
    /// What goes where: the most specific wins, whatever the order. None: everything to the one pool.
    pub(crate) route: Vec<Route>,
    /// Who answers, by name.
    #[schemars(extend("propertyNames" = { "format": "name" }, "x-hint" = "each has a heading of its own: [pool.NAME]"))]
    pub(crate) pool: BTreeMap<String, Pool>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// Where generated keys and runtime overrides are kept; without one, keys live in memory.
    pub(crate) state_dir: Option<Spelled<FilePath>>,
    /// Data threads; 0 means one per CPU.
    #[schemars(range(min = 0, max = 1024))]
    pub(crate) workers: usize,
    /// Descriptors for connections; 0 means 90 % of RLIMIT_NOFILE.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub(crate) max_connections: usize,
    /// Bytes that request heads may hold which have not come whole, over all connections.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "64GiB"))]
    pub(crate) max_head_memory: Spelled<Size>,
    /// Reload when this file changes.
    pub(crate) watch: bool,
    /// Whose forwarding headers and PROXY headers are believed: networks or addresses.
    pub(crate) trusted_proxies: Vec<Spelled<IpNet>>,
    /// The one header that is believed from them.
    pub(crate) client_ip_from: OneOf<ClientIpFrom>,
    /// On SIGTERM, how long /readyz fails while connections are still accepted. Unset: 0s, or 5s under Kubernetes.
    #[schemars(extend("x-max" = "1h"))]
    pub(crate) drain_grace: Option<Spelled<Duration>>,
    /// How long a shutdown waits for what is in flight.
    #[schemars(extend("x-max" = "24h"))]
    pub(crate) drain_timeout: Spelled<Duration>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            state_dir: None,
            workers: 0,
            max_connections: 0,
            max_head_memory: spelled("64MiB"),
            watch: true,
            trusted_proxies: Vec::new(),
            client_ip_from: OneOf(ClientIpFrom::XForwardedFor),
            drain_grace: None,
            drain_timeout: spelled("30s"),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// error, warn, info, debug, trace, or by module: `info,pintle::pool=debug`.
    pub(crate) level: Spelled<LogLevel>,
    /// auto is text on a terminal and json elsewhere.
    pub(crate) format: OneOf<EventFormat>,
    /// One line per exchange, written when it ends.
    pub(crate) access: AccessLog,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: spelled("info"), format: OneOf(EventFormat::Auto), access: AccessLog::default() }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessLog {
    /// Whether to write it at all.
    pub(crate) enabled: bool,
    /// auto is readable text on a terminal and json elsewhere.
    pub(crate) format: OneOf<AccessFormat>,
    /// stdout, stderr or a path, which is opened again on SIGUSR1.
    pub(crate) output: Spelled<LogOutput>,
    /// What happens when the writer cannot keep up: drop counts what is lost, block waits.
    pub(crate) on_full: OneOf<OnFull>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: true,
            format: OneOf(AccessFormat::Auto),
            output: spelled("stdout"),
            on_full: OneOf(OnFull::Drop),
        }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// A unix socket with full control, mode 0600. Unset: the first conventional place that can be written.
    pub(crate) socket: Option<Spelled<FilePath>>,
    /// Status, read-only API and /metrics; "off" disables. Unset: 127.0.0.1:9900 if it is free.
    pub(crate) bind: Option<Spelled<AdminBind>>,
    /// What lets a TCP client write.
    pub(crate) token: Option<Secret>,
    /// Names, besides addresses and `localhost`, that the TCP side answers to.
    pub(crate) hosts: Vec<Spelled<HostName>>,
}

/// A secret: in a file or in an environment variable, never in this text.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "secrets stay out of this file"), extend("x-write" = "{ file = \"secret.key\" }"))]
pub(crate) struct Secret {
    /// A file that holds it.
    pub(crate) file: Option<Spelled<FilePath>>,
    /// An environment variable that holds it.
    pub(crate) env: Option<Spelled<EnvName>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-hint" = "a listener has a name: [listener.NAME]"))]
pub(crate) struct Listener {
    /// An address and a port, or a list of them.
    pub(crate) bind: Option<OneOrMany<Spelled<SocketAddr>>>,
    /// What is spoken here: http/1.1; h2, HTTP/2 where there is TLS; h2c, HTTP/2 in the clear, known beforehand.
    #[schemars(length(min = 1))]
    pub(crate) protocols: Vec<OneOf<Protocol>>,
    /// off, v1, v2 or any: the PROXY header that every connection begins with, from `trusted_proxies` only.
    pub(crate) proxy_protocol: OneOf<ProxyProtocol>,
    /// What makes it speak TLS; no table means in the clear.
    pub(crate) tls: Option<Tls>,
    /// From accepting a connection to its first byte, PROXY header and TLS handshake included.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1h"))]
    pub(crate) first_byte_timeout: Spelled<Duration>,
    /// From the first byte of a request to the end of its head.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1h"))]
    pub(crate) header_timeout: Spelled<Duration>,
    /// How long a connection may wait for its next request.
    #[schemars(extend("x-min" = "100ms", "x-max" = "24h"))]
    pub(crate) idle_timeout: Spelled<Duration>,
    /// Bytes of one request head.
    #[schemars(extend("x-min" = "1KiB", "x-max" = "64KiB"))]
    pub(crate) max_header_size: Spelled<Size>,
    /// Headers of one request.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) max_headers: usize,
    /// Bytes of one request body; 0B means no limit.
    pub(crate) max_body: Spelled<Size>,
    /// Of a request's body, averaged over 10 s in which the client is waited for; slower is a 408. 0B/s means any.
    pub(crate) min_body_rate: Spelled<Rate>,
    /// Connections that a client has at a time, by its address (IPv6: /64); none in `trusted_proxies` is counted. 0 means no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) max_connections_per_client: u32,
    /// Limits of one HTTP/2 connection.
    pub(crate) http2: Http2,
}

/// Limits of one HTTP/2 connection.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http2 {
    /// Requests under way at a time.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_streams: u32,
    /// Requests that a client may take back within a second; one that is in `trusted_proxies` has no limit.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) max_resets_per_second: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self { max_streams: 128, max_resets_per_second: 100 }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: None,
            protocols: vec![OneOf(Protocol::H2), OneOf(Protocol::Http1)],
            proxy_protocol: OneOf(ProxyProtocol::Off),
            tls: None,
            first_byte_timeout: spelled("10s"),
            header_timeout: spelled("10s"),
            idle_timeout: spelled("75s"),
            max_header_size: spelled("32KiB"),
            max_headers: 100,
            max_body: spelled("0B"),
            min_body_rate: spelled("240B/s"),
            max_connections_per_client: 0,
            http2: Http2::default(),
        }
    }
}

/// One value, or a list of them.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spelling::FORMATS;
    use serde_json::Value;

    #[test]
    fn every_default_reads() {
        let _ = (File::default(), Listener::default(), Route::default(), Pool::default(), Sticky::default());
        let _ = (Health::default(), Respond::default());
    }

    #[test]
    fn every_format_that_the_schema_names_has_a_reader() {
        fn walk(schema: &Value, seen: &mut usize) {
            if let Some(format) = schema.get("format").and_then(Value::as_str)
                && schema.get("type").and_then(Value::as_str) == Some("string")
            {
                assert!(FORMATS.iter().any(|known| known.name == format), "{format}");
                *seen += 1;
            }
            match schema {
                Value::Object(map) => map.values().for_each(|child| walk(child, seen)),
                Value::Array(list) => list.iter().for_each(|child| walk(child, seen)),
                _ => {}
            }
        }
        let mut seen = 0;
        walk(annotated(), &mut seen);
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn the_published_schema_is_closed_and_plain() {
        let text = published().to_string();
        assert!(text.contains(r#""additionalProperties":false"#));
        assert!(text.contains("[KMG]i?"));
        assert!(published().pointer("/properties/log/properties/format/enum").is_some());
        assert!(text.contains("Whose forwarding headers and PROXY headers are believed"));
        for inner in
            ["\"x-hint", "\"x-min", "\"x-max", "\"null\"", ":null", ",null", "\"$ref\"", "\"format\":\""]
        {
            assert!(!text.contains(inner), "{inner} in {text}");
        }
    }
}
