//! The revocation problem: for how long a stolen token works after the password was changed, and
//! what each way of taking it back costs in look-ups and in state.
//!
//! Start at [`theft`]; [`report`] judges what it saw. The four schemes run side by side over the same
//! three replicas.

mod verdict;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Method;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use redis::cmd;
use serde_json::{Value, json};
use tokio::time::sleep;

pub use self::verdict::report;
use super::Scene;
use super::api::Scheme;
use super::api::database::PASSWORD;
use super::token::{bearer, now};
use crate::harness::http::Http;
use crate::harness::stage::scaled;
use crate::harness::{Browser, Outcome};
use crate::store::{Client, Link};

/// How often the thief, and each of the others, comes.
const PACE: Duration = Duration::from_millis(15);
/// How long the thief goes on after the short token has expired.
const AFTER: Duration = Duration::from_millis(300);
/// How often the thief comes before anybody notices.
const BEFORE: usize = 9;

/// How often the thief, once refused, tries to renew the token.
const RENEWALS: usize = 5;

/// What became of one stolen token.
struct Theft {
    /// How many of the [`BEFORE`] got through.
    before: usize,
    /// When, after the answer to the change of password, and whether it let the thief in.
    after: Vec<(Duration, bool)>,
    /// Tries to get a new token with the stolen refresh token after the change, and successes.
    refreshes: (usize, usize),
    /// What is left of the token's life when this chapter stops looking.
    left: Duration,
    /// The old password is refused and the new one works.
    changed: bool,
    /// The others' requests, and those that were answered.
    others: (usize, usize),
    counted: Counted,
}

/// What the three replicas counted, added up.
#[derive(Default)]
struct Counted {
    requests: u64,
    store: u64,
    database: u64,
    refreshes: u64,
}

impl Theft {
    fn through(&self) -> usize {
        self.after.iter().filter(|(_, through)| *through).count()
    }

    /// When the stolen token last worked.
    fn window(&self) -> Duration {
        self.after.iter().rfind(|(_, through)| *through).map_or(Duration::ZERO, |(when, _)| *when)
    }
}

/// What was seen: the four thefts in the order of [`Scheme::ALL`], and what they left behind.
pub struct Seen {
    thefts: [Theft; 4],
    /// How many refresh tokens, denied tokens and lists of issued ones the store holds.
    refresh: usize,
    denied: usize,
    issued: usize,
}

pub async fn observe(scene: &Scene) -> Outcome<Seen> {
    let [plain, short, deny, version] = Scheme::ALL;
    // All four watch until the short token is certainly gone.
    let watch = scaled::QUARTER_HOUR + Duration::from_millis(500) + AFTER;
    let (plain, short, deny, version) = tokio::try_join!(
        theft(scene, plain, watch),
        theft(scene, short, watch),
        theft(scene, deny, watch),
        theft(scene, version, watch),
    )?;
    let store = Client::connect(scene.store.url(), Link::Multiplexed).await?;
    let count = async |keys: &str| Outcome::Ok(store.run::<Vec<String>>(cmd("KEYS").arg(keys)).await?.len());
    let (refresh, denied, issued) =
        (count("refresh:*").await?, count("deny:*").await?, count("issued/deny-list:*").await?);
    Ok(Seen { thefts: [plain, short, deny, version], refresh, denied, issued })
}

/// A user is logged in on a phone and a laptop. Somebody copies the phone's token; the user changes
/// the password on the laptop; the thief goes on.
async fn theft(scene: &Scene, scheme: Scheme, watch: Duration) -> Outcome<Theft> {
    let user = 1_000 + scheme as u32;
    let until = Instant::now() + watch;
    let (phone, refresh) = login(scene, scheme, user, PASSWORD).await?.ok_or("the phone could not log in")?;
    let (laptop, _) = login(scene, scheme, user, PASSWORD).await?.ok_or("the laptop could not log in")?;
    let others = tokio::spawn(others(scene.balancer.address, scheme, until));

    let mut thief = Browser::new(scene.balancer.address, Ipv4Addr::new(10, 66, 0, scheme as u8));
    let dashboard = format!("{}/dashboard", scheme.path());
    let stolen = [("authorization", &*bearer(&phone))];
    let mut before = 0;
    for _ in 0..BEFORE {
        before += usize::from(thief.send(Method::GET, &dashboard, &stolen, Bytes::new()).await.ok());
    }

    let mut owner = Browser::new(scene.balancer.address, Ipv4Addr::new(10, 65, 0, scheme as u8));
    let headers = [("authorization", &*bearer(&laptop)), ("content-type", "application/json")];
    let wanted = json!({ "password": "battery staple" }).to_string();
    let answer = owner.send(Method::POST, &format!("{}/password", scheme.path()), &headers, wanted).await;
    if !answer.ok() {
        return Err("the password could not be changed".into());
    }
    let revoked = Instant::now();
    let (mut after, mut refreshes) = (Vec::new(), (0, 0));
    while Instant::now() < until {
        let through = thief.send(Method::GET, &dashboard, &stolen, Bytes::new()).await.ok();
        after.push((revoked.elapsed(), through));
        if let (Some(refresh), false, ..RENEWALS) = (&refresh, through, refreshes.0) {
            let again =
                thief.post(&format!("{}/refresh", scheme.path()), &json!({ "refresh": refresh })).await;
            refreshes = (refreshes.0 + 1, refreshes.1 + usize::from(again.ok()));
        }
        sleep(PACE).await;
    }
    let left = Duration::from_secs(expiry(&phone)?).saturating_sub(now());
    let old = login(scene, scheme, user, PASSWORD).await?;
    let new = login(scene, scheme, user, "battery staple").await?;
    let changed = old.is_none() && new.is_some();
    let (others, counted) = (others.await?, counted(scene, scheme).await?);
    Ok(Theft { before, after, refreshes, left, changed, others, counted })
}

type Tokens = (String, Option<String>);

async fn login(scene: &Scene, scheme: Scheme, user: u32, password: &str) -> Outcome<Option<Tokens>> {
    let mut browser = Browser::new(scene.balancer.address, Ipv4Addr::new(10, 65, 1, scheme as u8));
    let order = json!({ "user": user, "password": password });
    let answer = browser.post(&format!("{}/login", scheme.path()), &order).await;
    if answer.failed() {
        return Err("a log-in failed".into());
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(text(&answer.json()["token"]).map(|token| (token, text(&answer.json()["refresh"]))))
}

/// Somebody whose token nobody stole, and who asks for the next one when it has expired. Returns
/// how many requests were made and how many were answered in the end.
async fn others(at: std::net::SocketAddr, scheme: Scheme, until: Instant) -> (usize, usize) {
    let mut browser = Browser::new(at, Ipv4Addr::new(10, 67, 0, scheme as u8));
    let order = json!({ "user": 2_000 + scheme as u32, "password": PASSWORD });
    let login = browser.post(&format!("{}/login", scheme.path()), &order).await.json();
    let mut token = login["token"].as_str().unwrap_or_default().to_owned();
    let dashboard = format!("{}/dashboard", scheme.path());
    let (mut asked, mut answered) = (0, 0);
    while Instant::now() < until {
        asked += 1;
        let mut answer =
            browser.send(Method::GET, &dashboard, &[("authorization", &bearer(&token))], Bytes::new()).await;
        if answer.is(401) && login["refresh"].is_string() {
            let order = json!({ "refresh": login["refresh"] });
            let next = browser.post(&format!("{}/refresh", scheme.path()), &order).await.json();
            token = next["token"].as_str().unwrap_or_default().to_owned();
            answer = browser
                .send(Method::GET, &dashboard, &[("authorization", &bearer(&token))], Bytes::new())
                .await;
        }
        answered += usize::from(answer.ok());
        sleep(PACE).await;
    }
    (asked, answered)
}

/// Reads `exp`, as everybody can.
fn expiry(token: &str) -> Outcome<u64> {
    let payload = token.split('.').nth(1).ok_or("a token has three parts")?;
    let payload: Value = serde_json::from_slice(&BASE64.decode(payload)?)?;
    payload["exp"].as_u64().ok_or_else(|| "a token says when it expires".into())
}

async fn counted(scene: &Scene, scheme: Scheme) -> Outcome<Counted> {
    let (http, mut sum) = (Http::default(), Counted::default());
    for replica in &scene.replicas {
        let counted = http.get(replica.address, &format!("{}/counted", scheme.path())).await?;
        let of = |name: &str| counted[name].as_u64().unwrap_or_default();
        sum.requests += of("requests");
        sum.store += of("store");
        sum.database += of("database");
        sum.refreshes += of("refreshes");
    }
    Ok(sum)
}
