//! Cookie headers and tokens, damaged in every way: none is found that was not sent, and none is
//! opened that we did not seal.

use std::sync::LazyLock;

use http::header::COOKIE;
use proptest::prelude::*;

use super::tests::{NOW, affinity, key, token};
use super::*;
use crate::fuzz::{damaged, tries};
use crate::http::cookies::CookieName;

/// Sealed for these tests: under the first key, under an older one, for another pool.
static SEALED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let of = |pool: &str, id: &str, backend: &str| {
        Sealer::new(pool, &[key(id)]).seal(&Token::new(backend, 7, NOW))
    };
    vec![of("app", "k1", "a2"), of("app", "k2", "a-much-longer-name:8080"), of("web", "k1", "a2")]
});
const WORDS: &[&[u8]] = &[
    b"srv_id=", b"=", b";", b"; ", b" ", b"\t", b"\"", b"-", b"_", b"+", b"/", b"A", b"\0", b"\xff",
    b"srv_id",
];

fn tokens() -> impl Strategy<Value = Vec<u8>> {
    damaged(SEALED.iter().map(|sealed| sealed.clone().into_bytes()).collect(), WORDS)
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    let seeds = [
        format!("theme=dark; srv_id={}; lang=en", SEALED[0]),
        format!("srv_id=\"{}\"; srv_id=stale", SEALED[1]),
        "xsrv_id=1;srv_id;srv_id = x ; =srv_id; srv_id2=y".to_owned(),
        String::new(),
    ];
    damaged(seeds.map(String::into_bytes).to_vec(), WORDS)
}

/// Pairs as `(name, value)`, by another way than the scanner's.
fn naive(header: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = header.split(|byte| *byte == b';').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((pair[..at].trim_ascii().to_vec(), pair[at + 1..].trim_ascii().to_vec()))
    });
    pairs.collect()
}

proptest! {
    #![proptest_config(tries(1_500))]

    #[test]
    fn no_token_but_one_of_ours_is_opened(text in tokens()) {
        let ring = affinity(&[key("k1"), key("k2")]);
        let ours = SEALED[..2].iter().any(|sealed| sealed.as_bytes() == text);
        prop_assert_eq!(ring.open(&text, NOW).is_ok(), ours);
    }

    #[test]
    fn our_cookie_is_found_and_taken_out_of_any_header_and_the_others_stay(header in headers()) {
        let name = CookieName::new("srv_id");
        let pairs = naive(&header);
        prop_assert_eq!(name.values(&header).count(), pairs.iter().filter(|(name, _)| name == b"srv_id").count());
        let rest = name.without(&header).unwrap_or_else(|| header.clone());
        let others: Vec<_> = pairs.into_iter().filter(|(name, _)| name != b"srv_id").collect();
        prop_assert_eq!(naive(&rest), others);
    }

    #[test]
    fn a_request_with_any_cookies_names_a_backend_only_by_a_token_of_ours(lines in prop::collection::vec(headers(), 1..4)) {
        let valid = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
        let mut headers: HeaderMap = valid.map(|value| (COOKIE, value)).collect();
        let ring = affinity(&[key("k1"), key("k2")]);
        if let Some(Ok(opened)) = ring.find(&headers).map(|text| ring.open(text, NOW)) {
            prop_assert!(["a2", "a-much-longer-name:8080"].contains(&&*opened.backend));
            prop_assert_eq!((opened.session, opened.issued), (7, NOW));
        }
        ring.strip(&mut headers);
        prop_assert_eq!(ring.find(&headers), None);
    }
}

#[test]
fn the_seeds_are_what_they_are_taken_for() {
    let ring = affinity(&[key("k1"), key("k2")]);
    let opened: Vec<bool> = SEALED.iter().map(|sealed| ring.open(sealed.as_bytes(), NOW).is_ok()).collect();
    assert_eq!(opened, [true, true, false]);
    assert_eq!(ring.open(ring.sealer().seal(&token()).as_bytes(), NOW), Ok(token()));
}
