//! Who may come in: everybody on the unix socket, readers on TCP, and writers with the token.
//!
//! Start at [`Door::admit`], which is pure. Which paths exist is `api`'s.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::Semaphore;

use super::desk::Desk;
use super::view::Fault;
use crate::plan::{AdminPlan, Secret};

/// Event streams at a time, so that watchers cannot take every connection.
pub const MAX_EVENT_STREAMS: usize = 64;

/// What every connection of the admin side shares.
#[derive(Debug)]
pub struct Door {
    pub(super) desk: Desk,
    pub(super) schema: Bytes,
    pub(super) seats: Arc<Semaphore>,
    token: Option<Secret>,
    hosts: Vec<String>,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The socket's mode has already decided: full control.
    Socket,
    Tcp,
}

/// How much a path gives away or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Probes and scrapes, which come by any name.
    Nothing,
    Read,
    Write,
    /// What nobody may do from afar, token or not: start a program.
    Socket,
}

impl Door {
    pub fn new(desk: Desk, plan: &AdminPlan, schema: &serde_json::Value) -> Self {
        Self {
            desk,
            schema: format!("{schema:#}\n").into(),
            seats: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)),
            // An empty token would be a password that everybody knows.
            token: plan.token.clone().filter(|token| !token.0.is_empty()),
            hosts: plan.hosts.clone(),
        }
    }

    /// Whether a request may have what it needs.
    pub(super) fn admit(&self, side: Side, need: Need, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
        if side == Side::Socket || need == Need::Nothing {
            return Ok(());
        }
        if need == Need::Socket {
            return Err(Fault::new(
                StatusCode::FORBIDDEN,
                "socket_only",
                "this is done over the unix socket only",
            )
            .with_hint("use the admin socket on this machine"));
        }
        let host = self.known_host(uri, headers)?;
        same_origin(&host, headers)?;
        if need == Need::Write { self.has_token(headers) } else { Ok(()) }
    }

    /// A page on somebody's own domain can make that domain resolve to us (DNS rebinding) and then
    /// counts as our origin; but it cannot send a Host that is an address or a name of ours.
    fn known_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Authority, Fault> {
        let mut sent = headers.get_all(HOST).iter();
        let (first, second) = (sent.next(), sent.next());
        let host = first.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        match host {
            Some(host)
                if second.is_none()
                    && self.answers_to(&host)
                    // An absolute target outranks Host (RFC 9112 3.2.2), so it must pass as well.
                    && uri.authority().is_none_or(|target| self.answers_to(target)) =>
            {
                Ok(host)
            }
            _ => Err(Fault::new(
                StatusCode::FORBIDDEN,
                "unknown_host",
                "the Host header must be an address, `localhost` or a name in `[admin] hosts`",
            )
            .with_hint("use the address in the URL, or add the name: hosts = [\"…\"] under [admin]")),
        }
    }

    fn answers_to(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    }

    fn has_token(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(token) = &self.token else {
            return Err(Fault::new(
                StatusCode::FORBIDDEN,
                "read_only",
                "this address is read-only: no token is configured",
            )
            .with_hint("use the unix socket, or set token = { file = \"admin.token\" } under [admin]"));
        };
        let sent = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        match sent {
            Some(sent) if verify_slices_are_equal(sent, &token.0).is_ok() => Ok(()),
            Some(_) => {
                Err(Fault::new(StatusCode::UNAUTHORIZED, "wrong_token", "this is not the admin token"))
            }
            None => {
                Err(Fault::new(StatusCode::UNAUTHORIZED, "token_needed", "a write needs the admin token")
                    .with_hint("send the header `Authorization: Bearer TOKEN`, or use the unix socket"))
            }
        }
    }
}

/// A browser names the page that sent a request; only our own may.
fn same_origin(host: &Authority, headers: &HeaderMap) -> Result<(), Fault> {
    let ours = |origin: &str| {
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
    };
    if headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(ours)) {
        return Ok(());
    }
    Err(Fault::new(StatusCode::FORBIDDEN, "foreign_origin", "the Origin header names another site"))
}

/// The scheme's name is case-insensitive (RFC 9110 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::events::Events;
    use crate::plan::AdminBind;

    fn door(token: Option<&str>) -> Door {
        let plan = AdminPlan {
            socket: None,
            bind: AdminBind::Default,
            token: token.map(|token| Secret(token.as_bytes().to_vec())),
            hosts: vec!["pintle.internal".to_owned()],
        };
        Door::new(Desk::new(Events::default()).0, &plan, &serde_json::Value::Null)
    }

    fn verdict(token: Option<&str>, need: Need, target: &str, headers: &[(&str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        match door(token).admit(Side::Tcp, need, &target.parse().unwrap(), &map) {
            Ok(()) => "in".to_owned(),
            Err(fault) => format!("{} {}", fault.status, fault.code),
        }
    }

    #[test]
    fn a_host_is_an_address_or_localhost_or_a_configured_name_whatever_the_port() {
        for host in
            ["127.0.0.1:9900", "10.1.2.3", "[::1]:9900", "localhost", "LOCALHOST:1", "pintle.internal:9900"]
        {
            assert_eq!(verdict(None, Need::Read, "/", &[("host", host)]), "in", "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"] {
            assert_eq!(verdict(None, Need::Read, "/", &[("host", host)]), "403 unknown_host", "{host}");
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(verdict(None, Need::Read, "/", &both), "403 unknown_host");
        assert_eq!(verdict(None, Need::Read, "/", &[]), "403 unknown_host");
        let absolute = verdict(None, Need::Read, "http://evil.example/", &[("host", "localhost")]);
        assert_eq!(absolute, "403 unknown_host");
    }

    #[test]
    fn probes_and_scrapes_come_by_any_name() {
        assert_eq!(verdict(None, Need::Nothing, "/metrics", &[("host", "pintle.monitoring.svc")]), "in");
    }

    #[test]
    fn an_origin_must_be_the_host_itself() {
        let from = |origin| verdict(None, Need::Read, "/", &[("host", "127.0.0.1:9900"), ("origin", origin)]);
        assert_eq!(from("http://127.0.0.1:9900"), "in");
        for origin in ["http://127.0.0.1:8080", "http://evil.example", "null", "127.0.0.1:9900"] {
            assert_eq!(from(origin), "403 foreign_origin", "{origin}");
        }
    }

    #[test]
    fn a_program_is_started_over_the_socket_only() {
        let headers = [("host", "localhost"), ("authorization", "Bearer s3cret")];
        assert_eq!(verdict(Some("s3cret"), Need::Socket, "/", &headers), "403 socket_only");
        let (door, uri) = (door(None), "/".parse().unwrap());
        assert!(door.admit(Side::Socket, Need::Socket, &uri, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_write_needs_the_token() {
        let write = |token, sent: Option<&str>| {
            let mut headers = vec![("host", "localhost")];
            headers.extend(sent.map(|sent| ("authorization", sent)));
            verdict(token, Need::Write, "/", &headers)
        };
        assert_eq!(write(None, None), "403 read_only");
        assert_eq!(write(Some(""), Some("Bearer ")), "403 read_only");
        assert_eq!(write(Some("s3cret"), None), "401 token_needed");
        assert_eq!(write(Some("s3cret"), Some("Basic s3cret")), "401 token_needed");
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer "] {
            assert_eq!(write(Some("s3cret"), Some(wrong)), "401 wrong_token", "{wrong}");
        }
        assert_eq!(write(Some("s3cret"), Some("Bearer s3cret")), "in");
        assert_eq!(write(Some("s3cret"), Some("bearer  s3cret")), "in");
    }
}
