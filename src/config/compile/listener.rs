//! Listeners: where they bind and their limits.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::Compiler;
use crate::config::findings::Finding;
use crate::config::place::Place;
use crate::config::schema::{Listener, OneOrMany, Protocol};
use crate::plan::{AdminBind, AdminPlan, ListenerLimits, ListenerPlan, Plan, Protocols, ProxyProtocol};

/// Where clients connect when the file does not say.
const DEFAULT_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl Compiler<'_, '_> {
    pub(crate) fn listeners(
        &mut self,
        written: BTreeMap<String, Listener>,
        admin: &AdminPlan,
    ) -> Vec<ListenerPlan> {
        let top = Place::default().at("listener");
        if written.is_empty() && self.findings.sound(&top) {
            let limits = limits(&Listener::default());
            return vec![ListenerPlan {
                name: "default".to_owned(),
                bind: vec![DEFAULT_BIND],
                proxy_protocol: ProxyProtocol::Off,
                tls: None,
                protocols: Protocols { http1: true, http2: false },
                limits,
            }];
        }
        let mut listeners = Vec::new();
        let mut taken: BTreeMap<SocketAddr, Place> = BTreeMap::new();
        if let AdminBind::At(address) = admin.bind {
            taken.insert(address, Place::default().at("admin").at("bind"));
        }
        for (name, listener) in self.in_file_order(&top, written) {
            let place = top.at(&name);
            let bind = self.bind(&listener, &place, &mut taken);
            let tls = listener.tls.as_ref().and_then(|tls| self.tls(tls, &place.at("tls")));
            let protocols = self.protocols(&listener, &place.at("protocols"));
            let (proxy_protocol, limits) = (listener.proxy_protocol.0, limits(&listener));
            listeners.push(ListenerPlan { name, bind, proxy_protocol, tls, protocols, limits });
        }
        listeners
    }

    /// Whoever may connect could else pass for anybody.
    pub(crate) fn proxy_headers_are_trusted(&mut self, plan: &Plan) {
        let trusted = Place::default().at("server").at("trusted_proxies");
        if !plan.server.trusted_proxies.is_empty() || !self.findings.sound(&trusted) {
            return;
        }
        let listeners = plan.listeners.iter();
        for listener in listeners.filter(|listener| listener.proxy_protocol != ProxyProtocol::Off) {
            let place = Place::default().at("listener").at(&listener.name).at("proxy_protocol");
            let message = "a PROXY header is taken from `trusted_proxies` alone, and there are none";
            let finding = Finding::error("missing", &place, message).label("nobody could connect");
            let help = "add `trusted_proxies = [\"192.0.2.7\"]`, with the proxy's address, to [server]";
            self.findings.add(finding.say(help));
        }
    }

    /// `h2` is for TLS and `h2c` for the clear; `h2` beside something else is a wish, and no error
    /// where there is no TLS: so the default fits both.
    fn protocols(&mut self, listener: &Listener, place: &Place) -> Protocols {
        let named = |protocol| listener.protocols.iter().any(|named| named.0 == protocol);
        let secure = listener.tls.is_some();
        let http1 = named(Protocol::Http1);
        let http2 = named(if secure { Protocol::H2 } else { Protocol::H2c });
        let stray = if secure && named(Protocol::H2c) {
            Some(("`h2c` is HTTP/2 without TLS, and this listener has TLS", "write `h2`"))
        } else if !secure && !http1 && !http2 && named(Protocol::H2) {
            Some(("`h2` needs TLS, and this listener has none", "write `h2c` for HTTP/2 in the clear"))
        } else {
            None
        };
        if let Some((what, help)) = stray {
            self.findings.add(Finding::error("conflict", place, what).label("here").say(help));
        }
        Protocols { http1, http2 }
    }

    /// Tables with names, in the order of the file and not of the alphabet.
    pub(crate) fn in_file_order<T>(&self, place: &Place, written: BTreeMap<String, T>) -> Vec<(String, T)> {
        let mut tables: Vec<(String, T)> = written.into_iter().collect();
        tables.sort_by_key(|(name, _)| self.findings.span(&place.at(name)).start);
        tables
    }

    fn bind(
        &mut self,
        listener: &Listener,
        place: &Place,
        taken: &mut BTreeMap<SocketAddr, Place>,
    ) -> Vec<SocketAddr> {
        let at = place.at("bind");
        let addresses: Vec<(Place, SocketAddr)> = match &listener.bind {
            Some(OneOrMany::One(address)) => vec![(at, address.value)],
            Some(OneOrMany::Many(list)) => list
                .iter()
                .enumerate()
                .map(|(n, address)| (self.findings.element(&at, n), address.value))
                .collect(),
            None => Vec::new(),
        };
        if addresses.is_empty() && self.findings.sound(&place.at("bind")) && self.findings.clear(place) {
            let finding =
                Finding::error("missing", place, "a listener needs an address").label("needs `bind`");
            self.findings.add(finding.say("add `bind = \"0.0.0.0:8080\"`"));
        }
        for (at, address) in &addresses {
            // Port 0 is a new port each time.
            let earlier = if address.port() == 0 { None } else { taken.insert(*address, at.clone()) };
            if let Some(earlier) = earlier {
                let finding = Finding::error("conflict", at, format!("`{address}` is taken twice"));
                self.findings.add(finding.label("again here").with(&earlier, "first here"));
            }
        }
        addresses.into_iter().map(|(_, address)| address).collect()
    }
}

fn limits(listener: &Listener) -> ListenerLimits {
    ListenerLimits {
        first_byte_timeout: listener.first_byte_timeout.value,
        header_timeout: listener.header_timeout.value,
        idle_timeout: listener.idle_timeout.value,
        max_header_size: usize::try_from(listener.max_header_size.value.0)
            .expect("checked to be at most 64 KiB"),
        max_headers: listener.max_headers,
        max_body: listener.max_body.value.0,
        min_body_rate: listener.min_body_rate.value.0,
        max_streams: listener.http2.max_streams,
        max_resets_per_second: listener.http2.max_resets_per_second,
        max_connections_per_client: listener.max_connections_per_client,
    }
}
