//! What must be so wherever a session is: somebody else's id is never logged in, cookies are out of
//! reach of scripts, strangers get a 401 and the wrong role a 403.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::http::{Method, header};
use serde_json::{Value, json};

use crate::harness::Answer;
use crate::shop::Strategy;
use crate::shop::database::PASSWORD;
use crate::shop::shopper::Shopper;

/// Users of these attempts are not those of the test.
const FIRST: usize = 10_000;

/// What came of the attempts.
#[derive(Clone, Debug, Default)]
pub struct Safety {
    /// Log-ins, and how many different session ids they gave; 0 where there are no ids.
    pub log_ins: usize,
    pub ids: usize,
    /// Planted ids and sessions, and how many of them were the victim's after the log-in.
    pub planted: usize,
    pub hijacked: usize,
    /// `Set-Cookie` lines, and how many say HttpOnly and SameSite.
    pub cookies: usize,
    pub guarded: usize,
    /// Requests of strangers and of the wrong role, and how many were answered as they should be.
    pub refusals: usize,
    pub refused: usize,
    pub admitted: bool,
}

/// Tries all of it at a shop, `tries` times each.
pub async fn attempt(at: SocketAddr, strategy: Strategy, tries: usize) -> Safety {
    let mut safety = Safety::default();
    for number in 0..tries {
        log_in_twice(&mut safety, Shopper::new(at, strategy, FIRST + number)).await;
        let victim = FIRST + 2 * tries + number;
        plant_an_id(&mut safety, [victim, victim + tries].map(|user| Shopper::new(at, strategy, user))).await;
        plant_a_session(&mut safety, [victim, victim + tries].map(|user| Shopper::new(at, strategy, user)))
            .await;
    }
    knock(&mut safety, at, strategy).await;
    safety
}

/// Two log-ins have two ids, also in the same browser.
async fn log_in_twice(safety: &mut Safety, mut shopper: Shopper) {
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let answer = shopper
            .send(Method::POST, "/login", &json!({ "user": shopper.user.clone(), "password": PASSWORD }))
            .await;
        count_cookies(safety, &answer);
        if let Some(id) = shopper.browser.cookies.get("sessionId") {
            safety.log_ins += 1;
            ids.insert(id.clone());
        }
    }
    safety.ids += ids.len();
}

fn count_cookies(safety: &mut Safety, answer: &Answer) {
    let lines = answer.headers.get_all(header::SET_COOKIE).iter();
    for line in lines.filter_map(|line| line.to_str().ok()) {
        safety.cookies += 1;
        safety.guarded += usize::from(line.contains("HttpOnly") && line.contains("SameSite="));
    }
}

/// Somebody puts an id that they thought of into the victim's browser, waits for the log-in, and
/// comes with it.
async fn plant_an_id(safety: &mut Safety, [mut victim, mut thief]: [Shopper; 2]) {
    let id = format!("planted-in-{}", victim.user);
    for browser in [&mut victim.browser, &mut thief.browser] {
        browser.cookies.insert("sessionId".into(), id.clone());
        browser.cookies.insert("identity".into(), id.clone());
    }
    thief.token = Some(id);
    victim.log_in().await;
    steal(safety, &victim, &mut thief).await;
}

/// The same with the thief's own valid session: after the log-in it must still be the thief's.
async fn plant_a_session(safety: &mut Safety, [mut victim, mut thief]: [Shopper; 2]) {
    thief.log_in().await;
    victim.browser.cookies = thief.browser.cookies.clone();
    victim.token = thief.token.clone();
    victim.log_in().await;
    steal(safety, &victim, &mut thief).await;
}

async fn steal(safety: &mut Safety, victim: &Shopper, thief: &mut Shopper) {
    let answer = thief.send(Method::GET, "/dashboard", &Value::Null).await;
    safety.planted += 1;
    safety.hijacked += usize::from(answer.ok() && answer.json()["user"] == victim.user.as_str());
}

/// A stranger, a customer and an admin.
async fn knock(safety: &mut Safety, at: SocketAddr, strategy: Strategy) {
    let mut stranger = Shopper::new(at, strategy, FIRST);
    for path in ["/dashboard", "/admin", "/cart"] {
        let answer = stranger.send(Method::GET, path, &Value::Null).await;
        let said = match strategy {
            Strategy::Token => answer.json() == json!({ "error": "Invalid token" }),
            _ => answer.body.as_ref() == b"Not logged in",
        };
        safety.refusals += 1;
        safety.refused += usize::from(answer.is(401) && said);
    }
    let mut customer = Shopper::new(at, strategy, FIRST);
    customer.log_in().await;
    let answer = customer.send(Method::GET, "/admin", &Value::Null).await;
    safety.refusals += 1;
    safety.refused += usize::from(answer.is(403));
    let mut admin = Shopper::new(at, strategy, FIRST);
    admin.user = "admin".into();
    admin.log_in().await;
    safety.admitted = admin.send(Method::GET, "/admin", &Value::Null).await.is(200);
}
