//! A user's browser: one connection kept open, a cookie jar, an address of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, Response, header};
use cookie::Cookie;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use super::chapter::Outcome;

/// Longer than any answer of a chapter takes; a request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);
/// What browsers keep of a cookie's name and value together (RFC 6265bis section 5.6).
pub const COOKIE_LIMIT: usize = 4096;

/// Somebody who uses the shop.
pub struct Browser {
    at: SocketAddr,
    /// Sent as `X-Forwarded-For`, as the proxy in front of Pintle would.
    pub ip: Ipv4Addr,
    pub cookies: BTreeMap<String, String>,
    /// Cookies that were too large to keep.
    pub refused: Vec<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What came back. A request that failed on the way has no status.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: Option<u16>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

impl Answer {
    pub fn ok(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    pub fn is(&self, status: u16) -> bool {
        self.status == Some(status)
    }

    /// A failed request: lost on the way, or answered 5xx.
    pub fn failed(&self) -> bool {
        self.status.is_none_or(|status| status >= 500)
    }

    /// Which replica answered; "" where none did.
    pub fn replica(&self) -> &str {
        self.headers.get("x-replica").and_then(|name| name.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; `Null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn body<T: DeserializeOwned>(&self) -> Outcome<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Browser {
    pub fn new(at: SocketAddr, ip: Ipv4Addr) -> Self {
        Self { at, ip, cookies: BTreeMap::new(), refused: Vec::new(), connection: None }
    }

    /// The same person with an empty browser: another device, or a cleared one.
    pub fn forget(&mut self) {
        self.cookies.clear();
        self.connection = None;
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, body: &impl Serialize) -> Answer {
        let body = serde_json::to_vec(body).expect("plain values can be written as JSON");
        self.send(Method::POST, path, &[("content-type", "application/json")], body).await
    }

    /// Sends a request with the jar's cookies; nothing is ever sent twice.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let began = Instant::now();
        let exchange = tokio::time::timeout(LIMIT, self.exchange(method, path, headers, body.into()));
        let mut answer = match exchange.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => {
                self.connection = None;
                Answer::default()
            }
        };
        answer.took = began.elapsed();
        answer
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Outcome<Answer> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "shop.example");
        request = request.header("x-forwarded-for", self.ip.to_string());
        if !self.cookies.is_empty() {
            let cookies: Vec<_> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body))?;
        let response = self.connected().await?.send_request(request).await?;
        self.remember(&response);
        let (status, headers) = (Some(response.status().as_u16()), response.headers().clone());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, headers, body, took: Duration::ZERO })
    }

    /// The open connection, or a new one.
    async fn connected(&mut self) -> Outcome<&mut SendRequest<Full<Bytes>>> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.at).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        Ok(self.connection.as_mut().expect("it was just put there"))
    }

    /// Keeps and drops cookies as the answer asks.
    fn remember(&mut self, response: &Response<Incoming>) {
        for line in response.headers().get_all(header::SET_COOKIE) {
            let Some(cookie) = line.to_str().ok().and_then(|line| Cookie::parse(line).ok()) else { continue };
            let name = cookie.name().to_owned();
            if cookie.max_age().is_some_and(|age| !age.is_positive()) {
                self.cookies.remove(&name);
            } else if name.len() + cookie.value().len() > COOKIE_LIMIT {
                self.refused.push(name);
            } else {
                self.cookies.insert(name, cookie.value().to_owned());
            }
        }
    }
}
