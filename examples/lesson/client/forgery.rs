//! What somebody can forge who has all of it in their own browser: the signed cookie, the token, the
//! cart. Start at [`run`].

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::{HEADING, TOML, payload};
use crate::harness::figures::share;
use crate::harness::{Answer, Findings, Outcome, Stage, Table, Text, quote};
use crate::shop::{Capacity, Order, Shopper, Stand, Strategy};

/// A way to cheat, how often it was tried and how often it worked.
struct Cheat {
    name: &'static str,
    tried: usize,
    accepted: usize,
}

pub async fn run(stage: &Stage, findings: &mut Findings, stand: &Stand) -> Outcome<()> {
    let mut cheats = forge_identity(stand).await?;
    let cookies: usize = cheats.iter().map(|cheat| cheat.tried).sum();
    let worked: usize = cheats.iter().map(|cheat| cheat.accepted).sum();
    let carts = forge_carts(stand).await?;
    let bought = carts.accepted;
    let tried = cookies + carts.tried;
    cheats.push(carts);
    findings.holds(
        "client.tampered",
        quote(HEADING, "Security concerns (client can tamper)"),
        format!("{} forged cookies and impossible carts were accepted", share(worked + bought, tried)),
        tried,
        worked + bought == 0,
        "The concern is right, and this is the answer to it: identity is signed, and a cart is checked \
         against the shop's products. What is neither signed nor checked must not be believed.",
    );

    let order = Order { capacity: Capacity::UNLIMITED, ..Order::new(Strategy::Token) };
    let stand = Stand::open(stage, order, 2, TOML).await?;
    let tokens = forge_identity(&stand).await?;
    stand.close().await;
    let (tried, worked) =
        tokens.iter().fold((0, 0), |(tried, worked), cheat| (tried + cheat.tried, worked + cheat.accepted));
    cheats.extend(tokens);
    findings.holds(
        "client.forged_tokens",
        quote(
            "Making Services Stateless / Strategy 3: Token-Based Authentication (JWT)",
            "Server can verify token wasn't tampered with!",
        ),
        format!("{} forged tokens were accepted", share(worked, tried)),
        tried,
        worked == 0,
        "Whoever verifies chooses the algorithm; a token that asks for none is refused as any other forgery.",
    );
    show(findings, cheats);
    Ok(())
}

/// Two users log in; one of them forges. Whatever is right must be accepted, or nothing was tested.
async fn forge_identity(stand: &Stand) -> Outcome<Vec<Cheat>> {
    let [mut forger, mut other] =
        [1, 2].map(|number| Shopper::new(stand.balancer.address, stand.order.strategy, number));
    forger.log_in().await;
    other.log_in().await;
    let (own, others) = (identity(&forger)?, identity(&other)?);
    let is_token = forger.token.is_some();
    let names = if is_token {
        ["a character of a token", "a token without signature", "another's signature", "a role of one's own"]
    } else {
        [
            "a character of a cookie",
            "a cookie without signature",
            "another's signature",
            "a role of one's own",
        ]
    };
    let mut forged = vec![
        (names[0], each_character(&own)),
        (names[1], unsigned(&own)),
        (names[2], vec![with_signature_of(&own, &others), with_signature_of(&others, &own)]),
        (names[3], vec![promoted(&own)]),
    ];
    if is_token {
        forged.push(("a token with \"alg\": \"none\"", without_algorithm(&own)));
    }
    let mut cheats = Vec::new();
    for (name, values) in forged {
        let mut accepted = 0;
        for value in &values {
            accepted += usize::from(!present(&mut forger, value).await.is(401));
        }
        cheats.push(Cheat { name, tried: values.len(), accepted });
    }
    if !present(&mut forger, &own).await.ok() {
        return Err("what was not forged was refused too".into());
    }
    Ok(cheats)
}

/// What the client was given at log-in.
fn identity(shopper: &Shopper) -> Outcome<String> {
    let given = shopper.token.as_ref().or_else(|| shopper.browser.cookies.get("identity"));
    given.cloned().ok_or_else(|| "the shop gave no identity at log-in".into())
}

async fn present(shopper: &mut Shopper, value: &str) -> Answer {
    match &mut shopper.token {
        Some(token) => value.clone_into(token),
        None => drop(shopper.browser.cookies.insert("identity".into(), value.into())),
    }
    shopper.send(Method::GET, "/dashboard", &Value::Null).await
}

/// Each character replaced by its neighbour in the alphabet: of payload, signature and header.
fn each_character(value: &str) -> Vec<String> {
    let changed = |at: usize| {
        let mut bytes = value.as_bytes().to_vec();
        bytes[at] = match bytes[at] {
            b'.' => b'-',
            b'z' | b'Z' | b'9' | b'-' | b'_' => b'A',
            other => other + 1,
        };
        String::from_utf8(bytes).expect("it is ASCII")
    };
    (0..value.len()).map(changed).collect()
}

fn unsigned(value: &str) -> Vec<String> {
    let (signed, _) = parts(value);
    vec![format!("{signed}."), signed.into(), String::new(), ".".into()]
}

/// What is signed, and the signature.
fn parts(value: &str) -> (&str, &str) {
    value.rsplit_once('.').expect("it was signed")
}

fn with_signature_of(value: &str, other: &str) -> String {
    format!("{}.{}", parts(value).0, parts(other).1)
}

/// An admin by one's own word.
fn promoted(value: &str) -> String {
    let (signed, signature) = parts(value);
    let (before, text) = signed.rsplit_once('.').map_or(("", signed), |(header, text)| (header, text));
    let mut claims = payload(text);
    claims["role"] = json!("admin");
    let dot = if before.is_empty() { "" } else { "." };
    format!("{before}{dot}{}.{signature}", BASE64.encode(claims.to_string()))
}

/// RFC 8725 section 3.1 tells of verifiers that believed the token's own `alg`.
fn without_algorithm(token: &str) -> Vec<String> {
    let (signed, signature) = parts(token);
    let claims = signed.rsplit_once('.').map_or("", |(_, claims)| claims);
    let of = |algorithm: &str| {
        let header = BASE64.encode(json!({ "alg": algorithm, "typ": "JWT" }).to_string());
        [format!("{header}.{claims}."), format!("{header}.{claims}.{signature}")]
    };
    ["none", "None", "NONE"].iter().flat_map(|algorithm| of(algorithm)).collect()
}

/// Carts of things that are not sold, or not in such numbers.
async fn forge_carts(stand: &Stand) -> Outcome<Cheat> {
    let mut forger = Shopper::new(stand.balancer.address, Strategy::Client, 1);
    forger.log_in().await;
    let line = |product: Value, quantity: Value| json!([{ "productId": product, "quantity": quantity }]);
    let carts = [
        line(json!(0), json!(1)),
        line(json!(51), json!(1)),
        line(json!(-1), json!(1)),
        line(json!("1 or 1=1"), json!(1)),
        line(json!(1), json!(-1)),
        line(json!(1), json!(0.01)),
        line(json!(1), json!("2")),
        line(json!(1), json!(u64::MAX)),
        json!([{ "productId": 1 }]),
        json!("everything"),
    ];
    let mut accepted = 0;
    for cart in &carts {
        let answer = forger.send(Method::POST, "/api/checkout", &json!({ "cart": cart })).await;
        accepted += usize::from(!matches!(answer.status, Some(400..500)));
    }
    let fair = line(json!(1), json!(1));
    if !forger.send(Method::POST, "/api/checkout", &json!({ "cart": fair })).await.ok() {
        return Err("a fair cart was refused too".into());
    }
    Ok(Cheat { name: "a cart of what is not sold", tried: carts.len(), accepted })
}

fn show(findings: &mut Findings, cheats: Vec<Cheat>) {
    let row = |cheat: Cheat| vec![cheat.name.into(), cheat.tried.to_string(), cheat.accepted.to_string()];
    findings.show(Table {
        title: "Forged by the client".into(),
        note: "Each forgery was sent to the shop as its owner would send it; none may be accepted.".into(),
        columns: ["what was forged", "tried", "accepted"].map(String::from).into(),
        rows: cheats.into_iter().map(row).collect(),
    });
    findings.show(Text {
        title: "What is signed".into(),
        note: "The payload can be read by anybody, and written by nobody who lacks the shop's key.".into(),
        text: "identity = base64({\"user\":\"user1\",\"role\":\"customer\"}) . base64(HMAC-SHA256 of it)"
            .into(),
    });
}
