//! The upload service, as its replicas run it, and the object store behind it.
//!
//! Start at [`replica`]: its three handlers are the same whether files lie on the replica's own
//! disk or in the object store. Nothing here holds a whole file in memory.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::disk::Disk;
use crate::harness::{Boxed, Outcome, Setup, child};

/// Where a replica keeps what users give it: the one difference between the two variants.
#[derive(Clone)]
enum Files {
    /// "Only on THIS server!"
    Local(Disk),
    /// A service that all replicas ask.
    Shared(Box<Client<HttpConnector, Body>>, SocketAddr),
}

/// A replica of the upload service. Its order is the object store's address, or `null`.
pub fn replica(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move {
        let files = match setup.order::<Option<SocketAddr>>()? {
            Some(store) => Files::Shared(Box::new(Client::builder(TokioExecutor::new()).build_http()), store),
            None => Files::Local(Disk::default()),
        };
        let app = Router::new()
            .route("/files", get(list))
            .route("/files/{name}", get(download).put(upload))
            .with_state(files);
        child::serve(setup, app).await
    })
}

/// Who asks. A real service would read a session or a token here; a header is enough to see that
/// nobody gets what is another's.
struct User(String);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let name = parts.headers.get("x-user").and_then(|name| name.to_str().ok());
        name.filter(|name| plain(name)).map(|name| Self(name.into())).ok_or(StatusCode::UNAUTHORIZED)
    }
}

/// Letters, digits, `-` and `.`: a name that cannot lead out of its user's folder.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Passes the file on while it comes; a file that did not come whole is kept nowhere.
async fn upload(
    State(files): State<Files>,
    User(user): User,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    if !plain(&name) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match files {
        Files::Local(disk) => kept(disk.put(format!("{user}/{name}"), request.into_body()).await),
        Files::Shared(client, store) => {
            let length = request.headers().get(CONTENT_LENGTH).cloned();
            let mut put = Request::put(format!("http://{store}/{user}/{name}")).body(request.into_body());
            if let (Ok(put), Some(length)) = (&mut put, length) {
                put.headers_mut().insert(CONTENT_LENGTH, length);
            }
            ask(&client, put).await
        }
    }
}

async fn download(State(files): State<Files>, User(user): User, Path(name): Path<String>) -> Response {
    match files {
        Files::Local(disk) => found(disk.get(&format!("{user}/{name}"))),
        Files::Shared(client, store) if plain(&name) => {
            ask(&client, Request::get(format!("http://{store}/{user}/{name}")).body(Body::empty())).await
        }
        Files::Shared(..) => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn list(State(files): State<Files>, User(user): User) -> Response {
    match files {
        Files::Local(disk) => Json(disk.list(&format!("{user}/"))).into_response(),
        Files::Shared(client, store) => {
            ask(&client, Request::get(format!("http://{store}/{user}")).body(Body::empty())).await
        }
    }
}

/// Asks the object store and relays its answer as it streams in.
async fn ask(client: &Client<HttpConnector, Body>, request: axum::http::Result<Request>) -> Response {
    let Ok(request) = request else { return StatusCode::BAD_REQUEST.into_response() };
    match client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// A small object store in the manner of S3: put, get and list over HTTP, files on its disk.
pub fn objects(setup: Setup) -> Boxed<'static, Outcome<()>> {
    let object =
        async |State(disk): State<Disk>, Path((user, name)): Path<(String, String)>, request: Request| {
            let key = format!("{user}/{name}");
            if request.method() == Method::PUT {
                kept(disk.put(key, request.into_body()).await)
            } else {
                found(disk.get(&key))
            }
        };
    let list =
        async |State(disk): State<Disk>, Path(user): Path<String>| Json(disk.list(&format!("{user}/")));
    let app = Router::new().route("/{user}/{name}", get(object).put(object)).route("/{user}", get(list));
    Box::pin(child::serve(setup, app.with_state(Disk::default())))
}

fn kept(kept: Outcome<u64>) -> Response {
    match kept {
        Ok(bytes) => (StatusCode::CREATED, Json(bytes)).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn found(file: Option<(u64, Body)>) -> Response {
    match file {
        Some((bytes, body)) => ([(CONTENT_LENGTH, bytes)], body).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
