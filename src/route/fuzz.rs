//! Hosts and paths of every kind against a table of routes.

use ::http::Method;
use proptest::prelude::*;

use super::*;
use crate::fuzz::{damaged, tries};

const HOSTS: [&str; 6] =
    ["shop.example.com", "SHOP.example.com.", "a.b.shop.example.com", "[2001:db8::1]", "127.0.0.1", ""];
const PATHS: [&str; 8] =
    ["/", "/api/v1/orders", "/api/", "/api/v1/../admin", "/login", "//login", "/%61pi/%2e%2e/", "*"];
const WORDS: &[&[u8]] =
    &[b".", b"..", b"/", b"//", b"%2F", b"%2e", b"*", b"example.com", b"api", b"\xff", b"\0"];

fn router() -> Router<usize> {
    let table: [(&[HostPattern], PathPattern, &[Method]); 8] = [
        (&[], PathPattern::Prefix("/".into()), &[]),
        (&[HostPattern::Exact("shop.example.com".into())], PathPattern::Prefix("/api".into()), &[]),
        (&[HostPattern::Exact("shop.example.com".into())], PathPattern::Prefix("/api/v1/".into()), &[]),
        (&[HostPattern::Exact("shop.example.com".into())], PathPattern::Exact("/login".into()), &[]),
        (&[HostPattern::Suffix("example.com".into())], PathPattern::Prefix("/api".into()), &[Method::POST]),
        (&[HostPattern::Suffix("shop.example.com".into())], PathPattern::Prefix("//".into()), &[]),
        (&[HostPattern::Exact("[2001:db8::1]".into())], PathPattern::Exact("/".into()), &[]),
        (&[HostPattern::Exact("127.0.0.1".into())], PathPattern::Prefix("/%61pi".into()), &[Method::GET]),
    ];
    // Each for both schemes, and half of them for one alone besides.
    let either = table.clone().into_iter().map(|route| (None, route));
    let secure = table.into_iter().step_by(2).map(|route| (Some(Scheme::Https), route));
    let numbered = either.chain(secure).enumerate();
    Router::build(numbered.map(|(target, (scheme, (hosts, path, methods)))| Entry {
        scheme,
        hosts: hosts.to_vec(),
        path,
        methods: methods.to_vec(),
        target,
    }))
}

fn text(seeds: &[&str]) -> impl Strategy<Value = String> {
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    damaged(seeds, WORDS).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

proptest! {
    #![proptest_config(tries(1_500))]

    /// The route without a host takes what begins with a slash, so that is always found; and what is
    /// found does not depend on how the host is cased, nor on a dot at its end.
    #[test]
    fn every_host_and_path_finds_the_route_that_its_spelling_may(host in text(&HOSTS), path in text(&PATHS)) {
        let router = router();
        let schemes = [Scheme::Http, Scheme::Https];
        let asked = schemes.into_iter().flat_map(|scheme| [(scheme, Method::GET), (scheme, Method::POST)]);
        for (scheme, method) in asked {
            let found = router.find(scheme, &host, &path, &method);
            prop_assert!(found.is_some());
            prop_assert_eq!(router.find(scheme, &host.to_ascii_uppercase(), &path, &method), found);
            if !host.ends_with('.') && !host.is_empty() && host.len() < MAX_HOST {
                prop_assert_eq!(router.find(scheme, &format!("{host}."), &path, &method), found);
            }
        }
    }
}
