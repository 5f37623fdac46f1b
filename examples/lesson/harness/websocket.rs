//! WebSockets for replicas and for users, with real handshakes and real upgrades.

use std::future::Future;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::chapter::Outcome;

/// The replica's end.
pub type Accepted = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;
/// The user's end.
pub type Socket = WebSocketStream<TcpStream>;

/// Thousands of sockets with small messages: the usual 128 KiB each would be memory for nothing.
fn config() -> Option<WebSocketConfig> {
    Some(WebSocketConfig::default().read_buffer_size(1024))
}

/// Answers a handshake with 101 and gives the socket to `talk`; anything else is a 400.
pub fn accept<F>(mut request: Request<Body>, talk: impl FnOnce(Accepted) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return (StatusCode::BAD_REQUEST, "a WebSocket handshake is expected here").into_response();
    };
    let accepts = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, config());
            talk(socket.await).await;
        }
    });
    let headers = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accepts.as_str()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Opens a socket; also says what the handshake was answered with, cookies and `x-replica` among it.
pub async fn connect(
    at: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Outcome<(Socket, axum::http::HeaderMap)> {
    let mut request = format!("ws://{at}{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_str(value)?);
    }
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (socket, response) = tokio_tungstenite::client_async_with_config(request, stream, config()).await?;
    Ok((socket, response.headers().clone()))
}
