//! Five services, one validation: who knocks is settled at the gateway, and the services believe a
//! header that only the gateway can send.
//!
//! Start at [`EDGE`] and [`INSIDE`], the two balancers; [`home`] is what the gateway does.

pub mod service;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Scene;
use super::token::{Keys, bearer};
use crate::harness::http::Http;
use crate::harness::{
    Aspect, Balancer, Browser, Column, Findings, Outcome, Replica, Setup, Stage, child, quote,
};

/// What clients reach. Whatever identity a client claims is taken off here.
const EDGE: &str = r#"
[[route]]
path = "/"
pool = "gateway"
request_headers.remove = ["x-user", "x-role"]

[pool.gateway]
policy = "round_robin"
backends = BACKENDS
"#;

/// What only the gateway reaches, on another socket: here the header counts.
const INSIDE: &str = r#"
[[route]]
path = "/SERVICE"
pool = "SERVICE"

[pool.SERVICE]
backends = ["ADDRESS"]
"#;

/// Users log in with A; a page needs all the others.
const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Whom the attacker claims to be. No user of this chapter has that number.
const ROOT: &str = "1";

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    secret: String,
    inside: SocketAddr,
}

#[derive(Clone)]
struct Gateway {
    keys: Arc<Keys>,
    http: Http,
    inside: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    validations: AtomicU64,
    /// Identity headers that came with a request, although none may get this far.
    claimed: AtomicU64,
}

/// The gateway as a process. Once Pintle checks tokens itself, there is no need for it.
pub async fn serve(setup: Setup) -> Outcome<()> {
    let Order { secret, inside } = setup.order()?;
    let (keys, http) = (Arc::new(Keys::new(&secret)), Http::default());
    let gateway = Gateway { keys, http, inside, counts: Arc::default() };
    let app = Router::new()
        .route("/login", post(login))
        .route("/home", get(home))
        .route("/counted", get(counted))
        .with_state(gateway);
    child::serve(setup, app).await
}

/// A page made of four services' parts: the token is checked once, here.
async fn home(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    let claimed = headers.contains_key("x-user") || headers.contains_key("x-role");
    gateway.counts.claimed.fetch_add(u64::from(claimed), Ordering::Relaxed);
    gateway.counts.validations.fetch_add(1, Ordering::Relaxed);
    let Some(identity) = gateway.keys.bearer(&headers) else {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "Invalid token" }))).into_response();
    };
    let mut parts = Vec::new();
    for service in &SERVICES[1..] {
        match gateway.ask(service, identity.user_id, &identity.role).await {
            Ok(part) => parts.push(part),
            Err(_) => return StatusCode::BAD_GATEWAY.into_response(),
        }
    }
    Json(json!({ "parts": parts })).into_response()
}

impl Gateway {
    /// Asks a service for somebody. The request is a new one: nothing of the client's is in it.
    async fn ask(&self, service: &str, user: u32, role: &str) -> Outcome<Value> {
        let request = Request::get(format!("http://{}/{service}/part", self.inside));
        let request = request.header("x-user", user).header("x-role", role).body(Full::default())?;
        let (_, body) = self.http.send(request).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

async fn login(State(gateway): State<Gateway>, Json(order): Json<Value>) -> Response {
    match gateway.http.post(gateway.inside, "/a/login", &order).await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn counted(State(Gateway { counts, .. }): State<Gateway>) -> Json<Value> {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Json(json!({ "validations": read(&counts.validations), "claimed": read(&counts.claimed) }))
}

/// What was seen: at the edge, at services that check tokens themselves, and by everybody's counts.
pub struct Seen(Visits, (usize, usize), Counted);

pub async fn observe(stage: &Stage, scene: &Scene) -> Outcome<Seen> {
    let mut services = Vec::new();
    let mut inside = String::new();
    for name in SERVICES {
        let order = service::Order { secret: scene.secret.clone(), database: scene.database.address };
        let service = Replica::start("jwt-service", name, order).await?;
        inside += &INSIDE.replace("SERVICE", name).replace("ADDRESS", &service.address.to_string());
        services.push(service);
    }
    let inside = Balancer::start(stage, &inside, &[]).await?;
    let order = Order { secret: scene.secret.clone(), inside: inside.address };
    let gateway = [Replica::start("jwt-gateway", "gateway", order).await?];
    let edge = Balancer::start(stage, EDGE, &gateway).await?;

    let visits = visits(stage, edge.address).await?;
    let crossed = cross(&visits.tokens, &services).await;
    let counted = count(&gateway, &services).await?;
    edge.shutdown().await;
    inside.shutdown().await;
    Ok(Seen(visits, crossed, counted))
}

/// What users and an attacker did at the edge.
#[derive(Default)]
struct Visits {
    tokens: Vec<String>,
    asked: usize,
    /// Pages whose four parts are all for the user who asked.
    own: usize,
    forged: usize,
    /// Forged requests without a token that were let in, or with one and answered as somebody else.
    fooled: usize,
}

async fn visits(stage: &Stage, at: SocketAddr) -> Outcome<Visits> {
    let mut visits = Visits::default();
    for number in 0..stage.pick(10, 40, 200) {
        let user = 3_000 + number;
        let mut browser = Browser::new(at, Ipv4Addr::new(10, 2, 0, (number % 250) as u8));
        let order = json!({ "user": user, "password": super::api::database::PASSWORD });
        let login = browser.post("/login", &order).await.json();
        let token = bearer(login["token"].as_str().ok_or("service A gave no token")?);
        for _ in 0..3 {
            let page = browser.send(Method::GET, "/home", &[("authorization", &token)], Bytes::new()).await;
            visits.asked += 1;
            visits.own += usize::from(users(&page.json()) == [user; 4]);
        }
        let claims = [("authorization", &*token), ("X-User", ROOT), ("x-role", "admin")];
        for headers in [&claims[..], &claims[1..]] {
            let page = browser.send(Method::GET, "/home", headers, Bytes::new()).await;
            visits.forged += 1;
            let fair = if headers.len() == 3 { users(&page.json()) == [user; 4] } else { page.is(401) };
            visits.fooled += usize::from(!fair);
        }
        // Neither a service's own path nor its host's name leads past the gateway.
        for (path, host) in [("/b/part", "shop.example"), ("/home", "b.inside.example")] {
            let claims = [("x-user", ROOT), ("x-forwarded-host", host)];
            let page = browser.send(Method::GET, path, &claims, Bytes::new()).await;
            visits.forged += 1;
            visits.fooled += usize::from(page.ok());
        }
        visits.tokens.push(token);
    }
    Ok(visits)
}

fn users(page: &Value) -> Vec<u32> {
    let parts = page["parts"].as_array().into_iter().flatten();
    parts.filter_map(|part| part["user"].as_u64()).map(|user| user as u32).collect()
}

/// Each token, issued by A, shown to B, C, D and E themselves: (accepted, shown).
async fn cross(tokens: &[String], services: &[Replica]) -> (usize, usize) {
    let (mut accepted, mut shown) = (0, 0);
    for service in &services[1..] {
        let mut browser = Browser::new(service.address, Ipv4Addr::new(10, 2, 1, 1));
        for token in tokens {
            let path = format!("/{}/me", service.name);
            let answer = browser.send(Method::GET, &path, &[("authorization", token)], Bytes::new()).await;
            shown += 1;
            accepted += usize::from(answer.ok());
        }
    }
    (accepted, shown)
}

/// What the processes counted.
struct Counted {
    validations: u64,
    claimed: u64,
    /// Calls of B to E, and those among them that came in the attacker's name.
    calls: u64,
    forged: u64,
    /// Tokens that the services checked for a page.
    again: u64,
}

async fn count(gateway: &[Replica; 1], services: &[Replica]) -> Outcome<Counted> {
    let http = Http::default();
    let of = |value: &Value, name: &str| value[name].as_u64().unwrap_or_default();
    let at_gateway = http.get(gateway[0].address, "/counted").await?;
    let (validations, claimed) = (of(&at_gateway, "validations"), of(&at_gateway, "claimed"));
    let mut counted = Counted { validations, claimed, calls: 0, forged: 0, again: 0 };
    for service in &services[1..] {
        let at_service = http.get(service.address, &format!("/{}/counted", service.name)).await?;
        counted.calls += of(&at_service, "calls");
        counted.forged += of(&at_service, "forged");
        counted.again += of(&at_service, "checked_for_a_page");
    }
    Ok(counted)
}

const PATTERN: &str = "Pattern 3: Microservices with Shared Auth";

pub fn report(Seen(visits, (accepted, shown), counted): &Seen, findings: &mut Findings) {
    // Three genuine visits, and the forged ones that reach `/home`: with a token, without, by host.
    let homes = (visits.asked + visits.tokens.len() * 3) as u64;
    findings.holds(
        "jwt.gateway_validates_once",
        quote(PATTERN, "JWT validated at gateway"),
        format!(
            "{} validations for {homes} requests and {} calls of services, which validated {}; \
             store look-ups: 0",
            counted.validations, counted.calls, counted.again
        ),
        homes as usize,
        counted.validations == homes
            && counted.again == 0
            && visits.own == visits.asked
            && counted.calls == 4 * (visits.asked + visits.tokens.len()) as u64,
        "No process of the five is given the address of a store. The gateway here is a small program behind \
         Pintle; the check is to move into Pintle itself, and the program then goes away.",
    );
    findings.holds(
        "jwt.identity_headers_are_not_believed",
        quote(PATTERN, "Services trust gateway's validation"),
        format!(
            "{} of {} requests with a forged x-user fooled anybody; headers that got past the edge \
             {}, to a service {}",
            visits.fooled, visits.forged, counted.claimed, counted.forged
        ),
        visits.forged,
        visits.fooled == 0 && counted.claimed == 0 && counted.forged == 0,
        "The edge removes the header from every client, and the services listen where only the \
         gateway calls.",
    );
    findings.holds(
        "jwt.cross_service",
        quote("Comparison Table", "Cross-Service: JWT Yes"),
        format!("{accepted} of {shown} tokens of service A accepted by B, C, D and E themselves"),
        *shown,
        accepted == shown && *shown > 0,
        "They share a key and nothing else. With HS256 whoever can check can sign too: give services that \
         only check a public key.",
    );
    let all = format!("{accepted} of {shown} tokens accepted by four other services, 0 look-ups");
    findings.cell(Aspect::CrossService, Column::Jwt, all, Some(accepted == shown));
    findings.answer(
        6,
        format!(
            "Users get a token from A; one gateway validates it once per request ({} for {homes}), and \
         no store is asked.",
            counted.validations
        ),
    );
    findings.answer(
        6,
        format!(
            "B to E believe the header that the gateway sets: {} calls, {} of {} pages for the right user.",
            counted.calls, visits.own, visits.asked
        ),
    );
    findings.answer(
        6,
        format!(
            "The edge removes identity headers that clients send: {} of {} forged ones arrived at a service.",
            counted.forged, visits.forged
        ),
    );
    findings.left_out(
        "Services that trust a header must be out of everybody else's reach, by network rules or mutual TLS. \
         On one machine with loopback only, that is shown by two sockets.",
    );
}
