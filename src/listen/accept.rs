//! The accept loop: takes connections while there is room, backs off while there is none.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::Descriptors;

/// How long the loop rests when descriptors have run out: clients wait in the backlog.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts for ever; whoever drops this future stops listening.
pub async fn run(
    listener: TcpListener,
    descriptors: Arc<Descriptors>,
    mut full: impl FnMut(),
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    let mut resting = false;
    loop {
        if descriptors.is_full() {
            if !resting {
                warn!(event = "listener", "max_connections {} reached: not accepting", descriptors.limit());
                full();
            }
            resting = true;
            tokio::time::sleep(BACK_OFF).await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                resting = false;
                take(stream, peer);
            }
            Err(error) if is_theirs(&error) => {}
            Err(error) => {
                if !resting {
                    warn!(event = "listener", %error, "cannot accept; trying again every 100 ms");
                    full();
                }
                resting = true;
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// A client that left while it waited in the backlog.
fn is_theirs(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
