//! Sockets that were open before this process began, used instead of binding: systemd opened them,
//! or an earlier process handed them over.
//!
//! Start at [`Inherited::take`]. How they are handed over is `upgrade`'s.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

use super::secure::TicketsOf;
use super::upgrade::{Heir, Refusal};
use crate::plan::{ListenerPlan, StickyKey};

/// What a process begins with.
#[derive(Default)]
pub struct Inherited {
    pub(super) listeners: Vec<Passed>,
    pub(super) admin_socket: Option<(PathBuf, UnixListener)>,
    /// By the address that was asked for.
    pub(super) admin_tcp: Option<(SocketAddr, TcpListener)>,
    /// The line to the earlier process, and all that it told.
    pub(super) heir: Option<Heir>,
}

/// Sockets of one address.
pub struct Passed {
    pub name: Option<String>,
    /// What an earlier process was told to bind; systemd tells no such thing.
    pub asked: Option<SocketAddr>,
    pub actual: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

impl Inherited {
    /// What systemd has opened (`sd_listen_fds(3)`). To be asked before there are other threads.
    pub fn activated() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut passed = ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().filter(|name| !name.is_empty());
            let Some(socket) = passed.take_tcp_listener(index)? else { continue };
            socket.set_nonblocking(true)?;
            let actual = socket.local_addr()?;
            listeners.push(Passed { name, asked: None, actual, sockets: vec![socket] });
        }
        Ok(Self { listeners, ..Self::default() })
    }

    /// Where an earlier process is told why nothing comes of it, if there is one.
    pub fn refusal(&self) -> Option<Refusal> {
        self.heir.as_ref().and_then(Heir::refusal)
    }

    /// The sockets for an address of a listener, and where they really are.
    pub(super) fn take(
        &mut self,
        plan: &[ListenerPlan],
        name: &str,
        asked: SocketAddr,
    ) -> Option<(SocketAddr, Vec<TcpListener>)> {
        let wanted = |address| plan.iter().any(|listener| listener.bind.contains(&address));
        let at = choose(&self.listeners, wanted, name, asked)?;
        let passed = self.listeners.swap_remove(at);
        Some((passed.actual, passed.sockets))
    }

    /// The admin socket, if it is at that path. It leaves no file behind that nobody owns.
    pub(super) fn take_admin_socket(&mut self, path: &Path) -> Option<UnixListener> {
        self.admin_socket.take_if(|(at, _)| at == path).map(|(_, listener)| listener)
    }

    pub(super) fn take_admin_tcp(&mut self, asked: SocketAddr) -> Option<TcpListener> {
        self.admin_tcp.take_if(|(at, _)| *at == asked).map(|(_, listener)| listener)
    }

    /// Where systemd's sockets are that no listener asked for. Those of an earlier process that
    /// nobody needs any more are closed with it.
    pub(super) fn unused(&self) -> Vec<String> {
        let activated = self.listeners.iter().filter(|passed| passed.asked.is_none());
        activated
            .map(|passed| {
                let name = passed.name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
                format!("a socket that was passed is not used: no listener has {}{name}", passed.actual)
            })
            .collect()
    }

    /// What sealed the earlier process's session tickets.
    pub(super) fn tickets(&self) -> TicketsOf {
        self.heir.as_ref().map(Heir::tickets).unwrap_or_default()
    }

    /// The sticky keys that the earlier process had made.
    pub(super) fn keys(&self) -> HashMap<String, StickyKey> {
        self.heir.as_ref().map(Heir::keys).unwrap_or_default()
    }
}

/// Which of them: the same address of the same listener, then the address alone, then a socket
/// that systemd named after the listener and nobody wants for its address.
fn choose(
    passed: &[Passed],
    wanted: impl Fn(SocketAddr) -> bool,
    name: &str,
    asked: SocketAddr,
) -> Option<usize> {
    let named = |passed: &&Passed| passed.name.as_deref() == Some(name);
    let position = |is: &dyn Fn(&&Passed) -> bool| passed.iter().position(|passed| is(&passed));
    // Port 0 is another address each time, and whose it was only the name tells.
    position(&|passed| passed.asked == Some(asked) && named(passed))
        .or_else(|| position(&|passed| passed.asked == Some(asked) && asked.port() != 0))
        .or_else(|| position(&|passed| passed.asked.is_none() && passed.actual == asked))
        .or_else(|| position(&|passed| passed.asked.is_none() && named(passed) && !wanted(passed.actual)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: &str, asked: Option<&str>, actual: &str) -> Passed {
        let asked = asked.map(|asked| asked.parse().unwrap());
        Passed { name: Some(name.into()), asked, actual: actual.parse().unwrap(), sockets: Vec::new() }
    }

    fn chosen(from: &[Passed], binds: &[&str], name: &str, asked: &str) -> Option<String> {
        let binds: Vec<SocketAddr> = binds.iter().map(|bind| bind.parse().unwrap()).collect();
        let at = choose(from, |address| binds.contains(&address), name, asked.parse().unwrap())?;
        Some(from[at].actual.to_string())
    }

    #[test]
    fn an_earlier_processs_address_is_kept_whatever_its_listener_is_called_now() {
        let old = [passed("web", Some("1.1.1.1:80"), "1.1.1.1:80")];
        assert_eq!(chosen(&old, &[], "web", "1.1.1.1:80").as_deref(), Some("1.1.1.1:80"));
        assert_eq!(chosen(&old, &[], "shop", "1.1.1.1:80").as_deref(), Some("1.1.1.1:80"));
        assert_eq!(chosen(&old, &[], "web", "1.1.1.1:81"), None);
    }

    #[test]
    fn any_port_belongs_to_the_listener_that_had_it() {
        let old = [
            passed("api", Some("127.0.0.1:0"), "127.0.0.1:4001"),
            passed("web", Some("127.0.0.1:0"), "127.0.0.1:4002"),
        ];
        assert_eq!(chosen(&old, &[], "web", "127.0.0.1:0").as_deref(), Some("127.0.0.1:4002"));
        assert_eq!(chosen(&old, &[], "shop", "127.0.0.1:0"), None);
    }

    #[test]
    fn systemds_sockets_are_found_by_address_and_else_by_name() {
        let given = [passed("web", None, "[::]:80"), passed("web", None, "[::]:443")];
        let binds = ["0.0.0.0:80", "[::]:443"];
        assert_eq!(chosen(&given, &binds, "web", "[::]:443").as_deref(), Some("[::]:443"));
        assert_eq!(chosen(&given, &binds, "web", "0.0.0.0:80").as_deref(), Some("[::]:80"));
        assert_eq!(chosen(&given[1..], &binds, "web", "0.0.0.0:80"), None, "it is wanted where it is");
        assert_eq!(chosen(&given, &binds, "api", "0.0.0.0:80"), None);
    }
}
