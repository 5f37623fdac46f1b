//! The embedded server and a real Redis, asked the same things. Start at [`conformance`], which
//! compares answers; [`behaviour`] is about time, other clients and outages.
//!
//! Where redis-server is not installed the embedded server is tested alone, and that is said.

mod behaviour;
mod conformance;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue};
use tokio::sync::oneshot;

use super::client::{Client, Link};
use super::server;
use crate::harness::Outcome;

/// A server to be asked; it ends when this is dropped.
struct Place {
    name: &'static str,
    url: String,
    address: SocketAddr,
    _end: End,
}

/// What ends a server; each does so by being dropped.
enum End {
    Embedded { _stop: oneshot::Sender<()> },
    Redis(Child),
}

impl Drop for End {
    fn drop(&mut self) {
        if let Self::Redis(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Place {
    /// The embedded server on a thread of its own.
    fn embedded() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    ended = server::serve(listener) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self::new("embedded", address, End::Embedded { _stop: stop })
    }

    /// Debian's Redis on a free port, where it is installed.
    fn redis() -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        let arguments = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
        let mut command = Command::new("redis-server");
        let Ok(child) = command.args(arguments).stdout(Stdio::null()).stdin(Stdio::null()).spawn() else {
            eprintln!("redis-server is not installed: only the embedded server is tested");
            return None;
        };
        let place = Self::new("redis", address, End::Redis(child));
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < patience, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(place)
    }

    fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::embedded()).chain(Self::redis())
    }

    fn new(name: &'static str, address: SocketAddr, end: End) -> Self {
        Self { name, url: format!("redis://{address}"), address, _end: end }
    }

    async fn client(&self, link: Link) -> Client {
        Client::connect(&self.url, link).await.unwrap()
    }
}

/// Runs a command that is written as in a terminal.
async fn run<T: FromRedisValue>(client: &Client, line: &str) -> Outcome<T> {
    client.run(&command(line)).await
}

fn command(line: &str) -> Cmd {
    let mut command = Cmd::new();
    for word in line.split_whitespace() {
        command.arg(word);
    }
    command
}

/// Waits until something is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !so().await {
        assert!(Instant::now() < patience, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
