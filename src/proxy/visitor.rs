//! A client connection, as its requests know it: where it came from, and what TLS told of it.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::affinity::Memory;
use crate::http::forwarded::Peer;
use crate::http::headers;
use crate::http::serve::Conn;
use crate::listen::tls::Secured;
use crate::live::Snapshot;
use crate::plan::{ListenerLimits, Scheme};
use crate::telemetry::ListenerSeries;

/// A client connection, as its requests know it.
pub struct Visitor {
    pub conn: Rc<Conn>,
    pub listener: Arc<str>,
    pub limits: ListenerLimits,
    pub series: Arc<ListenerSeries>,
    /// What the handshake told; `None` in the clear.
    pub secured: Option<Secured>,
    /// What lives as long as the connection, or the tunnel that it becomes.
    pub place: Box<dyn Any>,
    pub memory: Memory,
    /// The other end, as the current generation sees it.
    peer: RefCell<Option<(u64, Rc<Peer>)>>,
}

impl Visitor {
    pub fn new(
        conn: Rc<Conn>,
        listener: Arc<str>,
        limits: ListenerLimits,
        series: Arc<ListenerSeries>,
        secured: Option<Secured>,
        place: Box<dyn Any>,
    ) -> Rc<Self> {
        Rc::new(Self {
            conn,
            listener,
            limits,
            series,
            secured,
            place,
            memory: Memory::default(),
            peer: RefCell::default(),
        })
    }

    /// The scheme that it came by.
    pub fn scheme(&self) -> Scheme {
        if self.secured.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Whether a client certificate that was asked for under one name counts for this one.
    pub fn may_ask(&self, host: &str) -> bool {
        let bound = self.secured.as_ref().and_then(|secured| secured.bound_to.as_deref());
        bound.is_none_or(|name| name.eq_ignore_ascii_case(host))
    }

    /// What backends are told of the client's certificate, and in which header.
    pub fn subject<'s>(&self, snapshot: &'s Snapshot) -> Option<(&'s HeaderName, HeaderValue)> {
        let subject = self.secured.as_ref()?.subject.as_deref()?;
        let mut listeners = snapshot.plan.listeners.iter();
        let listener = listeners.find(|listener| *listener.name == *self.listener)?;
        let clients = listener.tls.as_ref()?.clients.as_ref()?;
        Some((&clients.subject_header, headers::percent_encoded(subject)))
    }

    /// How the access log writes its TLS.
    pub fn tls(&self) -> Option<&'static str> {
        self.secured.as_ref().map(|secured| secured.version)
    }

    pub fn peer(&self, snapshot: &Snapshot) -> Rc<Peer> {
        let mut known = self.peer.borrow_mut();
        match &*known {
            Some((generation, peer)) if *generation == snapshot.generation => peer.clone(),
            _ => {
                let peer = Rc::new(snapshot.trust.peer(self.conn.peer.get().ip()));
                *known = Some((snapshot.generation, peer.clone()));
                peer
            }
        }
    }
}
