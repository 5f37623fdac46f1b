//! Somebody who shops. Knows what was put in the cart, and notices when the shop does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::Strategy;
use super::database::{PASSWORD, PRODUCTS};
use super::sessions::{Cart, Line, cart_text};
use crate::harness::{Answer, Browser};

/// What a user sees of trouble behind the shop's door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// No answer, or 5xx.
    Failed,
    /// 401 though logged in.
    LoggedOut,
    /// The cart lacks what was put in.
    CartLacks,
}

/// One request of a user.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who answered; "" when nobody did.
    pub replica: String,
    pub notice: Option<Notice>,
    pub took: Duration,
}

pub struct Shopper {
    pub user: String,
    pub browser: Browser,
    strategy: Strategy,
    /// What a client with a token keeps in its memory.
    pub token: Option<String>,
    /// What was put in; where the client keeps the cart, this is the cart.
    pub cart: Cart,
    /// Dark mode and filters: with the client in every strategy, so no replica can lose them.
    pub preferences: Value,
    pub logged_in: bool,
    /// Whether the session was lost since somebody last asked: logged out, or a cart with less in it.
    pub lost: bool,
}

impl Shopper {
    /// `user{number}`, from an address of their own.
    pub fn new(at: SocketAddr, strategy: Strategy, number: usize) -> Self {
        let [.., high, low] = (number as u32).to_be_bytes();
        let preferences = json!({ "darkMode": number.is_multiple_of(2), "filters": ["shoes"] });
        Self {
            user: format!("user{number}"),
            browser: Browser::new(at, Ipv4Addr::new(10, 1, high, low)),
            strategy,
            token: None,
            cart: Cart::new(),
            preferences,
            logged_in: false,
            lost: false,
        }
    }

    /// Logs in, with an empty cart wherever the server keeps it.
    pub async fn log_in(&mut self) -> Visit {
        let answer = self.browser.post("/login", &json!({ "user": self.user, "password": PASSWORD })).await;
        self.logged_in = answer.ok();
        if self.logged_in {
            self.token = answer.json()["token"].as_str().map(str::to_owned);
            if !self.strategy.keeps_cart_with_client() {
                self.cart.clear();
            }
        }
        visit(&answer, None)
    }

    /// Puts one more thing into the cart.
    pub async fn add(&mut self) -> Visit {
        let product_id = self.cart.len() as u32 % PRODUCTS + 1;
        let line = Line { product_id, quantity: 1 };
        if self.strategy.keeps_cart_with_client() {
            self.cart.push(line);
            return self.look().await;
        }
        let path = format!("/cart/{product_id}?quantity=1");
        let answer = self.send(Method::PUT, &path, &Value::Null).await;
        if answer.ok() {
            self.cart.push(line);
        }
        visit(&answer, self.lacks(&answer.json()))
    }

    /// Looks at the cart; where the client keeps it, asks what it costs.
    pub async fn look(&mut self) -> Visit {
        let path = if self.strategy.keeps_cart_with_client() {
            format!("/api/quote?cart={}", cart_text(&self.cart))
        } else {
            "/cart".into()
        };
        let answer = self.send(Method::GET, &path, &Value::Null).await;
        let shown = answer.json();
        let shown = shown.get("cart").unwrap_or(&shown);
        visit(&answer, self.lacks(shown))
    }

    /// Buys what is in the cart.
    pub async fn check_out(&mut self) -> Visit {
        let cart = self.strategy.keeps_cart_with_client().then_some(&self.cart);
        let answer = self.send(Method::POST, "/api/checkout", &json!({ "cart": cart })).await;
        if answer.ok() {
            self.cart.clear();
        }
        visit(&answer, None)
    }

    pub async fn log_out(&mut self) -> Visit {
        let answer = self.send(Method::POST, "/logout", &Value::Null).await;
        (self.token, self.logged_in) = (None, false);
        visit(&answer, None)
    }

    pub async fn send(&mut self, method: Method, path: &str, body: &Value) -> Answer {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.browser.send(method, path, &headers, body).await
    }

    fn lacks(&self, shown: &Value) -> Option<Notice> {
        let shown: Cart = serde_json::from_value(shown.clone()).unwrap_or_default();
        let same = self.cart.iter().all(|line| shown.contains(line));
        (!same).then_some(Notice::CartLacks)
    }
}

fn visit(answer: &Answer, lacks: Option<Notice>) -> Visit {
    let notice = match answer.status {
        _ if answer.failed() => Some(Notice::Failed),
        Some(401) => Some(Notice::LoggedOut),
        _ => lacks,
    };
    Visit { replica: answer.replica().to_owned(), notice, took: answer.took }
}
