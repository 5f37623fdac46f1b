//! What the shop says to a request: a page to a browser, one line to curl.
//!
//! Start at [`answer`]. What it knows is `memory`'s.

use std::cell::Cell;

use aws_lc_rs::rand;
use bytes::Bytes;
use cookie::{Cookie, SameSite};
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use super::memory::{MAX_CART, MAX_NAME, Refused, Shop, Visitor};
use super::serve::After;
use super::{echo, page};

/// The shop's own session, which has nothing to do with a balancer's cookie.
pub(super) const COOKIE_NAME: &str = "shop_session";
/// Bytes of a form.
pub(super) const MAX_BODY: usize = 16 * 1024;

type Answer = Response<Full<Bytes>>;

/// One visit: who comes, and how an answer should look.
struct Visit<'s> {
    shop: &'s Shop,
    id: Option<String>,
    browser: bool,
}

/// Answers one request; `after` says how the connection goes on.
pub(super) async fn answer(shop: &Shop, after: &Cell<After>, mut request: Request<Incoming>) -> Answer {
    let visit = Visit { shop, id: session_id(request.headers()), browser: accepts_html(request.headers()) };
    let name = shop.name();
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let path = request.uri().path().to_owned();
    match (method.as_str(), path.as_str()) {
        ("GET", "/") => visit.home(),
        ("GET", "/cart") => visit.cart(),
        ("POST", "/cart") => match form(request, "item").await {
            Ok(item) => visit.add(item),
            Err(refusal) => visit.refuse(StatusCode::BAD_REQUEST, &refusal),
        },
        ("POST", "/login") => match form(request, "user").await {
            Ok(user) => visit.log_in(user),
            Err(refusal) => visit.refuse(StatusCode::BAD_REQUEST, &refusal),
        },
        ("POST", "/logout") => visit.log_out(),
        ("GET", "/ws") => match echo::handshake(request.headers()) {
            Ok(headers) => {
                after.set(After::Echo(hyper::upgrade::on(&mut request)));
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                answer.headers_mut().extend(headers);
                answer
            }
            Err(problem) => line(StatusCode::BAD_REQUEST, problem),
        },
        ("GET", "/healthz") if shop.is_well() => line(StatusCode::OK, "ok"),
        ("GET", "/healthz") => {
            line(StatusCode::SERVICE_UNAVAILABLE, &format!("{name} wants no new visitors"))
        }
        ("POST", "/admin/fail" | "/admin/heal" | "/admin/crash") if !is_direct(request.headers()) => {
            line(StatusCode::FORBIDDEN, "only by curl, at the backend's own address")
        }
        ("POST", "/admin/fail") => {
            shop.set_well(false);
            line(StatusCode::OK, &format!("{name} answers its probe with 503"))
        }
        ("POST", "/admin/heal") => {
            shop.set_well(true);
            line(StatusCode::OK, &format!("{name} answers its probe with 200"))
        }
        ("POST", "/admin/crash") => {
            // The answer is the connection's last, so that it arrives before the crash.
            after.set(After::Crash);
            let answer = line(StatusCode::OK, &format!("{name} crashes: its sessions are gone"));
            with(answer, CONNECTION, "close")
        }
        (_, path) => elsewhere(name, path),
    }
}

impl Visit<'_> {
    fn visitor(&self) -> Visitor {
        self.shop.visitor(self.id.as_deref())
    }

    fn home(&self) -> Answer {
        self.shop.count_hit();
        if self.browser {
            return self.page(StatusCode::OK, "");
        }
        let who = match self.visitor() {
            Visitor::Known { user, cart } => cart_of(&user, &cart),
            Visitor::Stranger => "your session is unknown here".to_owned(),
            Visitor::Nobody => "not logged in".to_owned(),
        };
        line(
            StatusCode::OK,
            &format!("{} served you: hit {} here, {who}", self.shop.name(), self.shop.hits()),
        )
    }

    fn cart(&self) -> Answer {
        match self.visitor() {
            Visitor::Known { user, cart } => {
                line(StatusCode::OK, &format!("{}: {}", self.shop.name(), cart_of(&user, &cart)))
            }
            Visitor::Stranger | Visitor::Nobody => self.not_logged_in(),
        }
    }

    fn add(&self, item: String) -> Answer {
        match self.shop.add(self.id.as_deref(), item) {
            Ok(()) if self.browser => see_home(),
            Ok(()) => self.cart(),
            Err(Refused::NotLoggedIn) => self.not_logged_in(),
            Err(Refused::CartFull) => {
                self.refuse(StatusCode::CONFLICT, &format!("The cart is full: {MAX_CART} things"))
            }
        }
    }

    /// Every log-in has a new id, so that one planted beforehand is worth nothing.
    fn log_in(&self, user: String) -> Answer {
        let mut random = [0; 16];
        if rand::fill(&mut random).is_err() {
            return self.refuse(StatusCode::INTERNAL_SERVER_ERROR, "No randomness for a session");
        }
        if let Some(old) = &self.id {
            self.shop.log_out(old);
        }
        let id = format!("{:032x}", u128::from_be_bytes(random));
        let answer = if self.browser {
            see_home()
        } else {
            line(StatusCode::OK, &format!("{} welcomes {user}", self.shop.name()))
        };
        self.shop.log_in(id.clone(), user);
        with_cookie(answer, session_cookie(id))
    }

    fn log_out(&self) -> Answer {
        let Some(user) = self.id.as_deref().and_then(|id| self.shop.log_out(id)) else {
            return self.not_logged_in();
        };
        let answer = if self.browser {
            see_home()
        } else {
            line(StatusCode::OK, &format!("{} says goodbye to {user}", self.shop.name()))
        };
        let mut cookie = session_cookie(String::new());
        cookie.make_removal();
        with_cookie(answer, cookie)
    }

    fn not_logged_in(&self) -> Answer {
        let name = self.shop.name();
        let why = match self.visitor() {
            Visitor::Stranger => {
                format!("Not logged in at {name}: your session is in another backend's memory")
            }
            _ => format!("Not logged in at {name}"),
        };
        self.refuse(StatusCode::UNAUTHORIZED, &why)
    }

    fn refuse(&self, status: StatusCode, why: &str) -> Answer {
        if self.browser { self.page(status, why) } else { line(status, why) }
    }

    fn page(&self, status: StatusCode, notice: &str) -> Answer {
        let page = page::render(self.shop.name(), self.shop.hits(), &self.visitor(), notice);
        whole(status, "text/html; charset=utf-8", page)
    }
}

fn cart_of(user: &str, cart: &[String]) -> String {
    if cart.is_empty() {
        format!("{user}'s cart is empty")
    } else {
        format!("{user}'s cart: {}", cart.join(", "))
    }
}

fn line(status: StatusCode, text: &str) -> Answer {
    whole(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn whole(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    with(with(answer, CONTENT_TYPE, content_type), CACHE_CONTROL, "no-store")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

/// After a form a browser loads the page again, by whichever backend is next.
fn see_home() -> Answer {
    with(line(StatusCode::SEE_OTHER, "see /"), LOCATION, "/")
}

fn session_cookie(id: String) -> Cookie<'static> {
    Cookie::build((COOKIE_NAME, id)).path("/").http_only(true).same_site(SameSite::Lax).build()
}

fn with_cookie(mut answer: Answer, cookie: Cookie<'_>) -> Answer {
    let value = HeaderValue::try_from(cookie.to_string()).expect("hex digits and fixed words");
    answer.headers_mut().append(SET_COOKIE, value);
    answer
}

fn session_id(headers: &HeaderMap) -> Option<String> {
    let lists = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = lists.flat_map(Cookie::split_parse).flatten();
    cookies.find(|cookie| cookie.name() == COOKIE_NAME).map(|cookie| cookie.value().to_owned())
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// Neither through a proxy nor from a page: a visitor of the shop must not crash it.
fn is_direct(headers: &HeaderMap) -> bool {
    !headers.contains_key("x-forwarded-for")
        && !headers.contains_key("forwarded")
        && !headers.contains_key(ORIGIN)
}

fn elsewhere(name: &str, path: &str) -> Answer {
    let allow = match path {
        "/" | "/ws" | "/healthz" => "GET, HEAD",
        "/cart" => "GET, HEAD, POST",
        "/login" | "/logout" | "/admin/fail" | "/admin/heal" | "/admin/crash" => "POST",
        _ => return line(StatusCode::NOT_FOUND, &format!("{name} has no {path}")),
    };
    with(line(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} takes {allow}")), ALLOW, allow)
}

/// One field of a form, in the body as browsers and `curl -d` send it, or in the query.
async fn form(request: Request<Incoming>, field: &str) -> Result<String, String> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|_| format!("A form may have {MAX_BODY} bytes"))?.to_bytes();
    let text = if body.is_empty() { query.as_bytes() } else { &body };
    let value = text.split(|byte| *byte == b'&').find_map(|pair| {
        let value = pair.strip_prefix(field.as_bytes())?.strip_prefix(b"=")?;
        crate::admin::api::decode(&String::from_utf8_lossy(value).replace('+', " "))
    });
    let value = value.unwrap_or_default().trim().to_owned();
    if value.is_empty() || value.chars().count() > MAX_NAME || value.chars().any(char::is_control) {
        return Err(format!("Send `{field}=…`, 1 to {MAX_NAME} characters"));
    }
    Ok(value)
}
