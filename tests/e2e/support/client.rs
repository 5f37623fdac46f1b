//! A keep-alive HTTP/1.1 client with a cookie jar, on one connection at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::message::Response;
use super::wire::Wire;

pub struct Client {
    address: SocketAddr,
    source: Option<IpAddr>,
    /// What the next request goes by; opened when there is none.
    pub wire: Option<Wire>,
    /// Sent with every request, kept from every response.
    pub cookies: BTreeMap<String, String>,
}

/// A request to send.
#[derive(Clone)]
pub struct Ask {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), fields: Vec::new(), body: None }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::with("POST", target, body)
    }

    pub fn put(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::with("PUT", target, body)
    }

    /// With a body, whatever the method.
    pub fn with(method: &str, target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..Self::new(method, target) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub fn method(&self) -> &str {
        &self.method
    }

    /// As it goes out; `Host` is `shop.example` where the request names none.
    pub fn bytes(&self, cookies: &BTreeMap<String, String>) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += "Host: shop.example\r\n";
        }
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        if !cookies.is_empty() {
            let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            head += &format!("Cookie: {}\r\n", pairs.join("; "));
        }
        if let Some(body) = &self.body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        [head.as_bytes(), self.body.as_deref().unwrap_or_default()].concat()
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, source: None, wire: None, cookies: BTreeMap::new() }
    }

    /// A client at another address of this machine, such as 127.0.0.2.
    pub fn from(source: &str, address: SocketAddr) -> Self {
        Self { source: Some(source.parse().unwrap()), ..Self::new(address) }
    }

    pub async fn get(&mut self, target: &str) -> Response {
        self.ask(Ask::get(target)).await
    }

    /// A GET to another `Host`.
    pub async fn get_at(&mut self, host: &str, target: &str) -> Response {
        self.ask(Ask::get(target).header("Host", host)).await
    }

    pub async fn post(&mut self, target: &str, body: impl Into<Vec<u8>>) -> Response {
        self.ask(Ask::post(target, body)).await
    }

    /// One exchange, on the connection of the last one if it is still open.
    pub async fn ask(&mut self, ask: Ask) -> Response {
        self.try_ask(&ask).await.unwrap_or_else(|| panic!("no response to {} {}", ask.method, ask.target))
    }

    /// As [`Client::ask`]; `None` when the connection ends without a response.
    pub async fn try_ask(&mut self, ask: &Ask) -> Option<Response> {
        self.send(ask).await;
        self.read(&ask.method).await
    }

    /// Sends and does not wait.
    pub async fn send(&mut self, ask: &Ask) {
        let bytes = ask.bytes(&self.cookies);
        self.wire().await.send(bytes).await;
    }

    /// The response to what was sent.
    pub async fn read(&mut self, method: &str) -> Option<Response> {
        let response = self.wire().await.response(method).await;
        if response.as_ref().is_none_or(closes) {
            self.wire = None;
        }
        for cookie in response.iter().flat_map(|response| response.fields.all("set-cookie")) {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.trim().into(), value.trim().into());
            }
        }
        response
    }

    /// The connection, open.
    pub async fn wire(&mut self) -> &mut Wire {
        if self.wire.is_none() {
            self.wire = Some(Wire::open_from(self.source, self.address).await);
        }
        self.wire.as_mut().expect("opened just now")
    }

    /// The next request takes a fresh connection.
    pub fn hang_up(&mut self) {
        self.wire = None;
    }
}

fn closes(response: &Response) -> bool {
    response.fields.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"))
        || response.head.starts_with(b"HTTP/1.0")
        || !response.whole
}
