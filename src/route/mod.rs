//! Where a request goes: the most specific scheme, host, path and method win, whatever the order
//! of the file.
//!
//! Start at [`Router`]. `hosts` matches within one scheme, `paths` within one host, `rewrite` edits
//! headers and makes the answers that need no backend, `split` deals one route out among several
//! targets. The router does not know what it routes to, and nothing here knows pools.

pub mod budget;
mod hosts;
mod paths;
pub mod rewrite;
pub mod split;

use ::http::Method;

use crate::plan::{HostPattern, PathPattern, Scheme};
use hosts::Hosts;

/// The longest name that DNS allows, with room for an address in brackets.
const MAX_HOST: usize = 255;

/// Finds the target of a request without allocating.
///
/// A route that names the client's scheme > one that names none; then an exact host > the longest
/// `*.` suffix > any host; within a host an exact path > the longest prefix; on one path a route that
/// names the method > one that names none. Where a more specific place has no route that fits path
/// and method, the next less specific one is asked. The scheme comes first of all, so that one route
/// can take everything that comes in the clear, whatever hosts and paths the others name. The path
/// is compared as it was sent (`%2F`, `..` and case are letters like any other), because it is sent
/// on as it was matched.
#[derive(Debug)]
pub struct Router<T> {
    targets: Vec<T>,
    http: Hosts,
    https: Hosts,
    either: Hosts,
}

/// What leads to a target. No scheme means either, no hosts any host, no methods every method.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    pub scheme: Option<Scheme>,
    pub hosts: Vec<HostPattern>,
    pub path: PathPattern,
    pub methods: Vec<Method>,
    pub target: T,
}

impl<T> Router<T> {
    /// Of two entries that match the very same requests the first stands; the configuration
    /// refuses such ties.
    pub fn build(entries: impl IntoIterator<Item = Entry<T>>) -> Self {
        let [http, https, either] = Default::default();
        let mut router = Self { targets: Vec::new(), http, https, either };
        for Entry { scheme, hosts, path, methods, target } in entries {
            let index = router.targets.len();
            router.targets.push(target);
            let table = match scheme {
                None => &mut router.either,
                Some(Scheme::Http) => &mut router.http,
                Some(Scheme::Https) => &mut router.https,
            };
            table.insert(hosts, &path, &methods, index);
        }
        router
    }

    /// `host` without its port, in any case, with or without the final dot; empty where the client
    /// named none.
    pub fn find(&self, scheme: Scheme, host: &str, path: &str, method: &Method) -> Option<&T> {
        let mut buffer = [0; MAX_HOST];
        let host = lower_case(host, &mut buffer);
        let named = match scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        let index = named.find(host, path, method).or_else(|| self.either.find(host, path, method))?;
        Some(&self.targets[index])
    }
}

/// The form that patterns are kept in. A name that is too long to be one matches no pattern.
fn lower_case<'a>(host: &'a str, buffer: &'a mut [u8; MAX_HOST]) -> Option<&'a str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return (host.len() <= MAX_HOST).then_some(host);
    }
    let buffer = buffer.get_mut(..host.len())?;
    buffer.copy_from_slice(host.as_bytes());
    buffer.make_ascii_lowercase();
    std::str::from_utf8(buffer).ok()
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    fn router(table: &[(&[&str], &str, &[Method], &'static str)]) -> Router<&'static str> {
        Router::build(table.iter().map(|(hosts, path, methods, target)| Entry {
            scheme: None,
            hosts: hosts.iter().map(|host| host_pattern(host)).collect(),
            path: path_pattern(path),
            methods: methods.to_vec(),
            target: *target,
        }))
    }

    fn host_pattern(text: &str) -> HostPattern {
        match text.strip_prefix("*.") {
            Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
            None => HostPattern::Exact(text.to_owned()),
        }
    }

    fn path_pattern(text: &str) -> PathPattern {
        match text.strip_prefix('=') {
            Some(exact) => PathPattern::Exact(exact.to_owned()),
            None => PathPattern::Prefix(text.to_owned()),
        }
    }

    fn get<'a>(router: &'a Router<&'static str>, host: &str, path: &str) -> Option<&'a str> {
        router.find(Scheme::Http, host, path, &Method::GET).copied()
    }

    #[test]
    fn the_most_specific_host_wins() {
        let router = router(&[
            (&[], "/", &[], "any"),
            (&["*.example.com"], "/", &[], "suffix"),
            (&["*.shop.example.com"], "/", &[], "longer suffix"),
            (&["a.shop.example.com", "[::1]"], "/", &[], "exact"),
        ]);
        for (host, expected) in [
            ("a.shop.example.com", "exact"),
            ("A.Shop.EXAMPLE.com", "exact"),
            ("a.shop.example.com.", "exact"),
            ("[::1]", "exact"),
            ("b.shop.example.com", "longer suffix"),
            ("x.b.shop.example.com", "longer suffix"),
            ("shop.example.com", "suffix"),
            ("example.com", "any"),
            (".example.com", "any"),
            ("notexample.com", "any"),
            ("", "any"),
        ] {
            assert_eq!(get(&router, host, "/"), Some(expected), "{host}");
        }
        assert_eq!(get(&router, &format!("{}.example.com", "A".repeat(300)), "/"), Some("any"));
    }

    #[test]
    fn a_host_without_a_fitting_path_falls_to_the_next_less_specific_one() {
        let router = router(&[
            (&["a.example.com"], "/only", &[], "exact"),
            (&["*.example.com"], "/api", &[Method::POST], "suffix"),
            (&[], "/", &[], "any"),
        ]);
        assert_eq!(get(&router, "a.example.com", "/only/x"), Some("exact"));
        assert_eq!(router.find(Scheme::Http, "a.example.com", "/api", &Method::POST), Some(&"suffix"));
        assert_eq!(get(&router, "a.example.com", "/api"), Some("any"));
        assert_eq!(get(&router, "a.example.com", "/else"), Some("any"));
    }

    #[test]
    fn a_request_that_fits_no_route_finds_nothing() {
        let router = router(&[(&["a.example.com"], "/a", &[Method::GET], "a")]);
        assert_eq!(get(&router, "b.example.com", "/a"), None);
        assert_eq!(get(&router, "a.example.com", "/"), None);
        assert_eq!(router.find(Scheme::Http, "a.example.com", "/a", &Method::PUT), None);
    }

    #[test]
    fn a_route_that_names_the_scheme_comes_before_every_other() {
        let entry = |scheme, host: &str, path: &str, target| Entry {
            scheme,
            hosts: if host.is_empty() { vec![] } else { vec![host_pattern(host)] },
            path: path_pattern(path),
            methods: vec![],
            target,
        };
        let router = Router::build([
            entry(None, "shop.example", "=/cart", "cart"),
            entry(None, "", "/", "app"),
            entry(Some(Scheme::Http), "", "/", "to TLS"),
            entry(Some(Scheme::Http), "", "/.well-known", "challenge"),
            entry(Some(Scheme::Https), "shop.example", "/admin", "admin"),
        ]);
        for (path, http, https) in [
            ("/cart", "to TLS", "cart"),
            ("/", "to TLS", "app"),
            ("/.well-known/x", "challenge", "app"),
            ("/admin", "to TLS", "admin"),
        ] {
            let find = |scheme| router.find(scheme, "shop.example", path, &Method::GET).copied();
            assert_eq!((find(Scheme::Http), find(Scheme::Https)), (Some(http), Some(https)), "{path}");
        }
    }

    /// Every route against every request, by the rules as they are written down.
    fn naive(
        entries: &[Entry<usize>],
        scheme: Scheme,
        host: &str,
        path: &str,
        method: &Method,
    ) -> Option<usize> {
        let mut best = None;
        for Entry { scheme: asked, hosts, path: pattern, methods, target } in entries {
            let host_rank = hosts.iter().filter_map(|pattern| match pattern {
                HostPattern::Exact(name) => (name == host).then_some((2, 0)),
                HostPattern::Suffix(name) => {
                    let label = host.strip_suffix(name.as_str())?.strip_suffix('.')?;
                    (!label.is_empty()).then_some((1, name.len()))
                }
            });
            let host_rank = if hosts.is_empty() { Some((0, 0)) } else { host_rank.max() };
            let path_rank = match pattern {
                PathPattern::Exact(exact) => (exact == path).then_some((1, 0)),
                PathPattern::Prefix(prefix) => {
                    let rest = path.strip_prefix(prefix.as_str());
                    let border =
                        |rest: &str| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/');
                    rest.is_some_and(border).then_some((0, prefix.len()))
                }
            };
            let fits_scheme = asked.is_none_or(|asked| asked == scheme);
            let fits = fits_scheme && (methods.is_empty() || methods.contains(method));
            if let (Some(host_rank), Some(path_rank), true) = (host_rank, path_rank, fits) {
                let rank = (asked.is_some(), host_rank, path_rank, !methods.is_empty());
                if best.is_none_or(|(standing, _)| rank > standing) {
                    best = Some((rank, *target));
                }
            }
        }
        best.map(|(_, target)| target)
    }

    fn path() -> impl Strategy<Value = String> {
        let segments = prop::collection::vec(select(vec!["a", "b", "ab", "", "..", "%2F", "A"]), 1..4);
        segments.prop_map(|segments| format!("/{}", segments.join("/")))
    }

    fn host() -> impl Strategy<Value = String> {
        let labels = prop::collection::vec(select(vec!["a", "b", "com"]), 1..4);
        labels.prop_map(|labels| labels.join("."))
    }

    fn methods() -> impl Strategy<Value = Vec<Method>> {
        subsequence(vec![Method::GET, Method::POST], 0..=2)
    }

    fn scheme() -> impl Strategy<Value = Scheme> {
        select(vec![Scheme::Http, Scheme::Https])
    }

    fn route() -> impl Strategy<Value = Entry<()>> {
        let host = prop_oneof![host().prop_map(HostPattern::Exact), host().prop_map(HostPattern::Suffix)];
        let path = prop_oneof![path().prop_map(PathPattern::Exact), path().prop_map(PathPattern::Prefix)];
        let hosts = prop::collection::vec(host, 0..3);
        (prop::option::of(scheme()), hosts, path, methods())
            .prop_map(|(scheme, hosts, path, methods)| Entry { scheme, hosts, path, methods, target: () })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn it_agrees_with_a_matcher_that_tries_every_route(
            routes in prop::collection::vec(route(), 0..12),
            requests in prop::collection::vec(
                (scheme(), host(), path(), select(vec![Method::GET, Method::POST, Method::PUT])),
                1..24,
            ),
        ) {
            let numbered = |(target, Entry { scheme, hosts, path, methods, .. })| {
                Entry { scheme, hosts, path, methods, target }
            };
            let entries: Vec<_> = routes.into_iter().enumerate().map(numbered).collect();
            let router = Router::build(entries.clone());
            for (scheme, host, path, method) in requests {
                let expected = naive(&entries, scheme, &host, &path, &method);
                let found = router.find(scheme, &host, &path, &method).copied();
                prop_assert_eq!(found, expected, "{:?} {} {}", scheme, host, path);
            }
        }
    }
}
