//! Client-side state (strategy 1 of making services stateless): the client keeps everything, and
//! sends it along. What can a client do with that, and what happens to what only it has?
//!
//! Start at [`run`]. The shop's side is `shop/signed.rs`, forged cookies and tokens are in
//! [`forgery`], and [`cookie_shop`] is a shop that keeps the whole cart in a cookie.

mod forgery;

use axum::extract::Path;
use axum::http::{HeaderMap, Method, header};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cookie::Cookie;
use serde_json::{Value, json};

use crate::harness::browser::COOKIE_LIMIT;
use crate::harness::figures::{bytes, share};
use crate::harness::http::Http;
use crate::harness::{Browser, Chapter, Findings, Outcome, Replica, Setup, Stage, Table, Text, child, quote};
use crate::shop::crowd::Crowd;
use crate::shop::database::OrderLine;
use crate::shop::{Capacity, Cart, Line, Order, Shopper, Stand, Strategy};

pub const CHAPTER: Chapter = Chapter {
    name: "client",
    title: "Client-side state: the client keeps everything",
    about: "The cart stays in the browser and is sent to the checkout; who it is comes in a signed cookie. \
            Clients forge all of it, two of three replicas die, and somebody clears the browser.",
    guess: "The cart is sent by the client. Can a client buy a book for one cent?",
    roles: &[("cookie_shop", |setup| Box::pin(cookie_shop(setup)))],
    run: |stage| Box::pin(run(stage)),
};

/// Anybody may serve anybody.
pub const TOML: &str = r#"
[pool.app]
policy = "round_robin"
backends = BACKENDS
[pool.app.health]
path = "/healthz"
interval = "100ms"
fall = 2
"#;

pub const HEADING: &str = "Making Services Stateless / Strategy 1: Client-Side State";

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let order = Order { capacity: Capacity::UNLIMITED, ..Order::new(Strategy::Client) };
    let mut stand = Stand::open(stage, order, 3, TOML).await?;
    stage.say("clients send carts with prices of their own");
    check_out(stage, &mut findings, &stand).await?;
    stage.say("clients forge cookies, tokens and carts");
    forgery::run(stage, &mut findings, &stand).await?;
    stage.say("a second device, a cleared browser, and two replicas that are killed");
    devices(stage, &mut findings, &stand).await?;
    killed(stage, &mut findings, &mut stand).await?;
    stand.close().await;
    stage.say("a cart in a cookie, until the cookie is full");
    full_cookie(&mut findings).await?;
    findings.untested(
        "client.local_storage",
        quote(HEADING, "localStorage: 5-10MB"),
        "The users of this example are no real browsers, and have no storage with a limit to reach.",
    );
    Ok(findings)
}

/// The cart is the client's to send. The prices in it are read by nobody.
async fn check_out(stage: &Stage, findings: &mut Findings, stand: &Stand) -> Outcome<()> {
    let (http, mut chance) = (Http::default(), stage.chance("carts"));
    let (mut orders, mut right, mut asked, mut paid) = (0, 0, 0, 0);
    let mut shown = Text {
        title: "A checkout with the client's own prices".into(),
        note: "The server reads products and quantities, and takes prices from its database.".into(),
        text: String::new(),
    };
    for number in 0..stage.pick(20, 60, 200) {
        let mut shopper = Shopper::new(stand.balancer.address, Strategy::Client, number);
        shopper.log_in().await;
        let product = chance.u32(1..=50);
        let cart: Cart = vec![Line { product_id: product, quantity: chance.u32(1..=3) }];
        let line = json!({ "productId": product, "quantity": cart[0].quantity, "priceCents": 1 });
        let sent = json!({ "cart": [line], "totalCents": 1 });
        let answer = shopper.send(Method::POST, "/api/checkout", &sent).await;
        if shown.text.is_empty() {
            shown.text = format!("POST /api/checkout\n{sent}\n\n{}", answer.json());
        }
        let price = http.post(stand.database.address, "/price", &cart).await?.as_u64();
        let written = http.get(stand.database.address, &format!("/orders?user={}", shopper.user)).await?;
        for order in serde_json::from_value::<Vec<OrderLine>>(written)? {
            orders += 1;
            asked += 1;
            paid += order.total_cents;
            right += usize::from(Some(order.total_cents) == price && order.cart == cart);
        }
    }
    findings.show(shown);
    findings.holds(
        "client.prices",
        quote(HEADING, "Client sends cart with every request"),
        format!(
            "{} orders were written at the shop's prices: {:.2} instead of the {:.2} that clients asked for",
            share(right, orders),
            paid as f64 / 100.0,
            f64::from(asked) / 100.0
        ),
        orders,
        orders > 0 && right == orders,
        "What the cart says of prices is not even read; the server looks them up when it sells.",
    );
    Ok(())
}

/// What a second device sees, and a browser that was cleared.
async fn devices(stage: &Stage, findings: &mut Findings, stand: &Stand) -> Outcome<()> {
    let users = stage.pick(20, 50, 200);
    let mut crowd = Crowd::new(stand.balancer.address, Strategy::Client, users, stage.chance("devices"));
    crowd.arrive().await?;
    let (mut first, mut second, mut strangers, mut empty) = (0, 0, 0, 0);
    for (number, shopper) in crowd.shoppers.iter_mut().enumerate() {
        first += usize::from(shopper.look().await.notice.is_none() && !shopper.cart.is_empty());
        // The same user elsewhere: all that the shop can show is what the shop has.
        let mut elsewhere = Shopper::new(stand.balancer.address, Strategy::Client, number);
        elsewhere.log_in().await;
        second += usize::from(cart_of_the_shop(&mut elsewhere.browser).await == Some(Cart::new()));
        shopper.browser.forget();
        strangers += usize::from(shopper.browser.get("/dashboard").await.is(401));
        shopper.log_in().await;
        empty += usize::from(cart_of_the_shop(&mut shopper.browser).await == Some(Cart::new()));
    }
    drop(crowd);
    findings.holds(
        "client.devices",
        quote(HEADING, "Can't share across devices"),
        format!(
            "{} saw an empty cart on a second device, with a full one on the first",
            share(second, first)
        ),
        users,
        first == users && second == users,
        "The cart is where it was filled. To follow its user it has to be kept under the user's name, in a \
         store or a database.",
    );
    findings.holds(
        "client.cleared",
        quote(HEADING, "Lost if user clears browser data"),
        format!("{} had to log in again, and {} then found no cart", share(strangers, users), empty),
        users,
        strangers == users && empty == users,
        "Nobody else has a copy.",
    );
    Ok(())
}

/// What the shop itself knows of somebody's cart.
async fn cart_of_the_shop(browser: &mut Browser) -> Option<Cart> {
    browser.get("/cart").await.body().ok()
}

/// Two of three replicas are killed, one after another.
async fn killed(stage: &Stage, findings: &mut Findings, stand: &mut Stand) -> Outcome<()> {
    let users = stage.pick(30, 100, 300);
    let mut crowd = Crowd::new(stand.balancer.address, Strategy::Client, users, stage.chance("killed"));
    crowd.arrive().await?;
    let held: u64 = stand.counts().await?.iter().filter_map(|counts| counts["sessions"].as_u64()).sum();
    let mut lost = 0;
    for victim in &mut stand.replicas[..2] {
        victim.kill();
        stand.balancer.wait_for(&victim.name, "down").await?;
        lost += crowd.census().await?.iter().filter(|sighting| !sighting.kept).count();
    }
    drop(crowd);
    findings.holds(
        "client.stateless",
        quote(HEADING, "Server is perfectly stateless"),
        format!(
            "{held} sessions held for {users} users; {} lost something when two of three replicas were killed",
            share(lost, 2 * users)
        ),
        2 * users,
        held == 0 && lost == 0,
        "What a replica does not have it cannot lose.",
    );
    findings.concept(
        4,
        format!(
            "With the client keeping all of it, replicas held {held} sessions for {users} users, and \
             {lost} were lost with two of three replicas."
        ),
    );
    Ok(())
}

/// A shop that keeps the cart in a cookie: all of it goes back and forth with every request.
async fn cookie_shop(setup: Setup) -> Outcome<()> {
    let show = async |headers: HeaderMap| Json(cart_in_cookie(&headers));
    let add = async |headers: HeaderMap, Path(product_id): Path<u32>| {
        let mut cart = cart_in_cookie(&headers);
        cart.push(Line { product_id, quantity: 1 });
        let text = serde_json::to_vec(&cart).expect("plain values can be written as JSON");
        let cookie = format!("cart={}; Path=/; HttpOnly; SameSite=Lax", BASE64.encode(text));
        ([(header::SET_COOKIE, cookie)], Json(cart)).into_response()
    };
    child::serve(setup, Router::new().route("/cart", get(show)).route("/cart/{product}", put(add))).await
}

fn cart_in_cookie(headers: &HeaderMap) -> Cart {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
    let cart = cookies.find(|cookie| cookie.name() == "cart");
    let text = cart.and_then(|cart| BASE64.decode(cart.value()).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Somebody puts thing after thing into the cart.
async fn full_cookie(findings: &mut Findings) -> Outcome<()> {
    /// More than fit into a cookie.
    const THINGS: u32 = 120;
    let replica = Replica::start("cookie_shop", "cookies", ()).await?;
    let mut browser = Browser::new(replica.address, [10, 1, 0, 0].into());
    let (mut accepted, mut largest, mut rows) = (0, 0, Vec::new());
    for thing in 1..=THINGS {
        let refused = browser.refused.len();
        let answer = browser.send(Method::PUT, &format!("/cart/{thing}"), &[], "").await;
        accepted += usize::from(answer.ok());
        let shown: Cart = browser.get("/cart").await.body()?;
        let size = browser.cookies.get("cart").map_or(0, |value| "cart".len() + value.len());
        largest = largest.max(size);
        let first_refused = refused == 0 && !browser.refused.is_empty();
        if thing % 30 == 0 || first_refused {
            let kept = if browser.refused.len() > refused { "refused" } else { "kept" };
            rows.push(vec![
                thing.to_string(),
                answer.status.map_or("none".into(), |status| status.to_string()),
                kept.into(),
                bytes(size as f64),
                shown.len().to_string(),
            ]);
        }
    }
    let kept: Cart = browser.get("/cart").await.body()?;
    let refused = browser.refused.len();
    findings.show(Table {
        title: "A cart in a cookie".into(),
        note: "The shop answers 200 each time; what is refused is not told to anybody.".into(),
        columns: ["things put in", "the answer", "its cookie is", "the cookie's size", "the next page shows"]
            .map(String::from)
            .into(),
        rows,
    });
    findings.holds(
        "client.cookie_limit",
        quote(HEADING, "Limited storage (cookies: 4KB, localStorage: 5-10MB)"),
        format!(
            "{accepted} of {THINGS} things were answered 200; the cart shows {}, its cookie stopped at {}",
            kept.len(),
            bytes(largest as f64)
        ),
        THINGS as usize,
        refused > 0 && largest <= COOKIE_LIMIT && kept.len() + refused == THINGS as usize,
        "A browser that is given more than 4,096 bytes keeps the old cookie and says nothing: the shop \
         believes that all is well, and the user sees things vanish.",
    );
    Ok(())
}

/// A claim's answer that is JSON, as a client reads it.
pub fn payload(text: &str) -> Value {
    BASE64.decode(text).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or(Value::Null)
}
