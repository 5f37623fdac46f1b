//! The revocation problem: for how long a stolen token works after the password was changed, and
//! what each way of taking it back costs in look-ups and in state.
//!
//! Start at [`theft`]. The four schemes run side by side over the same three replicas.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Method;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use redis::cmd;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Scene;
use super::api::Scheme;
use super::api::database::PASSWORD;
use super::token::{bearer, now};
use crate::harness::figures::time;
use crate::harness::http::Http;
use crate::harness::stage::scaled;
use crate::harness::{Aspect, Browser, Column, Findings, Lines, Outcome, Quote, Series, Table, quote};
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
        (count("refresh:*").await?, count("deny:*").await?, count("issued:*").await?);
    Ok(Seen { thefts: [plain, short, deny, version], refresh, denied, issued })
}

pub fn report(seen: &Seen, findings: &mut Findings) {
    let Seen { thefts: [plain, short, deny, version], refresh, denied, issued } = seen;
    windows(plain, short, deny, version, findings);
    lookups(&seen.thefts, findings);
    let states = [
        "nothing".to_owned(),
        format!("{refresh} refresh tokens in the store"),
        format!("{denied} denied tokens, {issued} lists of issued ones"),
        "a version with each user in the database".to_owned(),
    ];
    picture(&seen.thefts, states, findings);
    answers(plain, short, deny, version, findings);
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

const PROBLEM: &str = "The Revocation Problem";

fn windows(plain: &Theft, short: &Theft, deny: &Theft, version: &Theft, findings: &mut Findings) {
    let n = plain.after.len();
    let hours = plain.left.as_secs_f64() / 3600.0;
    findings.holds(
        "jwt.plain_cannot_be_revoked",
        quote(
            PROBLEM,
            "Attacker can use stolen JWT until 11:00 AM! Server has no way to know password changed!",
        ),
        format!(
            "{} of {n} requests of the thief got through; {hours:.1} of 24 h remain (read from exp)",
            plain.through()
        ),
        n,
        plain.changed && plain.before == BEFORE && plain.through() == n && plain.left > Duration::ZERO,
        "The signature is as good as before, and nobody is asked anything else.",
    );
    let stopped = short.after.iter().filter(|(when, _)| *when > short.window()).count();
    let (tries, renewed) = short.refreshes;
    findings.holds(
        "jwt.short_expiry_closes_the_window",
        quote(PROBLEM, "Short expiry (15 min) + refresh tokens"),
        format!(
            "{} requests got through, the last after {}; then {stopped} of {stopped} were refused; {renewed} of {tries} refreshes worked",
            short.through(), time(short.window()),
        ),
        short.after.len(),
        short.changed && short.before == BEFORE && short.through() > 0 && stopped > 0 && renewed == 0
            && short.others.0 == short.others.1,
        "The token works until it expires (15 min are 2 s here, to the nearest second); the refresh token was \
         deleted, so there is no next one. Everybody else was renewed without noticing.",
    );
    let at_once: [(&str, Quote, &Theft, &str); 2] = [
        (
            "jwt.deny_list_revokes_at_once",
            quote(PROBLEM, "Token blacklist (adds state back!)"),
            deny,
            "Every replica asks the store about every token, and the list is there before the answer is.",
        ),
        (
            "jwt.version_revokes_at_once",
            quote(PROBLEM, "Token versioning in database"),
            version,
            "Every replica asks the database for the user's version, which the password change raised.",
        ),
    ];
    for (id, lesson, theft, why) in at_once {
        let figure =
            format!("{} of {} requests of the thief got through", theft.through(), theft.after.len());
        let holds = theft.changed
            && theft.before == BEFORE
            && theft.through() == 0
            && theft.others.0 == theft.others.1;
        findings.holds(id, lesson, figure, theft.after.len(), holds, why);
    }
}

/// Look-ups of a scheme for every thousand requests.
fn per_thousand(count: u64, theft: &Theft) -> u64 {
    (count * 1_000) / theft.counted.requests.max(1)
}

fn lookups(thefts: &[Theft; 4], findings: &mut Findings) {
    let [plain, short, deny, version] = thefts;
    let total = |theft: &Theft| theft.counted.store + theft.counted.database;
    let requests: u64 = thefts.iter().map(|theft| theft.counted.requests).sum();
    let free =
        total(plain) == 0 && short.counted.database == 0 && short.counted.store == short.counted.refreshes;
    findings.holds(
        "jwt.no_lookup_per_request",
        quote("Strategy 3: Token-Based Authentication (JWT)", "No database lookup per request"),
        format!(
            "per 1,000 requests: plain {}, short {} (one per refresh), deny-list {}, version {}",
            per_thousand(total(plain), plain),
            per_thousand(total(short), short),
            per_thousand(total(deny), deny),
            per_thousand(total(version), version),
        ),
        requests as usize,
        free && total(deny) > 0 && total(version) > 0,
        "It is true of tokens that cannot be revoked at once. Those that can cost a look-up each time, \
         which is what a session costs.",
    );
}

fn picture(thefts: &[Theft; 4], states: [String; 4], findings: &mut Findings) {
    let names =
        ["plain, 24 h", "short expiry + refresh", "deny-list in the store", "version in the database"];
    let rows = thefts.iter().zip(names).zip(states).map(|((theft, name), state)| {
        let window = match theft.through() {
            0 => "none".to_owned(),
            through if through == theft.after.len() => {
                format!("until exp: {:.1} h", theft.left.as_secs_f64() / 3600.0)
            }
            _ => time(theft.window()),
        };
        let got = format!("{} of {}", theft.through(), theft.after.len());
        let store = per_thousand(theft.counted.store, theft).to_string();
        vec![
            name.to_owned(),
            window,
            got,
            store,
            per_thousand(theft.counted.database, theft).to_string(),
            state,
        ]
    });
    findings.show(Table {
        title: "Taking a token back".into(),
        note: "Look-ups are for 1,000 requests to the dashboard. Short: 15 min are 2 s here, so in \
               earnest a refresh is some 450 times rarer."
            .into(),
        columns: [
            "",
            "window",
            "thief got through",
            "store look-ups",
            "database look-ups",
            "state it brings back",
        ]
        .map(Into::into)
        .into(),
        rows: rows.collect(),
    });
    let series = thefts.iter().zip(names).map(|(theft, name)| {
        let mut through = 0.0;
        let points = theft.after.iter().map(|(when, ok)| {
            through += f64::from(u8::from(*ok));
            (when.as_secs_f64(), through)
        });
        Series { name: name.into(), points: points.collect() }
    });
    findings.show(Lines {
        title: "Requests that a stolen token got through".into(),
        note: "All four passwords were changed at 0. Deny-list and version lie on the axis.".into(),
        x: "seconds since the password was changed".into(),
        y: "requests".into(),
        series: series.collect(),
        marks: Vec::new(),
    });
}

fn answers(plain: &Theft, short: &Theft, deny: &Theft, version: &Theft, findings: &mut Findings) {
    let hours = plain.left.as_secs_f64() / 3600.0;
    findings.answer(2, format!(
        "A plain token cannot be revoked: {} of {} requests got through after the password change, and {hours:.1} h remained.",
        plain.through(), plain.after.len(),
    ));
    findings.answer(2, format!(
        "To revoke at once, list the token in the store or count versions in the database: {} and {} requests got through.",
        deny.through(), version.through(),
    ));
    findings.answer(2, format!(
        "The trade-off: {} look-ups per 1,000 requests and state again; short expiry needs one per refresh, and left the thief {}.",
        per_thousand(deny.counted.store, deny), time(short.window()),
    ));
    findings.cell(
        Aspect::Revocation,
        Column::Jwt,
        format!(
            "24 h token: not within the run, {} of {} got through, 0 look-ups",
            plain.through(),
            plain.after.len()
        ),
        Some(plain.through() == plain.after.len()),
    );
    findings.cell(
        Aspect::Revocation,
        Column::Jwt,
        format!("15 min (2 s here) + refresh: after {}", time(short.window())),
        Some(short.through() > 0),
    );
    for (name, theft, count) in
        [("deny-list", deny, deny.counted.store), ("version", version, version.counted.database)]
    {
        findings.cell(
            Aspect::Revocation,
            Column::Jwt,
            format!("{name}: at once, {} look-ups per 1,000 requests", per_thousand(count, theft)),
            Some(theft.through() == 0 && count > 0),
        );
    }
    findings.concept(5, format!(
        "A token needed no look-up in {} requests, and worked on after the password had changed; {} per 1,000 is what revoking at once costs.",
        plain.counted.requests, per_thousand(deny.counted.store, deny),
    ));
    findings.left_out(
        "The lesson calls revocation in a central store instant, and also proposes to keep sessions in a local \
         cache for 60 s: with that cache, a revoked session works for up to 60 s. Here nobody keeps copies.",
    );
}
