//! Routes: what they match, where they lead, what they change.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::Compiler;
use crate::config::findings::Finding;
use crate::config::place::{Place, quoted, quoted_key, shown};
use crate::config::schema::{self, Edits, Limit, Respond, Retry, RetryOn};
use crate::config::spelling::{RequestRate, Spelled};
use crate::config::suggest;
use crate::plan::{
    Action, HeaderEdits, HostPattern, LimitPlan, PathPattern, PoolPlan, RetryPlan, RoutePlan, Scheme,
};

/// Headers that belong to one connection or to the framing of a message.
const OWN: [HeaderName; 8] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::TE,
    http::header::TRAILER,
    http::header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// As many as the file may ask for itself.
const MAX_BURST: u32 = 1_000_000;

pub(crate) fn leads_to(route: &RoutePlan, pool: &str) -> bool {
    match &route.action {
        Action::Forward(name) => name == pool,
        Action::Split(shares) => shares.iter().any(|(name, _)| name == pool),
        Action::Respond { .. } | Action::Redirect { .. } => false,
    }
}

impl Compiler<'_, '_> {
    pub(crate) fn routes(&mut self, written: Vec<schema::Route>, pools: &[PoolPlan]) -> Vec<RoutePlan> {
        let list = Place::default().at("route");
        if written.is_empty() && self.findings.sound(&list) {
            return self.default_route(pools);
        }
        let mut routes = Vec::new();
        for (index, route) in written.into_iter().enumerate() {
            let place = self.findings.element(&list, index);
            let named = route.name.is_some();
            let route = self.route(route, &place, pools);
            routes.push((place, named, route));
        }
        self.names_are_unique(&mut routes);
        self.routes_do_not_tie(&routes);
        routes
            .into_iter()
            .filter_map(|(_, _, route)| route.action.is_some().then(|| route.finish()))
            .collect()
    }

    /// Without routes everything goes to the one pool.
    fn default_route(&mut self, pools: &[PoolPlan]) -> Vec<RoutePlan> {
        match pools {
            [] => self.no_pool(),
            [only] => {
                let route = schema::Route { pool: Some(only.name.clone()), ..schema::Route::default() };
                let mut half = self.route(route, &Place::default().at("route"), pools);
                half.name = "default".to_owned();
                return vec![half.finish()];
            }
            [first, ..] => {
                let blocks: Vec<String> = pools
                    .iter()
                    .map(|pool| {
                        format!("[[route]]\npath = {}\npool = {}", own_path(pool, first), quoted(&pool.name))
                    })
                    .collect();
                let place = Place::default().at("pool").at(&pools[1].name);
                let finding =
                    Finding::error("missing", &place, "several pools need routes that choose among them");
                let first = Place::default().at("pool").at(&first.name);
                self.findings.add(
                    finding
                        .label("one more pool, and no [[route]]")
                        .with(&first, "one pool alone would get everything")
                        .say(format!("add, with the paths or hosts you mean:\n\n{}", blocks.join("\n\n"))),
                );
            }
        }
        Vec::new()
    }

    fn no_pool(&mut self) {
        let top = Place::default();
        if !self.findings.clear(&top) || !self.findings.sound(&top.at("pool")) {
            return;
        }
        let finding = Finding::error("missing", &top, "no pool, so there is nowhere to send requests");
        self.findings
            .add(finding.say("add:\n\n[pool.app]\nbackends = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]"));
    }

    fn route(&mut self, route: schema::Route, place: &Place, pools: &[PoolPlan]) -> Half {
        let action = self.action(&route, place, pools);
        let scheme = route.scheme.map(|scheme| scheme.0);
        let hosts: Vec<HostPattern> = route.hosts.into_iter().map(|host| host.value).collect();
        let methods: Vec<Method> = route.methods.into_iter().map(|method| method.value).collect();
        self.listed_once(&hosts, &place.at("hosts"), "host");
        self.listed_once(&methods, &place.at("methods"), "method");
        let name = match route.name {
            Some(name) => name.value.0,
            None => matcher_name(scheme, &hosts, &route.path.text, &methods),
        };
        Half {
            action,
            name,
            scheme,
            hosts,
            path: route.path.value,
            methods,
            limit: route.limit.map(limit),
            timeout: route.timeout.value,
            retry: retry(&route.retry),
            request_headers: self.edits(&route.request_headers, &place.at("request_headers"), true),
            response_headers: self.edits(&route.response_headers, &place.at("response_headers"), false),
            tunnel_idle_timeout: route.websocket.idle_timeout.value,
        }
    }

    /// The one thing that a route does.
    fn action(&mut self, route: &schema::Route, place: &Place, pools: &[PoolPlan]) -> Option<Action> {
        let given = [
            ("pool", route.pool.is_some()),
            ("split", route.split.is_some()),
            ("respond", route.respond.is_some()),
            ("redirect", route.redirect.is_some()),
        ];
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
        if let [first, second, ..] = given.as_slice() {
            let finding = Finding::error("conflict", &place.at(*second), "a route does one thing").on_key();
            let label = format!("`{first}` or `{second}`");
            self.findings.add(finding.label(label).with(&place.at(*first), "the other one"));
            return None;
        }
        if given.is_empty() && self.findings.clear(place) {
            let finding = Finding::error("missing", place, "a route leads somewhere");
            let finding = finding.label("needs one of `pool`, `split`, `respond`, `redirect`");
            self.findings.add(match pools {
                [only] => finding.say(format!("add `pool = {}`", quoted(&only.name))),
                _ => finding,
            });
        }
        if let Some(pool) = &route.pool {
            let known = self.pool_exists(pool, &place.at("pool"), pools, None);
            return known.then(|| Action::Forward(pool.clone()));
        }
        if let Some(split) = &route.split {
            return self.split(split, &place.at("split"), pools);
        }
        if let Some(redirect) = &route.redirect {
            let status = StatusCode::from_u16(redirect.status).expect("checked to be a redirect's status");
            return Some(Action::Redirect { to: redirect.to.value.0.clone(), status });
        }
        route.respond.as_ref().map(|respond| self.respond(respond, &place.at("respond")))
    }

    fn split(&mut self, split: &BTreeMap<String, u32>, place: &Place, pools: &[PoolPlan]) -> Option<Action> {
        if split.is_empty() && self.findings.clear(place) {
            let finding = Finding::error("missing", place, "a split names pools and their shares");
            self.findings.add(finding.label("empty").say("for example `split = { app = 95, app-next = 5 }`"));
        }
        let mut known = !split.is_empty();
        for pool in split.keys() {
            known &= self.pool_exists(pool, &place.at(pool), pools, Some(split));
        }
        known.then(|| Action::Split(split.iter().map(|(pool, share)| (pool.clone(), *share)).collect()))
    }

    /// `split` is given where the name is one of its keys.
    fn pool_exists(
        &mut self,
        pool: &str,
        place: &Place,
        pools: &[PoolPlan],
        split: Option<&BTreeMap<String, u32>>,
    ) -> bool {
        let top = Place::default().at("pool");
        // A pool that is there but broken has been told about already.
        if pools.iter().any(|known| known.name == pool) || !self.findings.sound(&top.at(pool)) {
            return true;
        }
        if pools.is_empty() && !self.findings.sound(&Place::default().at("pool")) {
            return false;
        }
        let finding = Finding::error("reference", place, format!("there is no pool `{}`", shown(pool)));
        let finding = if split.is_some() { finding.on_key() } else { finding };
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        let finding = finding.label(match names.as_slice() {
            [] => "the file has no pools".to_owned(),
            names if names.len() <= 8 => format!("the pools are {}", names.join(", ")),
            names => format!("none of the {} pools", names.len()),
        });
        let meant = suggest::name(pool, names.iter().copied());
        self.findings.add(match (meant, split) {
            (Some(meant), Some(split)) if !split.contains_key(meant) => finding.write(quoted_key(meant)),
            (Some(meant), None) => finding.write(quoted(meant)),
            _ => finding.say(format!("add a table `[{}]`", top.at(pool))),
        });
        false
    }

    fn respond(&mut self, respond: &Respond, place: &Place) -> Action {
        let status = StatusCode::from_u16(respond.status).expect("checked to be a status");
        if matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
            let finding =
                Finding::error("conflict", &place.at("body"), format!("an answer {status} has no body"));
            self.findings.add(finding.label("leave it out").with(&place.at("status"), "because of this"));
        }
        let headers = self.header_values(&respond.headers, &place.at("headers"), false);
        Action::Respond { status, body: respond.body.clone(), headers }
    }

    fn edits(&mut self, edits: &Edits, place: &Place, request: bool) -> HeaderEdits {
        let set = self.header_values(&edits.set, &place.at("set"), request);
        let list = place.at("remove");
        let mut remove = Vec::new();
        for (index, name) in edits.remove.iter().enumerate() {
            let at = self.findings.element(&list, index);
            if let Some(why) = untouchable(&name.value, request) {
                self.findings.add(refused(&at, &name.text, why));
            } else if set.iter().any(|(set, _)| *set == name.value) {
                let finding = Finding::error("conflict", &at, format!("`{}` is set and removed", name.text));
                self.findings.add(finding.label("what is set replaces what was there"));
            } else {
                remove.push(name.value.clone());
            }
        }
        HeaderEdits { set, remove }
    }

    fn header_values(
        &mut self,
        headers: &BTreeMap<String, Spelled<HeaderValue>>,
        place: &Place,
        request: bool,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut values: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (text, value) in headers {
            // A name that is none has been told about by `check`.
            let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else { continue };
            if let Some(why) = untouchable(&name, request) {
                self.findings.add(refused(&place.at(text), text, why).on_key());
            } else if values.iter().any(|(known, _)| *known == name) {
                let finding =
                    Finding::error("duplicate", &place.at(text), format!("`{text}` is set twice")).on_key();
                self.findings.add(finding.label("the case of a header's name says nothing"));
            } else {
                values.push((name, value.value.clone()));
            }
        }
        values
    }

    fn listed_once<T: PartialEq>(&mut self, list: &[T], place: &Place, what: &str) {
        for (index, item) in list.iter().enumerate() {
            if list[..index].contains(item) {
                let at = self.findings.element(place, index);
                let finding = Finding::error("duplicate", &at, format!("this {what} is listed twice"));
                self.findings.add(finding.label("again here"));
            }
        }
    }
}

/// A route whose action may have been refused.
pub(crate) struct Half {
    pub(crate) action: Option<Action>,
    pub(crate) name: String,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) path: PathPattern,
    pub(crate) methods: Vec<Method>,
    limit: Option<LimitPlan>,
    timeout: Duration,
    retry: RetryPlan,
    request_headers: HeaderEdits,
    response_headers: HeaderEdits,
    tunnel_idle_timeout: Duration,
}

impl Half {
    fn finish(self) -> RoutePlan {
        RoutePlan {
            name: self.name,
            scheme: self.scheme,
            hosts: self.hosts,
            path: self.path,
            methods: self.methods,
            action: self.action.expect("only routes with an action are finished"),
            limit: self.limit,
            timeout: (!self.timeout.is_zero()).then_some(self.timeout),
            retry: self.retry,
            request_headers: self.request_headers,
            response_headers: self.response_headers,
            tunnel_idle_timeout: self.tunnel_idle_timeout,
        }
    }
}

/// Without a `burst`, what a whole second, minute or hour may bring may come at once.
fn limit(limit: Limit) -> LimitPlan {
    let RequestRate { requests, per } = limit.rate.value;
    let burst = limit.burst.unwrap_or(requests.min(MAX_BURST));
    LimitPlan { requests, per, burst, key: limit.key.value.0 }
}

fn retry(retry: &Retry) -> RetryPlan {
    let on = |what: RetryOn| retry.on.iter().any(|on| on.0 == what);
    RetryPlan {
        attempts: retry.attempts,
        connect: on(RetryOn::Connect),
        reset_before_response: on(RetryOn::ResetBeforeResponse),
        response_timeout: on(RetryOn::ResponseTimeout),
        statuses: [(RetryOn::BadGateway, 502), (RetryOn::Unavailable, 503), (RetryOn::GatewayTimeout, 504)]
            .into_iter()
            .filter(|(what, _)| on(*what))
            .map(|(_, status)| status)
            .collect(),
        budget: retry.budget,
    }
}

/// `shop.example.com/cart`, with scheme and methods before it and a count of further hosts.
fn matcher_name(scheme: Option<Scheme>, hosts: &[HostPattern], path: &str, methods: &[Method]) -> String {
    let host = match hosts {
        [] => String::new(),
        [HostPattern::Exact(host), ..] => host.clone(),
        [HostPattern::Suffix(host), ..] => format!("*.{host}"),
    };
    let more = if hosts.len() > 1 { format!("+{}", hosts.len() - 1) } else { String::new() };
    let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let methods = if methods.is_empty() { String::new() } else { format!("{} ", methods.join(",")) };
    format!("{methods}{}{host}{more}{path}", scheme_prefix(scheme, &host))
}

/// What stands before a host, or before a path where there is none.
pub(crate) fn scheme_prefix(scheme: Option<Scheme>, host: &str) -> String {
    let slashes = if host.is_empty() { "" } else { "//" };
    scheme.map_or_else(String::new, |scheme| format!("{}:{slashes}", scheme.name()))
}

/// Why a header is not the file's to change.
fn untouchable(name: &HeaderName, request: bool) -> Option<&'static str> {
    if OWN.contains(name) {
        return Some("it belongs to one connection, and each side has its own");
    }
    (request && name == http::header::HOST).then_some("the pool's `host` says what backends see")
}

fn refused(place: &Place, text: &str, why: &str) -> Finding {
    Finding::error("header", place, format!("`{text}` cannot be changed by a route")).label(why)
}

/// A path for the help: `/` for the first pool, its name for the others.
fn own_path(pool: &PoolPlan, first: &PoolPlan) -> String {
    if pool.name == first.name { "\"/\"".to_owned() } else { quoted(&format!("/{}", pool.name)) }
}
