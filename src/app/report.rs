//! What the operator is shown: how everything stands, and what went wrong.
//! Reads, and changes nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use super::control::Control;
use super::fleet::{Key, Member};
use super::worker::Load;
use crate::admin::view::{
    BackendView, CertificateView, DrainView, Fault, HealthView, ListenerView, PoolView, ProblemView,
    RouteView, Status, Totals,
};
use crate::config::Problems;
use crate::drain::Phase;
use crate::plan::{
    Action, BackendAddress, CertificatePlan, HostPattern, LimitPlan, PathPattern, PoolPlan, RoutePlan,
};
use crate::pool::health::Health;
use crate::pool::status::Standing;
use crate::proxy::unix_now;
use crate::telemetry::{Gauge, metrics};

/// Of the year 9999: neither a certificate nor RFC 3339 goes further.
const LAST_SECOND: u64 = 253_402_300_799;

impl Control {
    pub fn status(&self) -> Status {
        let counts = self.counts();
        let totals = self.telemetry.totals();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            source: self.source.name(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            generation: self.generation,
            last_reload: self.last_reload.clone(),
            state: if self.ending.is_some() { "draining" } else { "active" }.to_owned(),
            listeners: self.listener_views(),
            certificates: self.certificate_views(),
            pools: self.plan.pools.iter().map(|pool| self.pool_view(pool)).collect(),
            totals: Totals {
                connections: self.connections(),
                requests_in_flight: counts.0,
                tunnels: counts.1,
                requests: totals.requests,
                server_errors: totals.server_errors,
            },
            predecessors: self.elders.iter().map(|elder| elder.pid).collect(),
            drift: self.drift(),
        }
    }

    /// Connections of clients, tunnels included.
    pub fn connections(&self) -> u64 {
        self.loads.iter().map(|load| u64::from(load.connections())).sum()
    }

    /// Requests and tunnels that are with a backend now.
    pub fn counts(&self) -> (u64, u64) {
        self.fleet.vitals().map(|vitals| vitals.counts()).fold((0, 0), |(requests, tunnels), counts| {
            (requests + counts.in_flight, tunnels + counts.tunnels)
        })
    }

    fn listener_views(&self) -> Vec<ListenerView> {
        let views = self.plan.listeners.iter().map(|listener| {
            let addresses = self.listeners.iter().filter(|bound| bound.name == listener.name);
            ListenerView {
                name: listener.name.clone(),
                addresses: addresses.map(|bound| bound.actual.to_string()).collect(),
                connections: self.telemetry.listener(&listener.name).open(),
            }
        });
        views.collect()
    }

    /// Every certificate with its listener's name.
    fn certificates(&self) -> impl Iterator<Item = (&str, &CertificatePlan)> {
        let listeners = self.plan.listeners.iter();
        let tls = listeners.filter_map(|listener| Some((listener.name.as_str(), listener.tls.as_ref()?)));
        tls.flat_map(|(name, tls)| tls.certificates.iter().map(move |certificate| (name, certificate)))
    }

    fn certificate_views(&self) -> Vec<CertificateView> {
        let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
        let view = |(listener, certificate): (&str, &CertificatePlan)| {
            let facts = &certificate.facts;
            let seconds = u64::try_from(facts.not_after).unwrap_or(0).min(LAST_SECOND);
            let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            CertificateView {
                listener: listener.to_owned(),
                file: certificate.file.display().to_string(),
                names: facts.names.clone(),
                issuer: facts.issuer.clone(),
                not_after: humantime::format_rfc3339_seconds(not_after).to_string(),
                days_left: (facts.not_after - now).div_euclid(24 * 60 * 60),
                fingerprint: facts.fingerprint.clone(),
            }
        };
        self.certificates().map(view).collect()
    }

    fn pool_view(&self, pool: &PoolPlan) -> PoolView {
        let listed = self.fleet.of(pool);
        let mut removed: Vec<_> =
            self.fleet.iter().filter(|(key, member)| key.0 == pool.name && member.removed).collect();
        removed.sort_by_key(|(key, _)| *key);
        let leaving = removed.into_iter().map(|(_, member)| member);
        PoolView {
            name: pool.name.clone(),
            policy: pool.policy_name().to_owned(),
            panic: self.panics(&pool.name),
            held: self.held(pool),
            backends: listed.chain(leaving).map(|member| self.backend_view(pool, member)).collect(),
        }
    }

    /// Requests that wait for a backend, or for a stream of one.
    fn held(&self, pool: &PoolPlan) -> u64 {
        let line = self.shared.get(&pool.name).map_or(0, |shared| shared.hold.waiting() as u64);
        line + self.fleet.of(pool).map(|member| member.vitals.counts().waiting).sum::<u64>()
    }

    pub fn backend_view(&self, pool: &PoolPlan, member: &Member) -> BackendView {
        let counts = member.vitals.counts();
        let totals = member.vitals.series.totals();
        let key = (pool.name.clone(), member.plan.name.clone());
        let resolved = match member.plan.address {
            BackendAddress::Ip(_) => Vec::new(),
            BackendAddress::Name { .. } => {
                member.vitals.addresses().iter().map(ToString::to_string).collect()
            }
        };
        BackendView {
            pool: pool.name.clone(),
            name: member.plan.name.clone(),
            address: member.plan.address.to_string(),
            resolved,
            weight: member.plan.weight,
            backup: member.plan.backup,
            state: member.phase().name().to_owned(),
            state_source: member.words.source().name().to_owned(),
            state_since: time(member.state_since),
            reason: member.reason.clone(),
            removed: member.removed,
            health: health(member),
            slow_start_step: member.step(pool, Instant::now()),
            in_flight: counts.in_flight,
            tunnels: counts.tunnels,
            idle_connections: counts.idle,
            sessions: member.sessions(unix_now()),
            requests: totals.requests,
            errors: totals.server_errors,
            drain: drain(&key, member),
        }
    }

    pub fn routes(&self) -> Vec<RouteView> {
        self.plan.routes.iter().map(route).collect()
    }

    /// How the backends are, in a few words.
    pub fn sentence(&self) -> String {
        let members = || self.plan.pools.iter().flat_map(|pool| self.fleet.of(pool));
        let up = members().filter(|member| member.is_up()).count();
        format!("{up} of {} up", counted(members().count() as u64, "backend"))
    }

    fn drift(&self) -> Vec<String> {
        let members =
            self.plan.pools.iter().flat_map(|pool| self.fleet.of(pool).map(move |member| (pool, member)));
        let drifting = members.filter(|(_, member)| member.words.drifts()).map(|(pool, member)| {
            let since = time(member.state_since);
            let word = member.words.operator.unwrap_or_default();
            let file = member.words.file;
            format!(
                "{}/{} is {word} by an operator since {since}; the file says {file}",
                pool.name, member.plan.name
            )
        });
        drifting.collect()
    }

    /// What is true now, for a scrape.
    pub fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        let data: usize = self.loads.iter().map(Load::tasks).sum();
        gauges.push(Gauge::new(&metrics::TASKS, ["data"], data as f64));
        let control = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        gauges.push(Gauge::new(&metrics::TASKS, ["control"], control as f64));
        for listener in &self.plan.listeners {
            let open = self.telemetry.listener(&listener.name).open();
            gauges.push(Gauge::new(&metrics::LISTENER_CONNECTIONS, [&listener.name], open as f64));
        }
        for pool in &self.plan.pools {
            let (mut open, mut all) = (0_u32, 0_u32);
            let mut websockets = 0;
            for member in self.fleet.of(pool) {
                let labels = [pool.name.as_str(), member.plan.name.as_str()];
                let counts = member.vitals.counts();
                websockets += counts.tunnels;
                all += 1;
                open += u32::from(member.vitals.standing() == Standing::Open);
                gauges.push(Gauge::new(&metrics::BACKEND_UP, labels, member.is_up().into()));
                for phase in [Phase::Active, Phase::Draining, Phase::Drained, Phase::Stopped] {
                    let labels = [labels[0], labels[1], phase.name()];
                    gauges.push(Gauge::new(
                        &metrics::BACKEND_STATE,
                        labels,
                        (member.phase() == phase).into(),
                    ));
                }
                let ejected = member.outlier.is_ejected();
                gauges.push(Gauge::new(&metrics::BACKEND_EJECTED, labels, ejected.into()));
                gauges.push(Gauge::new(&metrics::BACKEND_WEIGHT, labels, member.plan.weight.into()));
                gauges.push(Gauge::new(&metrics::BACKEND_IN_FLIGHT, labels, counts.in_flight as f64));
                if member.drain.is_some() {
                    gauges.push(Gauge::new(
                        &metrics::DRAIN_SESSIONS,
                        labels,
                        member.sessions(unix_now()) as f64,
                    ));
                }
            }
            let name = pool.name.as_str();
            gauges.push(Gauge::new(&metrics::POOL_PANIC, [name], self.panics(name).into()));
            gauges.push(Gauge::new(&metrics::POOL_HELD, [name], self.held(pool) as f64));
            gauges.push(Gauge::new(&metrics::POOL_BACKENDS, [name, "open"], open.into()));
            gauges.push(Gauge::new(&metrics::POOL_BACKENDS, [name, "shut"], (all - open).into()));
            gauges.push(Gauge::new(&metrics::WEBSOCKETS, [name], websockets as f64));
        }
        let mut seen = BTreeSet::new();
        for (listener, certificate) in self.certificates() {
            let (file, facts) = (certificate.file.display().to_string(), &certificate.facts);
            let name = facts.names.first().map_or("", String::as_str);
            if seen.insert((listener, file.clone())) {
                let labels = [listener, name, &file];
                gauges.push(Gauge::new(&metrics::CERTIFICATE_EXPIRY, labels, facts.not_after as f64));
            }
        }
        gauges.push(Gauge::new(&metrics::HEAD_BYTES, [], self.heads.held() as f64));
        gauges.push(Gauge::new(&metrics::CONFIG_DRIFT, [], self.drift().len() as f64));
        gauges
    }
}

fn health(member: &Member) -> HealthView {
    let status = match (&member.unresolved, member.streak.health()) {
        (Some(_), _) => "unresolved",
        (None, health) if health != Health::Down && member.outlier.is_ejected() => "ejected",
        (None, Health::Unknown) if member.is_up() => "up",
        (None, health) => health.name(),
    };
    HealthView {
        status: status.to_owned(),
        detail: match &member.unresolved {
            Some(why) => why.clone(),
            None if status == "ejected" => {
                let left = member.outlier.left(Instant::now()).unwrap_or_default();
                format!("{}, {} s left", member.ejected_for, left.as_secs_f64().ceil())
            }
            None if !member.is_probed() && member.streak.length() == 0 => "not probed".to_owned(),
            None => member.streak.detail().to_owned(),
        },
        since: time(member.health_since),
        streak: member.streak.length(),
        last_seconds: member.streak.took().map(|took| took.as_secs_f64()),
    }
}

/// How a backend's drain goes, or went.
pub fn drain(key: &Key, member: &Member) -> Option<DrainView> {
    let following = member.drain.as_ref()?;
    let (left, counts) = (member.left(unix_now()), member.vitals.counts());
    let until = following.over.unwrap_or_else(Instant::now);
    let deadline = following.drain.deadline;
    let state = if following.drain.is_over() { "drained" } else { "draining" };
    Some(DrainView {
        id: following.id,
        pool: key.0.clone(),
        backend: key.1.clone(),
        state: state.to_owned(),
        elapsed_seconds: until.saturating_duration_since(following.drain.began).as_secs_f64(),
        deadline_seconds: deadline
            .map(|at| at.saturating_duration_since(following.drain.began).as_secs_f64()),
        in_flight: left.in_flight,
        tunnels: left.tunnels,
        sessions: left.sessions,
        session_window_seconds: member.session_window().as_secs_f64(),
        keeps_sessions: following.drain.holds_tokens(),
        sessions_ended: following.sessions_then.saturating_sub(left.sessions.max(following.sessions_moved)),
        sessions_moved: following.sessions_moved,
        websockets_closed: counts.tunnels_told - following.counts_then.tunnels_told,
        tunnels_cut: counts.tunnels_cut - following.counts_then.tunnels_cut,
        // One that was cut before this drain began may be spared only now.
        requests_cut: counts.requests_cut.saturating_sub(following.counts_then.requests_cut),
    })
}

fn route(plan: &RoutePlan) -> RouteView {
    let hosts = plan.hosts.iter().map(|host| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*.{suffix}"),
    });
    let action = match &plan.action {
        Action::Forward(pool) => format!("pool {pool}"),
        Action::Split(shares) => {
            shares.iter().fold("split".to_owned(), |line, (pool, share)| format!("{line} {pool} {share}"))
        }
        Action::Respond { status, .. } => format!("respond {}", status.as_u16()),
        Action::Redirect { status, .. } => format!("redirect {}", status.as_u16()),
    };
    RouteView {
        name: plan.name.clone(),
        scheme: plan.scheme.map(|scheme| scheme.name().to_owned()),
        hosts: hosts.collect(),
        path: match &plan.path {
            PathPattern::Exact(path) => format!("={path}"),
            PathPattern::Prefix(path) => path.clone(),
        },
        methods: plan.methods.iter().map(ToString::to_string).collect(),
        action,
        limit: plan.limit.as_ref().map(LimitPlan::to_string),
    }
}

pub fn fault(status: u16, code: &str, detail: String) -> Fault {
    let title = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    Fault {
        title: title.unwrap_or("Error").to_owned(),
        status,
        code: code.to_owned(),
        detail,
        hint: None,
        errors: Vec::new(),
        text: None,
    }
}

/// A configuration that is not applied.
pub fn invalid(found: &Problems, detail: &str) -> Fault {
    Fault {
        errors: problems(found),
        text: Some(found.render(false)),
        ..fault(422, "config_invalid", detail.to_owned())
    }
}

pub fn problems(found: &Problems) -> Vec<ProblemView> {
    let view = |problem: &crate::config::Problem| ProblemView {
        severity: problem.severity.name().to_owned(),
        code: problem.code.to_owned(),
        message: problem.message.clone(),
        file: found.name().to_owned(),
        line: problem.line,
        column: problem.column,
        source_line: problem.source_line.clone(),
        label: problem.label.clone(),
        help: problem.help.clone(),
    };
    found.iter().map(view).collect()
}

/// RFC 3339, to the millisecond.
pub fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// A duration that came in as seconds; `None` for what is none.
pub fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// `1 request`, `2 requests`.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
