//! Addresses: where to listen, where a backend is, whom to trust.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::{Fault, Spelling};
use crate::certificate;
use crate::plan::{AdminBind, BackendAddress};

/// Where a backend's port is left out, in the clear.
const DEFAULT_PORT: u16 = 80;
/// RFC 1035, 2.3.4.
const MAX_DNS_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A value for the Host of probes: a name or an address, with or without a port. May be empty.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostName(pub(crate) String);

/// A name to ask for in a TLS handshake, and to find in the certificate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerName(pub(crate) String);

/// Whether a backend's address says its port.
pub(crate) fn names_a_port(text: &str) -> bool {
    host_and_port(text).is_ok_and(|(_, port)| port.is_some())
}

/// Whether a text is a DNS name; underscores are let through, as container names have them.
pub(crate) fn dns_name(text: &str) -> Result<(), Fault> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if let Some(odd) = bare.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c))) {
        return Err(Fault::new(match odd {
            _ if odd.is_ascii() => format!("a host name has no {odd:?}"),
            _ => "names outside ASCII are written in their `xn--` form".to_owned(),
        }));
    }
    if bare.is_empty() || bare.len() > MAX_DNS_NAME {
        return Err(Fault::new(format!("a host name has 1 to {MAX_DNS_NAME} characters")));
    }
    match bare.split('.').find(|label| label.is_empty() || label.len() > MAX_LABEL) {
        Some(_) => Err(Fault::new(format!("between dots there are 1 to {MAX_LABEL} characters"))),
        None => Ok(()),
    }
}

impl Spelling for BackendAddress {
    const FORMAT: &'static str = "backend-address";
    const WHAT: &'static str = "a backend's address";
    const EXAMPLE: &'static str = "127.0.0.1:9001";

    fn read(text: &str) -> Result<Self, Fault> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let address = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            let why = match scheme {
                "https" => {
                    "an address is host:port; TLS is the whole pool's, by a table [pool.NAME.tls]".into()
                }
                _ => format!("an address is host:port, without `{scheme}://` and a path"),
            };
            return Err(Fault::new(why).write(address));
        }
        if let Some((address, _)) = text.split_once('/') {
            return Err(Fault::new("an address is host:port; paths are chosen by routes").write(address));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(
                Fault::new("an IPv6 address stands in brackets").write(format!("[{text}]:{DEFAULT_PORT}"))
            );
        }
        let (host, port) = host_and_port(text)?;
        let port = port.unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Err(Fault::new("a backend's port is 1 to 65535"));
        }
        Ok(match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => Self::Ip(SocketAddr::new(ip, port)),
            Err(_) => Self::Name { host: host.trim_end_matches('.').to_ascii_lowercase(), port },
        })
    }
}

/// Splits `host:port`, `host`, `[v6]:port` or `[v6]`, with the host checked.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>), Fault> {
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], text[end + 1..].strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || (port.is_none() && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())) {
        let port = port.unwrap_or(text);
        let fault = Fault::new("an address names its host");
        return Err(if port.parse::<u16>().is_ok() {
            fault.write(format!("127.0.0.1:{port}"))
        } else {
            fault
        });
    }
    match host.strip_prefix('[') {
        Some(v6) => {
            let inner = v6.strip_suffix(']').unwrap_or(v6);
            inner
                .parse::<Ipv6Addr>()
                .map_err(|_| Fault::new("between the brackets stands an IPv6 address"))?;
            if text.len() > host.len() && port.is_none() {
                return Err(Fault::new("after the bracket stands `:` and a port"));
            }
        }
        None => {
            dns_name(host)?;
            let dotted = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if dotted && host.parse::<IpAddr>().is_err() {
                return Err(Fault::new("four numbers from 0 to 255 make an IPv4 address"));
            }
        }
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_)) => Err(Fault::new("a port is a number from 1 to 65535")),
        Some(Ok(port)) => Ok((host, Some(port))),
        None => Ok((host, None)),
    }
}

impl Spelling for SocketAddr {
    const FORMAT: &'static str = "socket-address";
    const WHAT: &'static str = "an address to listen on";
    const EXAMPLE: &'static str = "127.0.0.1:8080";

    fn read(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|_| {
            let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
            if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) {
                return Fault::new("the port is missing").write(format!("{text}:8080"));
            }
            if text.parse::<Ipv6Addr>().is_ok() {
                return Fault::new("an IPv6 address stands in brackets, with a port")
                    .write(format!("[{text}]:8080"));
            }
            let ip = match host {
                "" | "*" => Some("0.0.0.0"),
                "localhost" => Some("127.0.0.1"),
                _ => None,
            };
            let fault = Fault::new("an IP address and a port, as in `0.0.0.0:8080` or `[::]:8080`");
            match ip {
                Some(ip) if port.parse::<u16>().is_ok() => fault.write(format!("{ip}:{port}")),
                _ => fault,
            }
        })
    }
}

impl Spelling for AdminBind {
    const FORMAT: &'static str = "admin-bind";
    const WHAT: &'static str = "an address to listen on";
    const EXAMPLE: &'static str = "127.0.0.1:9900";

    fn read(text: &str) -> Result<Self, Fault> {
        match text {
            "off" => Ok(Self::Off),
            // Nobody means to show this side to everybody by leaving the host out.
            _ => SocketAddr::read(text).map(Self::At).map_err(|fault| Fault {
                write: fault.write.map(|meant| meant.replace("0.0.0.0", "127.0.0.1")),
                ..fault
            }),
        }
    }
}

impl Spelling for IpNet {
    const FORMAT: &'static str = "network";
    const WHAT: &'static str = "a network";
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn read(text: &str) -> Result<Self, Fault> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        match text.parse::<Self>() {
            Ok(net) => Ok(net.trunc()),
            Err(_) => {
                Err(Fault::new("an address, or an address, `/` and a number of bits, as in `10.0.0.0/8`"))
            }
        }
    }
}

impl Spelling for HostName {
    const FORMAT: &'static str = "host-name";
    const WHAT: &'static str = "a host name";
    const EXAMPLE: &'static str = "app.internal";

    fn read(text: &str) -> Result<Self, Fault> {
        if !text.is_empty() {
            // A likely address to connect to is no likely name.
            host_and_port(text).map_err(|fault| Fault { write: None, ..fault })?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl Spelling for ServerName {
    const FORMAT: &'static str = "server-name";
    const WHAT: &'static str = "a server's name";
    const EXAMPLE: &'static str = "app.internal";

    fn read(text: &str) -> Result<Self, Fault> {
        if text.parse::<IpAddr>().is_err() && !certificate::names_a_server(text) {
            let (host, port) = host_and_port(text)?;
            let fault = Fault::new("a DNS name or an IP address, without a port");
            return Err(if port.is_some() { fault.write(host.trim_matches(['[', ']'])) } else { fault });
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_a_port() {
        let read = |text: &str| ServerName::read(text).map(|name| name.0).map_err(|fault| fault.write);
        assert_eq!(read("App.Internal"), Ok("app.internal".into()));
        assert_eq!(read("::1"), Ok("::1".into()));
        assert_eq!(read("app.internal:443"), Err(Some("app.internal".into())));
        assert_eq!(read("[::1]:443"), Err(Some("::1".into())));
        for bad in ["", "a b", "-a.example", "https://a"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    fn shown(text: &str) -> Result<String, Option<String>> {
        BackendAddress::read(text).map(|address| address.to_string()).map_err(|fault| fault.write)
    }

    #[test]
    fn a_backend_is_an_address_or_a_name_and_port_80_when_left_out() {
        assert_eq!(shown("127.0.0.1:9001"), Ok("127.0.0.1:9001".into()));
        assert_eq!(shown("10.0.0.1"), Ok("10.0.0.1:80".into()));
        assert_eq!(shown("[::1]:9001"), Ok("[::1]:9001".into()));
        assert_eq!(shown("[::1]"), Ok("[::1]:80".into()));
        assert_eq!(shown("App.Internal"), Ok("app.internal:80".into()));
        assert_eq!(shown("my_app:9001"), Ok("my_app:9001".into()));
        assert!(matches!(BackendAddress::read("[::1]:1"), Ok(BackendAddress::Ip(_))));
    }

    #[test]
    fn a_likely_address_is_offered() {
        for (typed, meant) in [
            ("http://10.0.0.1:9001/x", "10.0.0.1:9001"),
            ("10.0.0.1:9001/x", "10.0.0.1:9001"),
            ("https://a", "a"),
            (":9001", "127.0.0.1:9001"),
            ("9001", "127.0.0.1:9001"),
            ("::1", "[::1]:80"),
        ] {
            assert_eq!(shown(typed), Err(Some(meant.into())), "{typed}");
        }
        for typed in
            ["", "a b:1", "a:b", "a:70000", "a:0", "1.2.3.400:1", "[::1", "[x]:1", "[::1]x", "a..b", "é"]
        {
            assert_eq!(shown(typed), Err(None), "{typed}");
        }
    }

    #[test]
    fn a_likely_place_to_listen_is_offered() {
        let write = |text: &str| SocketAddr::read(text).unwrap_err().write;
        assert_eq!(write(":8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(write("*:8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(write("8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(write("localhost:8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(write("127.0.0.1").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(write("example.com:80"), None);
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(IpNet::read("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(IpNet::read("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(IpNet::read("10.0.0.0/33").is_err());
    }
}
