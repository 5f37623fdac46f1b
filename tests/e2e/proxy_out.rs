//! Pools whose backends are told by the PROXY protocol whose a connection is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use crate::support::{Ask, Config, Proxy, Wire, eventually, within};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A backend that notes with which header each connection began, and how many requests it carried.
struct Told {
    address: SocketAddr,
    seen: Notes,
}

type Notes = Arc<Mutex<Vec<(Vec<u8>, usize)>>>;

impl Told {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Notes::default());
        let notes = seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Self::serve(Wire::new(socket), notes.clone()));
            }
        });
        Self { address, seen }
    }

    async fn serve(mut wire: Wire, notes: Notes) {
        let mut header = wire.bytes(16).await;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.extend(wire.bytes(length).await);
        let place = {
            let mut notes = notes.lock().unwrap();
            notes.push((header, 0));
            notes.len() - 1
        };
        while wire.head().await.is_some() {
            notes.lock().unwrap()[place].1 += 1;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
        }
    }

    fn seen(&self) -> Vec<(Vec<u8>, usize)> {
        self.seen.lock().unwrap().clone()
    }

    fn config(&self, lines: &str) -> Config {
        let lines = format!("proxy_protocol = \"v2\"\n{lines}");
        Config::default().pool_of("app", &[format!("\"{}\"", self.address)], &lines).server("workers = 1")
    }
}

/// The header for a connection between two IPv4 addresses.
fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else { unreachable!() };
    let mut bytes = [SIGNATURE, &[0x21, 0x11, 0, 12]].concat();
    bytes.extend(source.ip().octets());
    bytes.extend(destination.ip().octets());
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}

#[tokio::test]
async fn each_connection_begins_with_its_client_and_serves_no_other() {
    let told = Told::start().await;
    let proxy = Proxy::start(told.config("")).await;
    let (mut first, mut second) = (proxy.client(), proxy.client_from("127.0.0.2"));
    let mut expected = Vec::new();
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("/").await.text(), "hi");
        let source = client.wire().await.stream.local_addr().unwrap();
        expected.push((header(source, proxy.address), 3));
    }
    for _ in 0..2 {
        for client in [&mut first, &mut second] {
            assert_eq!(client.post("/", "x").await.text(), "hi");
        }
    }
    assert_eq!(told.seen(), expected);
    // The same client on another connection has another port.
    first.hang_up();
    first.get("/").await;
    let source = first.wire().await.stream.local_addr().unwrap();
    assert_eq!(told.seen()[2], (header(source, proxy.address), 1));
}

#[tokio::test]
async fn a_client_that_a_trusted_proxy_names_is_the_one_that_is_told() {
    let told = Told::start().await;
    let proxy = Proxy::start(told.config("").server("trusted_proxies = [\"127.0.0.1\"]")).await;
    let mut edge = proxy.client();
    for _ in 0..2 {
        for client in ["192.0.2.1", "192.0.2.2"] {
            edge.ask(Ask::get("/").header("X-Forwarded-For", client)).await;
        }
    }
    let of = |client: &str| (header(format!("{client}:0").parse().unwrap(), proxy.address), 2);
    assert_eq!(told.seen(), [of("192.0.2.1"), of("192.0.2.2")]);
}

#[tokio::test]
async fn the_oldest_idle_connection_makes_room_for_another_clients() {
    let told = Told::start().await;
    let proxy = Proxy::start(told.config("connections.max_idle = 2")).await;
    let mut clients = [proxy.client(), proxy.client(), proxy.client()];
    for client in [0, 1, 2, 2, 1] {
        clients[client].get("/").await;
    }
    let counts = |told: &Told| told.seen().iter().map(|(_, count)| *count).collect::<Vec<_>>();
    assert_eq!(counts(&told), [1, 2, 2]);
    clients[0].get("/").await;
    assert_eq!(counts(&told), [1, 2, 2, 1]);
}

#[tokio::test]
async fn probes_say_that_they_are_nobodys() {
    let told = Told::start().await;
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    let proxy = Proxy::start(told.config("health = { path = \"/\", interval = \"100ms\" }")).await;
    eventually("it is up", async || {
        proxy.backend(&format!("app/{}", told.address)).await.health.status == "up"
    })
    .await;
    assert_eq!(told.seen()[0], (local.clone(), 1));
    let answer = within("an answer", proxy.client().get("/")).await.text();
    assert_eq!(answer, "hi");
    assert!(told.seen().iter().any(|(header, _)| *header != local));
}
