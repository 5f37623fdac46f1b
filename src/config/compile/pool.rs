//! Pools: policy, backends, health, timeouts.

use std::collections::BTreeMap;

use super::Compiler;
use crate::certificate;
use crate::config::findings::Finding;
use crate::config::place::{Place, quoted};
use crate::config::schema::{Backend, Connections, Health, Policy, Pool, Timeouts};
use crate::config::spelling::{Name, Spelling, names_a_port};
use crate::plan::{
    BackendAddress, BackendPlan, ConnectionsPlan, FileState, HashOn, HashPlan, HealthPlan, HoldPlan,
    IpPrefix, OutlierPlan, PolicyPlan, PoolPlan, PoolProtocol, Probe, SendProxy, StatusSet, TimeoutsPlan,
};

/// Where a backend's port is left out, over TLS.
const TLS_PORT: u16 = 443;

/// A key that clients cannot guess has at least this many bytes.
const MIN_HASH_KEY: usize = 16;

impl Compiler<'_, '_> {
    pub(crate) fn pools(&mut self, written: BTreeMap<String, Pool>) -> Vec<PoolPlan> {
        let top = Place::default().at("pool");
        self.in_file_order(&top, written)
            .into_iter()
            .map(|(name, pool)| self.pool(name, pool, &top))
            .collect()
    }

    fn pool(&mut self, name: String, pool: Pool, top: &Place) -> PoolPlan {
        let place = top.at(&name);
        let policy = self.policy(&pool, &place);
        let tls = pool.tls.as_ref().and_then(|tls| self.backend_tls(tls, &place.at("tls")));
        self.protocol_fits(&pool, &place);
        let backends = self.backends(pool.backends.unwrap_or_default(), pool.tls.is_some(), &place);
        if tls.as_ref().is_some_and(|tls| tls.sni.is_none()) {
            self.backends_can_be_asked_for(&backends, &place);
        }
        let cookie = self.sticky(pool.sticky, &name, &place.at("sticky"));
        let health = pool.health.and_then(|health| self.health(health, pool.protocol.0, &place));
        PoolPlan {
            policy,
            sticky: pool.policy.0 == Policy::StickyCookie,
            cookie,
            backends,
            protocol: pool.protocol.0,
            tls,
            proxy_protocol: pool.proxy_protocol.0,
            host: pool.host.value,
            slow_start: pool.slow_start.value,
            via: pool.via,
            max_in_flight: pool.max_in_flight,
            panic_threshold: pool.panic_threshold,
            outlier: pool.outlier.as_ref().map(|outlier| OutlierPlan {
                consecutive_errors: outlier.consecutive_errors,
                consecutive_5xx: outlier.consecutive_5xx,
                eject: outlier.eject.value,
                max_ejected: outlier.max_ejected,
            }),
            hold: HoldPlan { max: pool.hold.max, timeout: pool.hold.timeout.value },
            health,
            timeouts: timeouts(&pool.timeouts),
            connections: connections(&pool.connections),
            name,
        }
    }

    /// Who places somebody without a valid token.
    fn policy(&mut self, pool: &Pool, place: &Place) -> PolicyPlan {
        let policy = match pool.policy.0 {
            Policy::StickyCookie => pool.sticky.fallback.0.0,
            policy => policy,
        };
        let key = pool.hash_key.as_ref().and_then(|key| self.secret(key, &place.at("hash_key")));
        if let Some(key) = key.as_ref().filter(|key| key.0.len() < MIN_HASH_KEY) {
            let finding = Finding::error("secret", &place.at("hash_key"), "the hash key is too short");
            self.findings.add(finding.label(format!("{} bytes of at least {MIN_HASH_KEY}", key.0.len())));
        }
        let on = pool.hash_on.value.clone();
        self.hash_on_is_used(policy, &on, &pool.hash_on.text, &place.at("hash_on"));
        let prefix = IpPrefix { v4: pool.ip_prefix.v4, v6: pool.ip_prefix.v6 };
        match policy {
            Policy::RoundRobin | Policy::StickyCookie => PolicyPlan::RoundRobin,
            Policy::LeastConn => PolicyPlan::LeastConn,
            Policy::LeastTime => PolicyPlan::LeastTime,
            Policy::RandomTwo => PolicyPlan::RandomTwo,
            Policy::IpHash => PolicyPlan::IpHash(HashPlan { on: HashOn::ClientIp, prefix, key }),
            Policy::ConsistentHash => PolicyPlan::ConsistentHash(HashPlan { on, prefix, key }),
        }
    }

    fn hash_on_is_used(&mut self, policy: Policy, on: &HashOn, text: &str, place: &Place) {
        if *on == HashOn::ClientIp
            || policy == Policy::ConsistentHash
            || !self.findings.sound(&place.parent().at("policy"))
        {
            return;
        }
        let finding = if policy == Policy::IpHash {
            Finding::error("conflict", place, format!("ip_hash hashes the client's address, not `{text}`"))
                .label("always client_ip")
                .say("write `policy = \"consistent_hash\"` to hash something else")
        } else {
            Finding::warning("unused", place, "`hash_on` changes nothing here")
                .label("only consistent_hash looks at it")
        };
        self.findings.add(finding);
    }

    /// Whether what is spoken and how it is wrapped go together.
    fn protocol_fits(&mut self, pool: &Pool, place: &Place) {
        let (at, secure) =
            (place.at("protocol"), pool.tls.is_some() || !self.findings.sound(&place.at("tls")));
        let finding = |message: &str, label: &str| Finding::error("conflict", &at, message).label(label);
        match pool.protocol.0 {
            PoolProtocol::H2 if !secure => {
                let finding = finding("`h2` is spoken over TLS", "this pool has none");
                let table = place.at("tls").heading();
                self.findings.add(finding.say(format!(
                    "add a table {table}, or write `protocol = \"h2c\"` for HTTP/2 in the clear"
                )));
            }
            PoolProtocol::Auto if !secure => {
                self.findings
                    .add(finding("without TLS a backend has no way to choose", "this pool has none").say(
                    "write `protocol = \"http/1.1\"` or `protocol = \"h2c\"`, whichever the backends speak",
                ))
            }
            PoolProtocol::H2c if pool.tls.is_some() => {
                let finding = finding("`h2c` is HTTP/2 in the clear, and this pool has TLS", "not over TLS");
                self.findings.add(finding.write("\"h2\""));
            }
            _ => {}
        }
        if pool.proxy_protocol.0 != SendProxy::Off && pool.protocol.0 != PoolProtocol::Http1 {
            let message = "an HTTP/2 connection carries many clients, and the PROXY header names one";
            let finding = Finding::error("conflict", &place.at("proxy_protocol"), message);
            let finding = finding.label("only with `protocol = \"http/1.1\"`");
            self.findings.add(finding.with(&at, "what is spoken"));
        }
    }

    /// Over TLS a backend's host is asked for, and held against its certificate.
    fn backends_can_be_asked_for(&mut self, backends: &[BackendPlan], pool: &Place) {
        let list = pool.at("backends");
        for (index, backend) in backends.iter().enumerate() {
            let BackendAddress::Name { host, .. } = &backend.address else { continue };
            if certificate::names_a_server(host) {
                continue;
            }
            let at = self.findings.element(&list, index);
            let finding = Finding::error("value", &at, format!("no certificate can be for `{host}`"));
            let finding = finding.label("not a name that TLS can ask for");
            let table = pool.at("tls").heading();
            self.findings
                .add(finding.say(format!("say in {table} which name to ask for: `sni = \"app.internal\"`")));
        }
    }

    fn backends(&mut self, written: Vec<Backend>, tls: bool, pool: &Place) -> Vec<BackendPlan> {
        let list = pool.at("backends");
        if written.is_empty() && self.findings.clear(pool) && self.findings.sound(&list) {
            let finding = Finding::error("missing", pool, "a pool needs backends").label("needs `backends`");
            self.findings.add(finding.say("add `backends = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]`"));
        }
        let mut names: BTreeMap<String, Place> = BTreeMap::new();
        let mut backends = Vec::new();
        for (index, backend) in written.into_iter().enumerate() {
            let place = self.findings.element(&list, index);
            let backend = self.backend(backend, tls, &place);
            if let Some(first) = names.get(&backend.name) {
                let finding = Finding::error(
                    "duplicate",
                    &place,
                    format!("two backends are called `{}`", backend.name),
                );
                self.findings.add(
                    finding
                        .label("again here")
                        .with(first, "first here")
                        .say("give each a `name` of its own"),
                );
            }
            names.entry(backend.name.clone()).or_insert(place);
            backends.push(backend);
        }
        backends
    }

    fn backend(&mut self, backend: Backend, tls: bool, place: &Place) -> BackendPlan {
        let (name, mut address, weight, backup, state) = match backend {
            Backend::Address(address) => (None, address, 1, false, FileState::Active),
            Backend::Table(table) => (table.name, table.address, table.weight, table.backup, table.state.0),
        };
        if tls && !names_a_port(&address.text) {
            address.value.set_port(TLS_PORT);
        }
        let shown = address.value.to_string();
        let name = name.map_or_else(|| shown.clone(), |name| name.value.0);
        if let Err(fault) = Name::read(&name) {
            let finding =
                Finding::error("name", place, "a backend with this address needs a `name`").label(fault.why);
            self.findings
                .add(finding.say(format!("write `{{ name = \"a1\", address = {} }}`", quoted(&shown))));
        }
        BackendPlan { name, address: address.value, weight, backup, state }
    }

    fn health(&mut self, health: Health, protocol: PoolProtocol, pool: &Place) -> Option<HealthPlan> {
        let place = &pool.at("health");
        let path = health.path.map(|path| ("path", Probe::Http { path: path.value.0 }));
        let tcp = health.tcp.then_some(("tcp", Probe::Tcp));
        let grpc = health.grpc.map(|service| ("grpc", Probe::Grpc { service: service.value.0 }));
        let mut asked = [path, tcp, grpc].into_iter().flatten();
        let Some((key, probe)) = asked.next() else {
            if self.findings.clear(place) {
                let finding = Finding::error("missing", place, "a probe needs something to ask")
                    .label("`path`, `tcp` or `grpc`");
                self.findings.add(finding.say("add `path = \"/healthz\"`, `tcp = true` or `grpc = \"\"`"));
            }
            return None;
        };
        if let Some((other, _)) = asked.next() {
            let finding = Finding::error("conflict", &place.at(other), "a probe asks for one thing")
                .on_key()
                .label("`path`, `tcp` or `grpc`");
            self.findings.add(finding.with(&place.at(key), "the other one"));
            return None;
        }
        if matches!(probe, Probe::Grpc { .. }) && protocol == PoolProtocol::Http1 {
            let finding = Finding::error(
                "conflict",
                &place.at("grpc"),
                "gRPC needs HTTP/2, and this pool speaks http/1.1",
            );
            self.findings.add(
                finding
                    .label("not without HTTP/2")
                    .say("add `protocol = \"h2c\"` to the pool, or `\"h2\"` with TLS"),
            );
        }
        if let Some(drain_on) = health.drain_on.as_ref()
            && let Some(code) = overlap(&drain_on.value, &health.expect.value)
        {
            let finding = Finding::error(
                "conflict",
                &place.at("drain_on"),
                format!("{code} is both a pass and a drain"),
            );
            let finding = finding.label("cannot overlap `expect`");
            self.findings.add(match self.findings.span(&place.at("expect")) == self.findings.span(place) {
                true => finding,
                false => finding.with(&place.at("expect"), "a pass here"),
            });
        }
        Some(HealthPlan {
            probe,
            port: health.port,
            host: health.host.value.0,
            interval: health.interval.value,
            jitter: health.jitter,
            timeout: health.timeout.value,
            rise: health.rise,
            fall: health.fall,
            init: health.init.0,
            expect: health.expect.value,
            drain_on: health.drain_on.map(|statuses| statuses.value),
        })
    }
}

/// A code that both sets hold.
fn overlap(one: &StatusSet, other: &StatusSet) -> Option<u16> {
    let meet = |a: &(u16, u16), b: &(u16, u16)| (a.0.max(b.0) <= a.1.min(b.1)).then_some(a.0.max(b.0));
    one.0.iter().find_map(|a| other.0.iter().find_map(|b| meet(a, b)))
}

fn timeouts(timeouts: &Timeouts) -> TimeoutsPlan {
    TimeoutsPlan {
        connect: timeouts.connect.value,
        response: timeouts.response.value,
        idle: timeouts.idle.value,
    }
}

fn connections(connections: &Connections) -> ConnectionsPlan {
    ConnectionsPlan {
        max_idle: connections.max_idle,
        idle: connections.idle.value,
        max_age: connections.max_age.value,
    }
}
