//! The cookie as clients, replicas and forgers meet it.

use http::header::{CACHE_CONTROL, COOKIE};
use proptest::prelude::*;

use super::*;
use crate::plan::{OnDown, OnDrain, Secret, StickyKey};

pub(super) const NOW: u64 = 1_750_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

fn plan() -> StickyPlan {
    StickyPlan {
        cookie: "srv_id".into(),
        keys: Vec::new(),
        max_idle: HOUR,
        max_life: Duration::ZERO,
        path: "/".into(),
        domain: String::new(),
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        on_down: OnDown::Repick,
        on_drain: OnDrain::Keep,
    }
}

pub(super) fn key(id: &str) -> StickyKey {
    StickyKey { id: id.into(), secret: Secret(id.bytes().cycle().take(32).collect()) }
}

pub(super) fn affinity(keys: &[StickyKey]) -> Affinity {
    Affinity::new(&plan(), Sealer::new("app", keys))
}

pub(super) fn token() -> Token {
    Token::new("a2", 42, NOW)
}

fn headers(cookies: &[&str]) -> HeaderMap {
    cookies.iter().map(|value| (COOKIE, HeaderValue::from_str(value).unwrap())).collect()
}

/// The cookie's value and its attributes, sorted.
fn written(affinity: &Affinity, token: &Token, now: u64, tls: bool) -> (String, Vec<String>) {
    let header = affinity.set_cookie(token, now, tls);
    let mut parts = header.to_str().unwrap().split("; ");
    let (_, value) = parts.next().unwrap().split_once('=').unwrap();
    let mut attributes: Vec<String> = parts.map(str::to_owned).collect();
    attributes.sort();
    (value.to_owned(), attributes)
}

#[test]
fn what_is_written_comes_back_as_it_was() {
    let affinity = affinity(&[key("k1")]);
    let (value, _) = written(&affinity, &token(), NOW, false);
    let headers = headers(&[&format!("theme=dark; srv_id={value}")]);
    let found = affinity.find(&headers).unwrap();
    assert_eq!(affinity.open(found, NOW), Ok(token()));
    assert_ne!(affinity.sealer().seal(&token()), affinity.sealer().seal(&token()), "no nonce twice");
}

#[test]
fn max_idle_of_an_hour_is_an_hour_in_the_cookie() {
    let (_, attributes) = written(&affinity(&[key("k1")]), &token(), NOW, false);
    let expires = "Expires=Sun, 15 Jun 2025 16:06:40 GMT"; // NOW is 15:06:40
    assert_eq!(attributes, [expires, "HttpOnly", "Max-Age=3600", "Path=/", "SameSite=Lax"]);
}

#[test]
fn a_session_lives_while_used_and_ends_after_an_hour_of_silence() {
    let affinity = affinity(&[key("k1")]);
    let mut token = token();
    let mut now = NOW;
    for _ in 0..100 {
        now += 1_000;
        let renew = affinity.renew_due(&token, now);
        assert_eq!(renew, now - token.last_seen >= 900);
        if renew {
            token = token.seen_at(now);
        }
        assert_eq!(affinity.open(affinity.sealer().seal(&token).as_bytes(), now), Ok(token.clone()));
    }
    let sealed = affinity.sealer().seal(&token);
    let at = |silence| affinity.open(sealed.as_bytes(), token.last_seen + silence);
    assert_eq!(at(3_600 + 900), Ok(token.clone()));
    assert_eq!(at(3_600 + 901), Err(Refused::Expired));
    assert!(!affinity.renew_due(&token, token.last_seen + 899));
    assert!(affinity.renew_due(&token, token.last_seen + 900));
}

#[test]
fn max_life_ends_a_session_however_much_it_is_used() {
    let plan = StickyPlan { max_life: HOUR * 2, ..plan() };
    let affinity = Affinity::new(&plan, Sealer::generated("app"));
    let used = token().seen_at(NOW + 6_000);
    let (_, attributes) = written(&affinity, &used, NOW + 6_000, false);
    assert!(attributes.contains(&"Max-Age=1200".to_owned()), "{attributes:?}");
    assert!(!affinity.expired(&used, NOW + 7_200));
    assert!(affinity.expired(&used, NOW + 7_201));
}

#[test]
fn without_limits_it_is_a_browser_session() {
    let plan = StickyPlan { max_idle: Duration::ZERO, ..plan() };
    let affinity = Affinity::new(&plan, Sealer::generated("app"));
    let (_, attributes) = written(&affinity, &token(), NOW, false);
    assert_eq!(attributes, ["HttpOnly", "Path=/", "SameSite=Lax"]);
    assert!(!affinity.expired(&token(), NOW + 1_000_000_000) && !affinity.renew_due(&token(), u64::MAX));
}

#[test]
fn clocks_of_replicas_may_differ_by_a_minute() {
    let affinity = affinity(&[key("k1")]);
    assert!(!affinity.expired(&token(), NOW - 60));
    assert!(affinity.expired(&token(), NOW - 61));
    assert!(!affinity.renew_due(&token(), NOW - 60));
}

#[test]
fn secure_follows_the_plan_the_connection_and_the_name() {
    let secure = |plan: StickyPlan, tls| {
        let affinity = Affinity::new(&plan, Sealer::new("app", &[key("k1")]));
        written(&affinity, &token(), NOW, tls).1.contains(&"Secure".to_owned())
    };
    assert!(secure(plan(), true) && !secure(plan(), false));
    assert!(secure(StickyPlan { secure: Secure::Always, ..plan() }, false));
    assert!(!secure(StickyPlan { secure: Secure::Never, ..plan() }, true));
    assert!(secure(StickyPlan { cookie: "__Host-srv".into(), ..plan() }, false));
}

#[test]
fn a_host_cookie_has_no_domain_and_others_have_theirs() {
    let plan = StickyPlan {
        domain: "example.com".into(),
        path: "/shop".into(),
        same_site: SameSite::Strict,
        http_only: false,
        max_idle: Duration::ZERO,
        ..plan()
    };
    let attributes = |plan: &StickyPlan| {
        written(&Affinity::new(plan, Sealer::new("app", &[key("k1")])), &token(), NOW, false).1
    };
    assert_eq!(attributes(&plan), ["Domain=example.com", "Path=/shop", "SameSite=Strict"]);
    let host = StickyPlan { cookie: "__Host-srv".into(), path: "/".into(), ..plan };
    assert_eq!(attributes(&host), ["Path=/", "SameSite=Strict", "Secure"]);
}

#[test]
fn replicas_with_the_same_keys_agree() {
    let (one, two) = (affinity(&[key("k1")]), affinity(&[key("k1")]));
    assert_eq!(two.open(one.sealer().seal(&token()).as_bytes(), NOW), Ok(token()));
}

#[test]
fn rotation_moves_nobody() {
    let rings = [vec![key("k1")], vec![key("k1"), key("k2")], vec![key("k2"), key("k1")]];
    for (before, after) in [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2)] {
        let sealed = affinity(&rings[before]).sealer().seal(&token());
        assert_eq!(affinity(&rings[after]).open(sealed.as_bytes(), NOW), Ok(token()), "{before} {after}");
    }
    let retired = affinity(&[key("k2")]);
    let sealed = affinity(&rings[1]).sealer().seal(&token());
    assert_eq!(retired.open(sealed.as_bytes(), NOW), Err(Refused::UnknownKey));
}

#[test]
fn a_generated_key_can_be_kept() {
    let first = Sealer::generated("app");
    assert_ne!(first.key(), Sealer::generated("app").key());
    assert!(first.key().id.len() <= 16 && first.key().secret.0.len() == 32);
    let kept = Sealer::new("app", std::slice::from_ref(first.key()));
    assert_eq!(kept.open(first.seal(&token()).as_bytes()), Ok(token()));
}

#[test]
fn a_token_of_another_pool_or_key_is_forged() {
    let affinity = affinity(&[key("k1")]);
    let other_pool = Sealer::new("web", &[key("k1")]).seal(&token());
    assert_eq!(affinity.open(other_pool.as_bytes(), NOW), Err(Refused::Forged));
    let same_id = StickyKey { id: "k1".into(), ..key("kx") };
    let other_key = Sealer::new("app", &[same_id]).seal(&token());
    assert_eq!(affinity.open(other_key.as_bytes(), NOW), Err(Refused::Forged));
}

#[test]
fn the_longest_names_fit_and_longer_input_is_refused() {
    let sealer = Sealer::new(&"p".repeat(64), &[key("0123456789abcdef")]);
    let token = Token::new("b".repeat(64), 1, NOW);
    let sealed = sealer.seal(&token);
    assert!(sealed.len() <= TOKEN_MAX / 2, "{}", sealed.len());
    assert_eq!(sealer.open(sealed.as_bytes()), Ok(token));
    assert_eq!(sealer.open(&[b'A'; TOKEN_MAX + 1]), Err(Refused::Forged));
    assert_eq!(sealer.open(&[b'A'; TOKEN_MAX]), Err(Refused::Forged));
}

/// There is one spelling of a token: no padding, no stray bits in the last letter, no case.
#[test]
fn no_second_spelling_of_a_token_is_accepted() {
    let sealer = Sealer::new("app", &[key("k1")]);
    // Names of three lengths, so that every number of left-over bits occurs.
    for backend in ["a", "a2", "a-3"] {
        let sealed = sealer.seal(&Token::new(backend, 42, NOW)).into_bytes();
        for last in 0..=u8::MAX {
            let mut other = sealed.clone();
            *other.last_mut().unwrap() = last;
            assert_eq!(sealer.open(&other).is_ok(), other == sealed);
        }
        for padding in ["=", "==", " "] {
            assert_eq!(sealer.open(&[&sealed, padding.as_bytes()].concat()), Err(Refused::Forged));
        }
    }
}

#[test]
fn a_million_mutated_tokens_are_all_refused() {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sealer = Sealer::new("app", &[key("k1"), key("k2")]);
    let sealed = sealer.seal(&token()).into_bytes();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % limit
    };
    let mut forged = sealed.clone();
    for n in 0..1_000_000 {
        forged.clone_from(&sealed);
        // One letter, now and then two; a cut; a letter more; two letters swapped.
        match n % 8 {
            0..5 => (0..=n % 2).for_each(|_| forged[below(sealed.len())] = ALPHABET[below(64)]),
            5 => forged.truncate(below(sealed.len())),
            6 => forged.insert(below(sealed.len()), ALPHABET[below(64)]),
            _ => forged.swap(below(sealed.len()), below(sealed.len())),
        }
        assert_eq!(sealer.open(&forged).is_ok(), forged == sealed, "{n}");
    }
}

#[test]
fn the_first_well_formed_duplicate_counts_over_all_headers() {
    let affinity = affinity(&[key("k1")]);
    let find = |cookies: &[&str]| affinity.find(&headers(cookies)).map(<[u8]>::to_vec);
    assert_eq!(find(&["srv_id=; srv_id=a.b", "x=1; srv_id=\"first\"; srv_id=second"]), Some(b"first".into()));
    assert_eq!(find(&[&format!("srv_id={}", "a".repeat(TOKEN_MAX + 1))]), None);
    assert_eq!(find(&["other=1"]), None);
    assert_eq!(find(&[]), None);
}

#[test]
fn only_our_cookie_is_taken_from_a_request() {
    let affinity = affinity(&[key("k1")]);
    let strip = |cookies: &[&str]| {
        let mut headers = headers(cookies);
        affinity.strip(&mut headers);
        let left: Vec<String> =
            headers.get_all(COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        left
    };
    assert_eq!(strip(&["a=1; srv_id=x; b=2"]), ["a=1; b=2"]);
    assert_eq!(strip(&["a=1;  b=2"]), ["a=1;  b=2"]);
    assert_eq!(strip(&["srv_id=x"]), [""; 0]);
    assert_eq!(strip(&["a=1", "srv_id=x", "b=2; srv_id=y", "srv_id="]), ["a=1", "b=2"]);
    assert_eq!(strip(&[]), [""; 0]);
}

#[test]
fn a_response_that_sets_the_cookie_is_private() {
    let marked = |values: &[&str]| {
        let mut headers: HeaderMap =
            values.iter().map(|value| (CACHE_CONTROL, HeaderValue::from_str(value).unwrap())).collect();
        mark_private(&mut headers);
        let after: Vec<String> =
            headers.get_all(CACHE_CONTROL).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        after
    };
    assert_eq!(marked(&[]), ["private"]);
    assert_eq!(marked(&["public, max-age=60"]), ["public, max-age=60", "private"]);
    assert_eq!(marked(&["max-age=60 ,Private"]), ["max-age=60 ,Private"]);
    assert_eq!(marked(&["max-age=0", "no-store"]), ["max-age=0", "no-store"]);
    assert_eq!(marked(&["private=\"x-name\""]), ["private=\"x-name\"", "private"]);
}

proptest! {
    #[test]
    fn arbitrary_text_is_never_a_token(text: Vec<u8>) {
        prop_assert!(affinity(&[key("k1")]).open(&text, NOW).is_err());
    }

    #[test]
    fn arbitrary_requests_do_no_harm(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        let valid = values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok());
        let mut headers: HeaderMap = valid.map(|value| (COOKIE, value)).collect();
        let affinity = affinity(&[key("k1")]);
        let _ = affinity.find(&headers);
        affinity.strip(&mut headers);
        prop_assert_eq!(affinity.find(&headers), None);
    }

    #[test]
    fn times_never_overflow(issued: u64, last_seen: u64, now: u64, max_idle in 0..=1_u64 << 40, max_life in 0..=1_u64 << 40) {
        let plan = StickyPlan {
            max_idle: Duration::from_secs(max_idle),
            max_life: Duration::from_secs(max_life),
            ..plan()
        };
        let affinity = Affinity::new(&plan, Sealer::new("app", &[key("k1")]));
        let token = Token { issued, last_seen, ..token() };
        let _ = (affinity.expired(&token, now), affinity.renew_due(&token, now));
        let _ = affinity.set_cookie(&token, now, true);
    }
}
