//! How one service calls another: a pooled client with JSON in and out.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::Value;

use super::chapter::Outcome;

const LIMIT: Duration = Duration::from_secs(10);

/// Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Http {
    /// The status and the body, whatever they are.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Outcome<(StatusCode, Bytes)> {
        let exchange = async {
            let response = self.0.request(request).await?;
            let status = response.status();
            Outcome::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(LIMIT, exchange).await?
    }

    pub async fn get(&self, at: SocketAddr, path: &str) -> Outcome<Value> {
        let request = Request::get(format!("http://{at}{path}")).body(Full::default())?;
        let (status, body) = self.send(request).await?;
        accepted(status, path, &body)
    }

    /// Sends JSON; an answer other than 2xx is an error.
    pub async fn post(&self, at: SocketAddr, path: &str, body: &impl Serialize) -> Outcome<Value> {
        let body = Full::from(serde_json::to_vec(body)?);
        let request = Request::builder().method(Method::POST).uri(format!("http://{at}{path}"));
        let request = request.header("content-type", "application/json").body(body)?;
        let (status, body) = self.send(request).await?;
        accepted(status, path, &body)
    }
}

fn accepted(status: StatusCode, path: &str, body: &[u8]) -> Outcome<Value> {
    if !status.is_success() {
        return Err(format!("{path}: {status}").into());
    }
    Ok(serde_json::from_slice(body).unwrap_or(Value::Null))
}
