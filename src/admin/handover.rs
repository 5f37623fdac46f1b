//! What a running process tells the one that replaces it, and how the two speak: messages in JSON,
//! each after its length.
//!
//! Start at [`Offer`]. The descriptors that go with it are `listen::pass`'s; who speaks when is
//! `app::upgrade`'s. Fields that a version does not know are ignored, and those that it misses
//! have a default, so that neighbouring versions understand each other; [`PROTOCOL`] changes when
//! they would not.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::view::DrainView;

pub const PROTOCOL: u32 = 1;

/// Bytes of one message.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Descriptors that one process may offer another.
pub const MAX_OFFERED: usize = 16_384;

/// Everything that the new process needs so that nobody notices the change. With it go
/// descriptors, in the order of these fields: the old one's stderr first, then its sockets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    pub protocol: u32,
    pub pid: u32,
    pub version: String,
    pub listeners: Vec<OfferedListener>,
    pub admin_socket: Option<PathBuf>,
    /// As the plan gives it; its port may be 0.
    pub admin_address: Option<SocketAddr>,
    /// Earlier processes that still finish what they had; for each the channel that ends with it.
    pub elders: Vec<u32>,
    pub backends: Vec<OfferedBackend>,
    pub keys: Vec<OfferedKey>,
    pub tickets: Vec<OfferedTickets>,
    pub next_drain: u64,
    pub past_drains: Vec<DrainView>,
}

impl Offer {
    /// How many descriptors come after it.
    pub fn descriptors(&self) -> usize {
        let sockets =
            self.listeners.iter().fold(0_usize, |sum, listener| sum.saturating_add(listener.sockets));
        let admin = usize::from(self.admin_socket.is_some()) + usize::from(self.admin_address.is_some());
        sockets.saturating_add(1 + admin + self.elders.len())
    }
}

/// An address, and how many sockets listen on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfferedListener {
    pub name: String,
    /// As the plan gives it; its port may be 0.
    pub asked: SocketAddr,
    pub sockets: usize,
}

/// How a backend stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferedBackend {
    pub pool: String,
    pub name: String,
    /// What is known of its health is known of this address.
    pub address: String,
    /// What the address resolves to, where it is a name.
    pub resolved: Vec<SocketAddr>,
    pub word: Option<OfferedWord>,
    pub drain: Option<OfferedDrain>,
    pub health: OfferedHealth,
    /// How long it has been back, where it starts slowly.
    pub back_seconds: Option<f64>,
    pub state_since: f64,
    pub health_since: f64,
}

/// An operator's word.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferedWord {
    pub state: String,
    /// What the file said when it was given.
    pub file_state: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferedDrain {
    pub id: u64,
    pub elapsed_seconds: f64,
    /// What is left of it.
    pub deadline_seconds: Option<f64>,
    pub over: bool,
    pub sessions_then: u64,
    pub sessions_moved: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferedHealth {
    /// `up`, `down`, or `unknown`.
    pub status: String,
    pub detail: String,
    /// Its last answers asked for a drain.
    pub draining: bool,
    pub used: bool,
    pub unconfirmed: bool,
    pub passes: u32,
    pub fails: u32,
}

/// A sticky key that no file holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct OfferedKey {
    pub pool: String,
    pub id: String,
    pub secret: Vec<u8>,
}

/// What seals the TLS session tickets of a listener.
#[derive(Clone, Serialize, Deserialize)]
pub struct OfferedTickets {
    pub listener: String,
    /// The one that seals first.
    pub secrets: Vec<Vec<u8>>,
    /// When it no longer does, in seconds since 1970.
    pub until: u64,
}

impl std::fmt::Debug for OfferedTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfferedTickets({}, ***)", self.listener)
    }
}

impl std::fmt::Debug for OfferedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfferedKey({} of {}, ***)", self.id, self.pool)
    }
}

/// What the new process says to an offer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It accepts on every address.
    Ready { version: String },
    /// It will not; the reason, as printed for a person.
    Refused { why: String },
}

/// The old one's last word: from here on the new one alone answers operators and writes files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {}

/// Writes one message.
pub fn write(mut to: &UnixStream, message: &impl Serialize, deadline: Instant) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length as usize <= MAX_MESSAGE);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the message is too long"))?;
    to.set_write_timeout(Some(left(deadline)?))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&text)
}

/// Reads one message, which must be whole by the deadline.
pub fn read<T: DeserializeOwned>(from: &UnixStream, deadline: Instant) -> io::Result<T> {
    let mut length = [0; 4];
    fill(from, &mut length, deadline)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(ErrorKind::InvalidData, "the message is too long"));
    }
    let mut text = vec![0; length];
    fill(from, &mut text, deadline)?;
    Ok(serde_json::from_slice(&text)?)
}

fn fill(mut from: &UnixStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        from.set_read_timeout(Some(left(deadline)?))?;
        match from.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = &mut buffer[read..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // How the system says that the time is up.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A socket refuses a timeout of zero.
fn left(deadline: Instant) -> io::Result<std::time::Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    #[test]
    fn an_offer_of_another_version_is_read_as_far_as_it_is_known() {
        let text =
            r#"{"protocol":1,"pid":7,"moon":"full","backends":[{"pool":"app","name":"a","colour":1}]}"#;
        let offer: Offer = serde_json::from_str(text).unwrap();
        assert_eq!((offer.pid, offer.backends[0].name.as_str(), offer.next_drain), (7, "a", 0));
        assert_eq!(offer.descriptors(), 1);
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        write(&ours, &Reply::Refused { why: "no".into() }, soon()).unwrap();
        assert!(matches!(read(&theirs, soon()).unwrap(), Reply::Refused { why } if why == "no"));
    }

    #[test]
    fn a_message_is_limited_in_length_and_time() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(read::<Commit>(&theirs, soon()).unwrap_err().kind(), ErrorKind::TimedOut);
        ours.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(read::<Commit>(&theirs, soon()).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(ours);
        assert_eq!(read::<Commit>(&theirs, soon()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = OfferedKey { pool: "app".into(), id: "k".into(), secret: vec![77] };
        assert!(!format!("{key:?}").contains("77"));
    }
}
