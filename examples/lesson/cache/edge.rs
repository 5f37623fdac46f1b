//! A small shared cache in front of Pintle, as a CDN is. It obeys Cache-Control and keeps nothing
//! that was meant for one person.
//!
//! Start at [`lifetime`], the decision; the rest stores and forwards.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::serve::ListenerExt;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lru::LruCache;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::Outcome;

/// The most answers that are kept: what was used least recently goes.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// For how long an answer may be given to others; `None` is not at all (RFC 9111 section 3).
pub fn lifetime(
    method: &Method,
    asked: &HeaderMap,
    status: StatusCode,
    said: &HeaderMap,
) -> Option<Duration> {
    let personal = asked.contains_key(header::AUTHORIZATION) || said.contains_key(header::SET_COOKIE);
    if method != Method::GET || status != StatusCode::OK || personal || said.contains_key(header::VARY) {
        return None;
    }
    let lines = said.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut age = None;
    for directive in lines.flat_map(|line| line.split(',')) {
        match directive.trim().to_ascii_lowercase().split_once('=') {
            Some(("max-age", seconds)) => age = seconds.parse().ok(),
            // With or without a field name, and whatever else is said: not for us.
            Some(("private" | "no-cache", _)) => return None,
            None if matches!(directive.trim(), "private" | "no-store" | "no-cache") => return None,
            _ => {}
        }
    }
    age.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// A running cache, which ends when this is dropped.
pub struct Edge {
    pub address: SocketAddr,
    shelf: Shelf,
    task: JoinHandle<()>,
}

type Shelf = Arc<Mutex<LruCache<String, Kept>>>;

struct Kept {
    headers: HeaderMap,
    body: Bytes,
    until: Instant,
}

#[derive(Clone)]
struct Front {
    origin: SocketAddr,
    client: Client<HttpConnector, Body>,
    shelf: Shelf,
}

impl Edge {
    pub async fn start(origin: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shelf = Arc::new(Mutex::new(LruCache::new(CAPACITY)));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let app = Router::new().fallback(answer).with_state(Front { origin, client, shelf: shelf.clone() });
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, shelf, task })
    }

    /// How many answers are kept whose key begins so, and how many of those set a cookie.
    pub fn kept(&self, path: &str) -> (usize, usize) {
        let shelf = lock(&self.shelf);
        let kept: Vec<_> = shelf.iter().filter(|(key, _)| key.starts_with(path)).collect();
        let cookies = kept.iter().filter(|(_, kept)| kept.headers.contains_key(header::SET_COOKIE));
        (kept.len(), cookies.count())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shelf: &Shelf) -> MutexGuard<'_, LruCache<String, Kept>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(front): State<Front>, request: Request<Body>) -> Response<Body> {
    let key = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let anonymous = !request.headers().contains_key(header::AUTHORIZATION);
    if request.method() == Method::GET
        && anonymous
        && let Some(kept) = lock(&front.shelf).get(&key).filter(|kept| Instant::now() < kept.until)
    {
        let mut response = (kept.headers.clone(), kept.body.clone()).into_response();
        response.headers_mut().insert("x-edge", HeaderValue::from_static("hit"));
        return response;
    }
    front.forward(key, request).await.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

impl Front {
    async fn forward(&self, key: String, mut request: Request<Body>) -> Outcome<Response<Body>> {
        *request.uri_mut() = Uri::try_from(format!("http://{}{key}", self.origin))?;
        let (method, asked) = (request.method().clone(), request.headers().clone());
        let (mut said, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        // These belong to the connection that the answer came by.
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            said.headers.remove(name);
        }
        if let Some(lifetime) = lifetime(&method, &asked, said.status, &said.headers) {
            let (headers, body, until) = (said.headers.clone(), body.clone(), Instant::now() + lifetime);
            lock(&self.shelf).put(key, Kept { headers, body, until });
        } else if !method.is_safe() && said.status.is_success() {
            // What was written through here is not what was kept (RFC 9111 section 4.4).
            lock(&self.shelf).pop(&key);
        }
        said.headers.insert("x-edge", HeaderValue::from_static("miss"));
        Ok(Response::from_parts(said, Body::from(body)))
    }
}
