//! Where things are when nobody says: the file that `serve` reads, and the running Pintle.
//!
//! Start at [`candidates`], which decides; [`admin`] gathers what it decides by.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::outcome::Failure;
use crate::admin::places;
use crate::config::{
    self,
    reach::{Reach, reach},
};

/// The files that `serve` and `check` look for, best first.
pub const FILES: [&str; 2] = ["pintle.toml", "/etc/pintle/pintle.toml"];

/// The file that `serve` would read.
pub fn file() -> Option<PathBuf> {
    FILES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Where an admin API may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Socket(PathBuf),
    /// `host:port`
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// The addresses to try, in order: the one asked for, else all that it could be.
pub fn admin(asked: Option<&str>) -> Result<Vec<Address>, Failure> {
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        return Ok(vec![parse(asked)?]);
    }
    let written = file().and_then(|path| {
        let text = config::read(&path).ok()?;
        Some(reach(&text, path.parent().unwrap_or(Path::new(""))))
    });
    Ok(candidates(written.unwrap_or_default(), places::sockets()))
}

/// The file's word first, then the conventional sockets, then the conventional port.
fn candidates(written: Reach, sockets: Vec<PathBuf>) -> Vec<Address> {
    let tcp = |address: SocketAddr| Address::Tcp(reachable(address).to_string());
    let written = written.socket.map(Address::Socket).into_iter().chain(written.bind.map(tcp));
    let conventional = sockets.into_iter().map(Address::Socket).chain([tcp(places::TCP)]);
    let mut all: Vec<Address> = Vec::new();
    for address in written.chain(conventional) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Somebody who listens on every address is reached on this machine's own.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// `--admin` as typed: whatever has a slash or ends in `.sock` is a path.
fn parse(typed: &str) -> Result<Address, Failure> {
    let plain = typed.strip_prefix("http://").map_or(typed, |rest| rest.trim_end_matches('/'));
    if plain.contains('/') || plain.ends_with(".sock") {
        return Ok(Address::Socket(plain.strip_prefix("unix:").unwrap_or(plain).into()));
    }
    match plain.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            Ok(Address::Tcp(format!("{host}:{port}")))
        }
        _ => Err(Failure::usage(format!(
            "`{typed}` is neither an address with a port nor the path of a socket"
        ))
        .help("write `127.0.0.1:9900` or `/run/pintle/admin.sock`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(Address::to_string).collect()
    }

    #[test]
    fn the_files_door_is_tried_before_the_conventional_ones() {
        let written =
            Reach { socket: Some("/srv/a.sock".into()), bind: Some("0.0.0.0:9901".parse().unwrap()) };
        let found = candidates(written, vec!["/run/pintle/admin.sock".into()]);
        let expected = ["/srv/a.sock", "127.0.0.1:9901", "/run/pintle/admin.sock", "127.0.0.1:9900"];
        assert_eq!(shown(&found), expected);
    }

    #[test]
    fn an_address_is_tried_once() {
        let written =
            Reach { socket: Some("/run/pintle/admin.sock".into()), bind: Some("[::]:9900".parse().unwrap()) };
        let found = candidates(written, vec!["/run/pintle/admin.sock".into(), "/tmp/p/admin.sock".into()]);
        let expected = ["/run/pintle/admin.sock", "[::1]:9900", "/tmp/p/admin.sock", "127.0.0.1:9900"];
        assert_eq!(shown(&found), expected);
    }

    #[test]
    fn what_is_asked_for_is_the_only_candidate() {
        let only = |typed: &str| shown(&admin(Some(typed)).unwrap());
        assert_eq!(only(":9901"), ["127.0.0.1:9901"]);
        assert_eq!(only("http://lb.internal:9900/"), ["lb.internal:9900"]);
        assert_eq!(only("unix:/tmp/a.sock"), ["/tmp/a.sock"]);
        assert_eq!(only("admin.sock"), ["admin.sock"]);
        assert_eq!(admin(Some("lb")).unwrap_err().exit as u8, 2);
    }
}
