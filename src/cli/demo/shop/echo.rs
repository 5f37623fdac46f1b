//! The shop's WebSocket: says who is here, then sends back what it gets.
//!
//! Start at [`handshake`], which answers 101, and [`run`], which speaks afterwards.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// Bytes of one message.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
/// Silence after which the shop hangs up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The headers of the 101, or what is wrong with the request (RFC 6455 4.2.1).
pub(super) fn handshake(request: &HeaderMap) -> Result<[(HeaderName, HeaderValue); 3], &'static str> {
    let lists = |name: HeaderName, word: &str| {
        request.get_all(name).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
        })
    };
    if !lists(CONNECTION, "upgrade") || !lists(UPGRADE, "websocket") {
        return Err("this is a WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`");
    }
    if request.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("send `Sec-WebSocket-Version: 13`");
    }
    let key = request.get(SEC_WEBSOCKET_KEY).ok_or("send a `Sec-WebSocket-Key`")?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a header value");
    Ok([
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ])
}

/// Echoes until the client has had enough. Errors are the client's going away.
pub(super) async fn run(name: &str, upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    if socket.send(Message::text(format!("{name} here"))).await.is_err() {
        return;
    }
    while let Ok(Some(Ok(message))) = time::timeout(IDLE_TIMEOUT, socket.next()).await {
        // Pings and the closing handshake are answered within `next`.
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}
