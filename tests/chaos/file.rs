//! Pintle's file in this run, and the edits of it.

use std::net::SocketAddr;
use std::sync::Arc;

/// What an edit may change.
#[derive(Clone)]
pub struct File {
    backends: Vec<(Arc<str>, SocketAddr)>,
    solo: SocketAddr,
    policy: &'static str,
    weights: [u32; 4],
    connect: &'static str,
    response: &'static str,
    fallback: &'static str,
    retry_slow: bool,
    /// The pool without sessions does without this one.
    without: Option<usize>,
}

const POLICIES: [&str; 6] =
    ["round_robin", "least_conn", "least_time", "random_two", "ip_hash", "consistent_hash"];

impl File {
    pub fn new(backends: Vec<(Arc<str>, SocketAddr)>, solo: SocketAddr) -> Self {
        Self {
            backends,
            solo,
            policy: "round_robin",
            weights: [1; 4],
            connect: "2s",
            response: "60s",
            fallback: "least_conn",
            retry_slow: false,
            without: None,
        }
    }

    /// Another policy, other weights and timeouts, and sometimes one backend less, at random.
    pub fn edited(&self, random: &mut fastrand::Rng) -> Self {
        let mut pick = |from: &[&'static str]| from[random.usize(..from.len())];
        let (policy, fallback) = (pick(&POLICIES), pick(&POLICIES[..4]));
        let (connect, response) = (pick(&["2s", "3s", "4s"]), pick(&["40s", "50s", "60s"]));
        let weights = std::array::from_fn(|_| random.u32(1..=5));
        let without = random.bool().then(|| random.usize(..weights.len()));
        Self { policy, weights, connect, response, fallback, without, ..self.clone() }
    }

    /// With so short a patience that a backend which hangs is not waited for.
    pub fn impatient(&self) -> Self {
        Self { response: "1s", retry_slow: true, ..self.clone() }
    }

    pub fn text(&self) -> String {
        let backend = |((name, address), weight): (&(Arc<str>, SocketAddr), &u32)| {
            format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}")
        };
        let backends: Vec<_> = self.backends.iter().zip(&self.weights).map(backend).collect();
        let kept = backends.iter().enumerate().filter(|(place, _)| self.without != Some(*place));
        let kept: Vec<_> = kept.map(|(_, backend)| backend.as_str()).collect();
        let (backends, kept) = (backends.join(", "), kept.join(", "));
        let (policy, fallback) = (self.policy, self.fallback);
        let slow = if self.retry_slow { ", \"response_timeout\"" } else { "" };
        // Whoever may be asked again shall be: the budget is for fleets that fail as a whole.
        let retry =
            format!("retry = {{ on = [\"connect\", \"reset_before_response\"{slow}], budget = 1.0 }}");
        let rest = |pool: &str| {
            format!(
                "[pool.{pool}.timeouts]\nconnect = \"{}\"\nresponse = \"{}\"\n[pool.{pool}.health]\n\
                 path = \"/healthz\"\ninterval = \"250ms\"\ntimeout = \"1s\"\nrise = 2\nfall = 2\n",
                self.connect, self.response
            )
        };
        let pools = [
            format!("[pool.app]\npolicy = \"{policy}\"\nbackends = [{kept}]\n{}", rest("app")),
            format!(
                "[pool.pinned]\npolicy = \"sticky_cookie\"\nbackends = [{backends}]\n\
                 sticky.fallback = \"{fallback}\"\n{}",
                rest("pinned")
            ),
            format!(
                "[pool.solo]\nbackends = [{{ name = \"solo\", address = \"{}\" }}]\nhold.timeout = \"10s\"\n{}",
                self.solo,
                rest("solo")
            ),
        ];
        let route = |(path, pool): (&str, &str)| {
            format!("[[route]]\npath = \"{path}\"\npool = \"{pool}\"\n{retry}\n")
        };
        let routes = [("/", "app"), ("/pinned", "pinned"), ("/solo", "solo")].map(route);
        format!("{}{}", routes.concat(), pools.concat())
    }
}
