//! What systemd is told: ready, reloading, stopping, alive (`sd_notify(3)`).
//!
//! Start at [`Notifier::say`]. Nobody is told anything where `NOTIFY_SOCKET` is not set.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

/// The service manager, if there is one.
#[derive(Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Half the time after which silence counts as death.
    every: Option<Duration>,
    /// When every thread was last asked whether it lives, and whether it still owes the answer.
    asked: Option<(Instant, bool)>,
}

impl Notifier {
    pub fn from_env() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(name) = variable("NOTIFY_SOCKET") else { return Self::default() };
        let to = match open(name.as_bytes()) {
            Ok(to) => Some(to),
            Err(error) => {
                warn!(event = "process", %error, "cannot tell systemd anything: NOTIFY_SOCKET is of no use");
                None
            }
        };
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0).map(Duration::from_micros);
        Self { to, every: limit.map(|limit| limit / 2), asked: None }
    }

    pub fn is_there(&self) -> bool {
        self.to.is_some()
    }

    /// Says it once. A manager that does not listen must not hold anybody up.
    pub fn say(&self, what: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), to) {
            warn!(event = "process", %error, "cannot tell systemd `{}`", what.replace('\n', " "));
        }
    }

    /// With the time by which systemd tells this reload from the one before.
    pub fn reloading(&self) {
        if self.is_there() {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
            self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    /// Whether it is time to ask every thread whether it lives; not while an answer is owed.
    pub fn asks(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else { return false };
        let due = match self.asked {
            None => true,
            Some((at, owed)) => !owed && now.saturating_duration_since(at) >= every,
        };
        if due {
            self.asked = Some((now, true));
        }
        due
    }

    /// Every thread has answered.
    pub fn alive(&mut self) {
        self.asked = self.asked.map(|(at, _)| (at, false));
        self.say("WATCHDOG=1");
    }
}

/// A path, or after an `@` a name in the abstract namespace.
fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(name)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_name_is_reached_as_a_path_is() {
        let name = format!("pintle-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier =
            Notifier { to: Some(open(format!("@{name}").as_bytes()).unwrap()), ..Notifier::default() };
        notifier.say("READY=1");
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
    }

    #[test]
    fn threads_are_asked_at_half_time_and_not_again_before_they_have_answered() {
        let every = Some(Duration::from_secs(1));
        let (mut notifier, now) = (Notifier { every, ..Notifier::default() }, Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(notifier.asks(now) && !notifier.asks(at(5)));
        notifier.alive();
        assert!(notifier.asks(at(6)) && !notifier.asks(at(6)));
        notifier.alive();
        assert!(!notifier.asks(at(6)) && notifier.asks(at(7)));
        assert!(!Notifier::default().asks(now));
    }
}
