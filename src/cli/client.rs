//! The admin API from outside: JSON over a unix socket or TCP, each call on a connection of its
//! own and no longer than [`REPLY`], unless the order may take longer.
//!
//! Start at [`Client::find`]. Which addresses there are to try is `discover`'s business.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::discover::{self, Address};
use super::outcome::{Exit, Failure};
use crate::admin::{places, view::Fault};

/// How long an address may take to show that a Pintle answers there.
const GREETING: Duration = Duration::from_secs(2);
/// How long an answer may take; a reload reads files and binds addresses.
const REPLY: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 << 20;

/// A running Pintle, as its command line sees it.
pub struct Client {
    address: Address,
    token: Option<String>,
}

impl Client {
    /// The Pintle that was asked for, or the first that answers where one is usually found.
    pub async fn find(asked: Option<&str>) -> Result<Self, Failure> {
        let token = std::env::var("PINTLE_ADMIN_TOKEN").ok().filter(|token| !token.is_empty());
        let mut tried = Vec::new();
        for address in discover::admin(asked)? {
            let client = Self { address, token: None };
            match client.greet(asked.is_none()).await {
                Ok(()) => return Ok(Self { token, ..client }),
                Err(why) => tried.push(format!("  {}: {why}", client.address)),
            }
        }
        Err(Failure::new(
            Exit::Unreachable,
            format!("no running Pintle answers; tried\n{}", tried.join("\n")),
        )
        .help("start one with `pintle serve`, or say where it is with `--admin ADDR|PATH`"))
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::POST, path, json(order)?).await
    }

    /// As [`Client::post`], for what may take longer.
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl Serialize,
        limit: Duration,
    ) -> Result<T, Failure> {
        self.call_within(Method::POST, path, json(order)?, limit).await
    }

    pub async fn patch<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::PATCH, path, json(order)?).await
    }

    /// Whether a Pintle answers here. A conventional place is trusted only when nobody else could
    /// have put a socket there; one that was named is the caller's choice.
    async fn greet(&self, conventional: bool) -> Result<(), String> {
        if let (Address::Socket(path), true) = (&self.address, conventional) {
            places::verify(path).map_err(|error| error.to_string())?;
        }
        match self.exchange(Method::GET, "/livez", Bytes::new(), GREETING).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, _) => Err(format!("answers {status}, which no Pintle does")),
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        self.call_within(method, path, body, REPLY).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, Failure> {
        let unreachable = |why| {
            Failure::new(Exit::Unreachable, format!("the Pintle at {} does not answer: {why}", self.address))
        };
        let (status, body) = self.exchange(method, path, body, limit).await.map_err(unreachable)?;
        understand(status, &body).map_err(|failure| self.explain(status, failure))
    }

    /// A refused credential is about the way in, which only this side knows.
    fn explain(&self, status: StatusCode, failure: Failure) -> Failure {
        let denied = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        match self.address {
            Address::Tcp(_) if denied && failure.help.is_none() => failure.help(
                "over TCP a change needs `PINTLE_ADMIN_TOKEN`; over the admin socket it needs no token",
            ),
            _ => failure,
        }
    }

    /// One request and its whole answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let host = match &self.address {
            Address::Socket(_) => "localhost",
            Address::Tcp(address) => address,
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        // A socket's file mode is its credential; a token is for TCP alone.
        if let (Address::Tcp(_), Some(token)) = (&self.address, &self.token) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answered = async {
            match &self.address {
                Address::Socket(path) => send(UnixStream::connect(path).await, request).await,
                Address::Tcp(address) => send(TcpStream::connect(address).await, request).await,
            }
        };
        tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| Err(format!("no answer in {limit:?}")))
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: std::io::Result<S>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let io = TokioIo::new(socket.map_err(|error| error.to_string())?);
    let (mut sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
    let answered = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        body.map(|body| (status, body.to_bytes())).map_err(|error| error.to_string())
    };
    // The connection ends when its only sender is gone; what went wrong on it the answer tells.
    let (answer, _) = tokio::join!(answered, connection);
    answer
}

fn json(order: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(order).map(Bytes::from).map_err(|error| Failure::failed(error.to_string()))
}

/// An answer as the type that was asked for, or the fault that it tells.
fn understand<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, Failure> {
    let strange =
        |why| Failure::failed(format!("the admin API answered {status} with something unknown: {why}"));
    if !status.is_success() {
        let fault = serde_json::from_slice::<Fault>(body).map(Failure::from);
        return Err(fault.unwrap_or_else(strange));
    }
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(strange)
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Scripted;
    use super::*;
    use crate::admin::view::ShutdownOrder;
    use serde_json::Value;

    #[tokio::test]
    async fn an_order_goes_out_as_json_and_its_answer_comes_back() {
        let pintle = Scripted::start(vec![(200, r#""alive""#), (200, r#"{"ok":true}"#)]);
        let client = Client::find(Some(&pintle.address())).await.unwrap();
        let answer: Value = client.post("/v1/shutdown", &ShutdownOrder::default()).await.unwrap();
        assert_eq!(answer["ok"], true);
        let seen = pintle.finish().await;
        assert!(seen[0].starts_with("GET /livez HTTP/1.1\r\n"), "{seen:?}");
        assert!(seen[1].starts_with("POST /v1/shutdown HTTP/1.1\r\n") && seen[1].ends_with("{}"), "{seen:?}");
    }

    #[tokio::test]
    async fn a_fault_becomes_a_failure_with_its_exit_code() {
        let fault = r#"{"title":"t","status":409,"code":"would_leave_none","detail":"app would be empty"}"#;
        let pintle = Scripted::start(vec![(200, "{}"), (409, fault)]);
        let client = Client::find(Some(&pintle.address())).await.unwrap();
        let failure = client.patch::<Value>("/v1/pools/app/backends/a1", &()).await.unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, "app would be empty"));
    }

    #[tokio::test]
    async fn nobody_there_is_exit_4_and_names_what_was_tried() {
        let failure = Client::find(Some("/nowhere/admin.sock")).await.map(drop).unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains("  /nowhere/admin.sock: No such file"), "{}", failure.message);
    }

    #[tokio::test]
    async fn somebody_else_on_the_address_is_not_taken_for_a_pintle() {
        let stranger = Scripted::start(vec![(404, "not here")]);
        let failure = Client::find(Some(&stranger.address())).await.map(drop).unwrap_err();
        assert!(failure.message.contains("answers 404"), "{}", failure.message);
    }
}
