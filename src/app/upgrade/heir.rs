//! The new process's side: what it was handed, and when it may go on.
//!
//! Start at [`Heir::called`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::Elder;
use crate::admin::handover::{self, Commit, MAX_OFFERED, Offer, PROTOCOL, Reply};
use crate::app::inherited::{Inherited, Passed};
use crate::app::secure::TicketsOf;
use crate::listen::pass;
use crate::listen::tickets::{Tickets, Told};
use crate::plan::{Secret, StickyKey};

/// Set for a process that is to take over from another: that one's process id. Its stdin is the
/// line between the two.
pub(super) const FROM: &str = "PINTLE_UPGRADE_FROM";

/// How long the old process may take for a word of its own.
const WORD_WITHIN: Duration = Duration::from_secs(10);

/// A process that takes over from another one.
pub struct Heir {
    line: UnixStream,
    pub(in crate::app) offer: Offer,
    elders: Vec<Elder>,
}

/// Where the old process is told why nothing comes of it.
pub struct Refusal(UnixStream);

impl Heir {
    /// What was handed over, if this process was started to take over from another.
    pub fn called() -> Result<Option<Inherited>, String> {
        match std::env::var_os(FROM) {
            Some(_) => receive().map(Some).map_err(|error| format!("cannot take over: {error}")),
            None => Ok(None),
        }
    }

    pub fn refusal(&self) -> Option<Refusal> {
        self.line.try_clone().ok().map(Refusal)
    }

    pub(in crate::app) fn keys(&self) -> HashMap<String, StickyKey> {
        let keys = self.offer.keys.iter().filter(|key| key.secret.len() == 32);
        keys.map(|key| {
            let secret = Secret(key.secret.clone());
            (key.pool.clone(), StickyKey { id: key.id.clone(), secret })
        })
        .collect()
    }

    pub(in crate::app) fn tickets(&self) -> TicketsOf {
        let told = self.offer.tickets.iter().filter_map(|told| {
            let keys = Told { secrets: told.secrets.clone(), until: told.until };
            Some((told.listener.clone(), Tickets::resume(&keys)?))
        });
        told.collect()
    }

    /// Says that everything runs and waits for the last word. Without it there is no going on.
    pub(in crate::app) fn settle(self) -> io::Result<Vec<Elder>> {
        let deadline = Instant::now() + WORD_WITHIN;
        let ready = Reply::Ready { version: env!("CARGO_PKG_VERSION").to_owned() };
        handover::write(&self.line, &ready, deadline)?;
        handover::read::<Commit>(&self.line, deadline)?;
        let old = Elder { pid: self.offer.pid, line: self.line };
        Ok(self.elders.into_iter().chain([old]).collect())
    }
}

impl Refusal {
    pub fn say(&self, why: String) {
        // Whoever is gone needs no reason.
        let _ = handover::write(&self.0, &Reply::Refused { why }, Instant::now() + WORD_WITHIN);
    }
}

fn receive() -> io::Result<Inherited> {
    let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Nothing else is to read from the line, nor to keep it open.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let deadline = Instant::now() + WORD_WITHIN;
    let offer: Offer = handover::read(&line, deadline)?;
    if offer.protocol != PROTOCOL {
        let why = format!(
            "version {} hands over in a way that version {} does not know",
            offer.version,
            env!("CARGO_PKG_VERSION")
        );
        Refusal(line).say(why.clone());
        return Err(io::Error::other(why));
    }
    if offer.descriptors() > MAX_OFFERED {
        return Err(io::Error::other(format!("more than {MAX_OFFERED} sockets were offered")));
    }
    line.set_read_timeout(Some(WORD_WITHIN))?;
    let mut descriptors = pass::receive(&line, offer.descriptors())?.into_iter();
    if let Some(stderr) = descriptors.next() {
        // Until here it was the old process, which keeps the last words.
        rustix::stdio::dup2_stderr(stderr)?;
    }
    sort(line, offer, descriptors)
}

/// The descriptors come in the order of the offer's fields.
fn sort(
    line: UnixStream,
    offer: Offer,
    mut descriptors: impl Iterator<Item = OwnedFd>,
) -> io::Result<Inherited> {
    let mut listeners = Vec::new();
    for listener in &offer.listeners {
        let sockets: Vec<_> = descriptors.by_ref().take(listener.sockets).map(TcpListener::from).collect();
        if let Some(first) = sockets.first() {
            let (name, actual) = (Some(listener.name.clone()), first.local_addr()?);
            listeners.push(Passed { name, asked: Some(listener.asked), actual, sockets });
        }
    }
    let mut next = || descriptors.next().ok_or_else(|| io::Error::other("a socket is missing"));
    let admin_socket = match &offer.admin_socket {
        Some(path) => Some((path.clone(), UnixListener::from(next()?))),
        None => None,
    };
    let admin_tcp = match offer.admin_address {
        Some(asked) => Some((asked, TcpListener::from(next()?))),
        None => None,
    };
    let elders: io::Result<Vec<_>> =
        offer.elders.iter().map(|pid| Ok(Elder { pid: *pid, line: next()?.into() })).collect();
    let heir = Some(Heir { line, elders: elders?, offer });
    Ok(Inherited { listeners, admin_socket, admin_tcp, heir })
}

/// Ready when the process at the other end is gone.
pub(super) async fn ends(mut line: tokio::net::UnixStream) {
    let mut nothing = [0; 64];
    while matches!(line.read(&mut nothing).await, Ok(1..)) {}
}
