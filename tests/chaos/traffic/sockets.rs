//! Clients with a WebSocket: numbers go out, and each must come back before the next.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::Request;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Kind, Shared};
use crate::client::{How, PATIENCE};

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(50);

pub async fn run(shared: Rc<Shared>) {
    while shared.goes_on() {
        let (id, began) = (shared.id(), Instant::now());
        let opened = tokio::time::timeout(PATIENCE, open(&shared, &id)).await.unwrap_or(Err(How::Late));
        let (backend, socket) = match opened {
            Ok((backend, socket)) => {
                shared.record(id.clone(), Kind::Handshake, began, backend.clone(), None);
                (backend, socket)
            }
            Err(how) => {
                shared.record(id, Kind::Handshake, began, None, Some(how));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if let Err(how) = talk(&shared, &id, backend.clone(), socket).await {
            shared.blame(id, Kind::Message, began, backend, how);
        }
    }
}

async fn open(shared: &Shared, id: &str) -> Result<(Option<String>, WebSocketStream<TcpStream>), How> {
    let stream = TcpStream::connect(shared.address).await.map_err(|_| How::Refused)?;
    let _ = stream.set_nodelay(true);
    let request = Request::get("ws://chaos.example/ws")
        .header("Host", "chaos.example")
        .header("X-Request-Id", id)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .body(())
        .expect("a request");
    let (socket, answer) =
        tokio_tungstenite::client_async(request, stream).await.map_err(|error| match error {
            Error::Http(answer) => How::Status(answer.status().as_u16(), String::new()),
            _ => How::NoAnswer,
        })?;
    let backend = answer.headers().get("x-backend").and_then(|name| name.to_str().ok()).map(str::to_owned);
    Ok((backend, socket))
}

/// Talks until the run stops, and then hangs up in good order.
async fn talk(
    shared: &Shared,
    id: &str,
    backend: Option<String>,
    mut socket: WebSocketStream<TcpStream>,
) -> Result<(), How> {
    let mut number = 0_u64;
    while shared.goes_on() {
        let began = Instant::now();
        number += 1;
        let text = format!("{id} {number}");
        // A socket that has ended says so, and with which code, when it is read.
        let _ = socket.send(Message::text(text.clone())).await;
        match next(&mut socket).await? {
            Message::Text(echo) if echo.as_str() == text => {
                shared.record(id.to_owned(), Kind::Message, began, backend.clone(), None);
            }
            other => return Err(How::Wrong(other.to_string().chars().take(80).collect())),
        }
        // Between two messages it may be told to go.
        tokio::select! {
            said = next(&mut socket) => {
                let said = said?;
                return Err(How::Wrong(said.to_string().chars().take(80).collect()));
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    socket.close(None).await.map_err(|_| How::Cut(None))?;
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await {
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(Error::ConnectionClosed)) | None) => return Ok(()),
            Ok(Some(Err(_))) => return Err(How::Cut(None)),
            Err(_) => return Err(How::Late),
        }
    }
}

/// The next message; an end is [`How::Cut`].
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Result<Message, How> {
    match tokio::time::timeout(PATIENCE, socket.next()).await {
        Ok(Some(Ok(Message::Close(frame)))) => Err(How::Cut(frame.map(|frame| frame.code.into()))),
        Ok(Some(Ok(message))) => Ok(message),
        Ok(Some(Err(_)) | None) => Err(How::Cut(None)),
        Err(_) => Err(How::Late),
    }
}
