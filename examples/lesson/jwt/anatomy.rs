//! What is in a token, who can read it, how it grows, and what happens to one that is not ours.

use std::net::Ipv4Addr;

use axum::body::Bytes;
use axum::http::Method;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Map, Value, json};

use super::Scene;
use super::api::database::PASSWORD;
use super::token::{self, Keys, bearer};
use crate::harness::browser::COOKIE_LIMIT;
use crate::harness::{Browser, Findings, Lines, Outcome, Series, Stage, Text, quote};

pub async fn show(stage: &Stage, scene: &Scene, findings: &mut Findings) -> Outcome<()> {
    let users = stage.pick(10, 40, 200);
    let mut browser = Browser::new(scene.balancer.address, Ipv4Addr::new(10, 1, 0, 1));
    let mut tokens = Vec::new();
    for user in 100..100 + users {
        let answer = browser.post("/plain/login", &json!({ "user": user, "password": PASSWORD })).await;
        tokens.push(answer.json()["token"].as_str().ok_or("nobody could log in")?.to_owned());
    }
    parts(&tokens, findings)?;
    sizes(&Keys::new(&scene.secret), findings)?;
    forge(&mut browser, &tokens, findings).await
}

/// The three parts of a token, opened by somebody who has no key.
fn parts(tokens: &[String], findings: &mut Findings) -> Outcome<()> {
    let mut read = 0;
    for token in tokens {
        let payload = open(token, 1).unwrap_or_default();
        read += usize::from(payload["email"].is_string() && payload["userId"].is_number());
    }
    let first = tokens.first().ok_or("nobody has a token")?;
    let pieces: Vec<_> = first.split('.').collect();
    let [header, payload, signature] = pieces[..] else { return Err("a token has three parts".into()) };
    let text = format!(
        "{header}.\n    {}\n{payload}.\n    {}\n{signature}\n    HMAC-SHA256 of the two parts \
         above, {} bytes",
        open(first, 0)?,
        open(first, 1)?,
        BASE64.decode(signature)?.len(),
    );
    findings.show(Text {
        title: "A token, opened without the key".into(),
        note: "Header and payload are base64, which anybody can read. Only the signature needs the key."
            .into(),
        text,
    });
    findings.holds(
        "jwt.payload_is_readable",
        quote("Strategy 3: Token-Based Authentication (JWT)", "Sensitive data in token (must be encrypted)"),
        format!("{read} of {} payloads read without the key, e-mail address and all", tokens.len()),
        tokens.len(),
        read == tokens.len(),
        "A signature proves who wrote a token. It hides nothing.",
    );
    Ok(())
}

fn open(token: &str, part: usize) -> Outcome<Value> {
    let part = token.split('.').nth(part).ok_or("a token has three parts")?;
    Ok(serde_json::from_slice(&BASE64.decode(part)?)?)
}

/// Bytes of a token against how many claims are in it.
fn sizes(keys: &Keys, findings: &mut Findings) -> Outcome<()> {
    let mut claims = Map::from_iter([("exp".to_owned(), token::expiry(super::api::DAY).into())]);
    let mut points = Vec::new();
    for number in 1..=128 {
        claims.insert(format!("permission{number:03}"), "orders:read".into());
        points.push((number as f64 + 1.0, keys.sign(&claims)?.len() as f64));
    }
    let grows = points.windows(2).all(|pair| pair[1].1 > pair[0].1);
    let (first, last) = (points[0].1, points[points.len() - 1].1);
    let each = (last - first) / (points.len() - 1) as f64;
    let fits = points.iter().take_while(|point| point.1 <= COOKIE_LIMIT as f64).count() + 1;
    findings.holds(
        "jwt.grows_with_claims",
        quote("Strategy 3: Token-Based Authentication (JWT)", "Token size grows with claims"),
        format!("{first:.0} bytes with 2 claims, {last:.0} with 129: {each:.1} bytes for each more"),
        points.len(),
        grows,
        &format!(
            "Every request carries all of it. In a cookie, which holds {COOKIE_LIMIT} bytes, {fits} \
             such claims fit."
        ),
    );
    findings.show(Lines {
        title: "Bytes of a token against its claims".into(),
        note:
            "Each claim is a name of 13 letters and a value of 11. A session id would be 64 bytes throughout."
                .into(),
        x: "claims".into(),
        y: "bytes".into(),
        series: vec![
            Series { name: "token".into(), points },
            Series { name: "what a cookie holds".into(), points: vec![(2.0, 4096.0), (129.0, 4096.0)] },
        ],
        marks: Vec::new(),
    });
    Ok(())
}

/// Shows the API tokens that it did not sign, and counts what it lets in.
async fn forge(browser: &mut Browser, tokens: &[String], findings: &mut Findings) -> Outcome<()> {
    let stranger = Keys::new(&token::random());
    let (mut shown, mut accepted, mut refused, mut genuine) = (0, 0, 0, 0);
    for (number, token) in tokens.iter().enumerate() {
        let another = &tokens[(number + 1) % tokens.len()];
        for forged in forgeries(token, another, &stranger)? {
            let answer = visit(browser, &forged).await;
            shown += 1;
            accepted += usize::from(answer.ok());
            refused += usize::from(answer.is(401) && answer.json() == json!({ "error": "Invalid token" }));
        }
        genuine += usize::from(visit(browser, token).await.ok());
    }
    findings.holds(
        "jwt.forged_tokens_are_refused",
        quote(
            "Strategy 3: Token-Based Authentication (JWT)",
            "Server can verify token wasn't tampered with!",
        ),
        format!(
            "{accepted} of {shown} forged tokens accepted, {refused} answered 401; {genuine} of {} \
             genuine ones accepted",
            tokens.len()
        ),
        shown,
        accepted == 0 && refused == shown && genuine == tokens.len(),
        "Role raised, another user's signature, another key, alg none with and without a signature, \
         another alg, signature cut: the server fixes the algorithm, so a token has no say in it.",
    );
    Ok(())
}

async fn visit(browser: &mut Browser, token: &str) -> crate::harness::Answer {
    browser.send(Method::GET, "/plain/dashboard", &[("authorization", &bearer(token))], Bytes::new()).await
}

/// The seven ways to make a token that is not ours out of one that is.
fn forgeries(token: &str, another: &str, stranger: &Keys) -> Outcome<[String; 7]> {
    let parts = |token: &str| -> Vec<String> { token.split('.').map(str::to_owned).collect() };
    let (mine, theirs) = (parts(token), parts(another));
    let mut payload = open(token, 1)?;
    payload["role"] = "admin".into();
    let admin = BASE64.encode(payload.to_string());
    let header = |alg: &str| BASE64.encode(json!({ "typ": "JWT", "alg": alg }).to_string());
    Ok([
        format!("{}.{admin}.{}", mine[0], mine[2]),
        format!("{}.{}.{}", mine[0], mine[1], theirs[2]),
        stranger.sign(&payload)?,
        format!("{}.{admin}.", header("none")),
        format!("{}.{}.{}", header("none"), mine[1], mine[2]),
        format!("{}.{}.{}", header("HS512"), mine[1], mine[2]),
        format!("{}.{}.{}", mine[0], mine[1], &mine[2][..mine[2].len() - 2]),
    ])
}
