//! Routes against each other: names, ties, and routes that nothing can reach.

use http::Method;

use super::Compiler;
use super::route::{Half, scheme_prefix};
use crate::config::findings::Finding;
use crate::config::place::Place;
use crate::plan::HostPattern;

impl Compiler<'_, '_> {
    /// A name that was written is kept; one that was made gives way.
    pub(crate) fn names_are_unique(&mut self, routes: &mut [(Place, bool, Half)]) {
        for index in 0..routes.len() {
            let (before, rest) = routes.split_at_mut(index);
            let (place, named, route) = &mut rest[0];
            if !*named {
                continue;
            }
            if let Some((first, _, _)) =
                before.iter().find(|(_, named, other)| *named && other.name == route.name)
            {
                let message = format!("two routes are called `{}`", route.name);
                let finding = Finding::error("duplicate", &place.at("name"), message);
                self.findings.add(finding.label("again here").with(&first.at("name"), "first here"));
            }
        }
        for index in 0..routes.len() {
            if routes[index].1 {
                continue;
            }
            let made = routes[index].2.name.clone();
            let taken = |name: &str| {
                routes.iter().enumerate().any(|(other, route)| other != index && route.2.name == name)
            };
            let free = (2..).map(|n| format!("{made}#{n}")).find(|name| !taken(name));
            if taken(&made) {
                routes[index].2.name = free.expect("numbers do not run out");
            }
        }
    }

    /// The most specific route wins, so two that are equally specific leave nothing to decide by.
    pub(crate) fn routes_do_not_tie(&mut self, routes: &[(Place, bool, Half)]) {
        for (index, (place, _, route)) in routes.iter().enumerate() {
            if !self.matcher_is_known(place) {
                continue;
            }
            let tied = |(at, _, other): &&(Place, bool, Half)| {
                self.matcher_is_known(at) && tie(other, route).is_some()
            };
            let Some((first, _, other)) = routes[..index].iter().find(tied) else { continue };
            let what = tie(other, route).expect("they tie");
            let message = format!("two routes match {what} equally well");
            let hidden = covers(other, route);
            let finding = Finding::error("conflict", place, message)
                .label(if hidden { "this one can never be reached" } else { "again here" })
                .with(first, "first here");
            self.findings.add(finding.say("give one of them another host, path or methods, or join them"));
        }
    }

    /// Whether what a route matches was read without errors.
    fn matcher_is_known(&self, place: &Place) -> bool {
        let keys_known = self.findings.keys_known(place);
        keys_known
            && ["scheme", "hosts", "path", "methods"]
                .into_iter()
                .all(|key| self.findings.sound(&place.at(key)))
    }
}

/// What two routes match with equal right, in words.
fn tie(one: &Half, other: &Half) -> Option<String> {
    let method = shared_method(&one.methods, &other.methods)?;
    let host = shared_host(&one.hosts, &other.hosts)?;
    (one.scheme == other.scheme && one.path == other.path).then(|| {
        let path = match &one.path {
            crate::plan::PathPattern::Exact(path) => format!("={path}"),
            crate::plan::PathPattern::Prefix(path) => path.clone(),
        };
        format!("`{method}{}{host}{path}`", scheme_prefix(one.scheme, &host))
    })
}

/// Whether everything that `later` matches is matched equally well by `first`.
fn covers(first: &Half, later: &Half) -> bool {
    let all = |first: &[Method], later: &[Method]| {
        first.is_empty() || (!later.is_empty() && later.iter().all(|method| first.contains(method)))
    };
    let hosts = match (first.hosts.as_slice(), later.hosts.as_slice()) {
        ([], []) => true,
        (first, later) => !later.is_empty() && later.iter().all(|host| first.contains(host)),
    };
    hosts && all(&first.methods, &later.methods)
}

fn shared_method(one: &[Method], other: &[Method]) -> Option<String> {
    match (one, other) {
        ([], []) => Some(String::new()),
        ([], [method, ..]) | ([method, ..], []) => Some(format!("{method} ")),
        _ => one.iter().find(|method| other.contains(method)).map(|method| format!("{method} ")),
    }
}

fn shared_host(one: &[HostPattern], other: &[HostPattern]) -> Option<String> {
    if one.is_empty() && other.is_empty() {
        return Some(String::new());
    }
    one.iter().find(|host| other.contains(host)).map(|host| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(host) => format!("*.{host}"),
    })
}
