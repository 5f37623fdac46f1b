//! What a long life leaves behind: after many reloads and many requests a process has the memory,
//! the descriptors and the tasks that it had before.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::balancer::Balancer;
use crate::fleet::{Backend, Ledger};
use crate::keeper::Keeper;
use crate::stage::address;

/// Reloads and requests of an ordinary run, and of one with `--minutes`.
const SHORT: (usize, u64) = (1_000, 100_000);
const LONG: (usize, u64) = (2_000, 1_000_000);

/// Before the first look: by then every buffer has been as large as it gets.
const WARM: (usize, u64) = (20, 5_000);

/// WebSockets that stay open throughout.
const TUNNELS: usize = 20;
/// Clients that ask as fast as they can.
const CLIENTS: usize = 8;

/// What the allocator may keep more of than before: 3 KiB for each of 1,000 reloads, or 31 bytes for
/// each of 100,000 requests. Where the run is long, that is 1.5 KiB and 3 bytes.
const TOLERANCE_KIB: u64 = 3 * 1024;
/// How long it has to give memory back.
const SETTLES: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(250);

const REQUEST: &[u8] = b"GET /bare HTTP/1.1\r\nHost: chaos.example\r\n\r\n";
const ANSWER: &[u8] = b"\r\n\r\nwell";

/// What a process has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    /// Memory of its own: what is not the program's file.
    memory_kib: u64,
    descriptors: usize,
    tasks: u64,
}

impl Holdings {
    async fn of(balancer: &Balancer, pid: u64) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let memory = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let metrics = balancer.ask("GET", "/metrics", "").await.1;
        let count = |line: &str| line.strip_prefix("pintle_tasks{")?.split(' ').nth(1)?.parse::<u64>().ok();
        let tasks = metrics.lines().filter_map(count).sum();
        assert!(tasks > 0, "its metrics count tasks: {metrics}");
        Self {
            memory_kib: memory.expect("Linux says how much memory a process has"),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            tasks,
        }
    }

    fn within(self, before: Self) -> bool {
        self.descriptors <= before.descriptors
            && self.tasks <= before.tasks
            && self.memory_kib <= before.memory_kib + TOLERANCE_KIB
    }

    fn tell(self, when: &str) {
        println!(
            "  {when}: {:.1} MiB, {} descriptors, {} tasks",
            self.memory_kib as f64 / 1024.0,
            self.descriptors,
            self.tasks
        );
    }
}

pub async fn run(program: &Path, long: bool) -> Result<(), String> {
    let (reloads, requests) = if long { LONG } else { SHORT };
    let (keeper, ledger) = (Keeper::start(), Ledger::default());
    let mut backends = Vec::new();
    for number in 6..=8 {
        backends.push(Backend::start(&keeper, &format!("l{number}"), address(number), &ledger).await);
    }
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let balancer = Balancer::start(&keeper, program, "leaks", &text(&addresses, 0)).await;
    let pid = balancer.pid().await;
    let mut tunnels = Vec::new();
    for _ in 0..TUNNELS {
        tunnels.push(tunnel(balancer.address).await?);
    }

    work(&balancer, &addresses, WARM).await?;
    let before = settled(&balancer, pid).await;
    println!(
        "\nleaks: {reloads} reloads under load, {requests} requests, {TUNNELS} WebSockets open throughout"
    );
    before.tell("before");
    let began = Instant::now();
    work(&balancer, &addresses, (reloads, requests)).await?;
    let took = began.elapsed();
    let until = Instant::now() + SETTLES;
    let mut after = Holdings::of(&balancer, pid).await;
    after.tell("at the end");
    while !after.within(before) && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        after = Holdings::of(&balancer, pid).await;
    }
    after.tell("after");
    println!("  {:.1} s of work, {:.1} s of rest at most", took.as_secs_f64(), SETTLES.as_secs_f64());
    for tunnel in &mut tunnels {
        talks(tunnel).await?;
    }
    match after.within(before) {
        true => Ok(()),
        false => Err(format!("{after:?} is more than {before:?} and {TOLERANCE_KIB} KiB")),
    }
}

/// One of a few files that differ in everything that a reload builds anew.
fn text(addresses: &[SocketAddr], turn: usize) -> String {
    let policy = ["round_robin", "least_conn", "sticky_cookie", "consistent_hash"][turn % 4];
    // The last backend comes and goes; the tunnels may be on it.
    let count = if turn % 3 == 2 { 2 } else { 3 };
    let backend = |(number, address): (usize, &SocketAddr)| {
        format!("{{ name = \"l{number}\", address = \"{address}\", weight = {} }}", 1 + (turn + number) % 5)
    };
    let backends: Vec<_> = addresses[..count].iter().enumerate().map(backend).collect();
    let another = if turn % 5 == 4 { "[listener.more]\nbind = \"127.0.0.1:0\"\n" } else { "" };
    format!(
        "[log.access]\noutput = \"/dev/null\"\n{another}[[route]]\npool = \"app\"\n\
         response_headers = {{ set = {{ \"x-turn\" = \"{turn}\" }} }}\n\
         [pool.app]\npolicy = \"{policy}\"\nbackends = [{}]\n\
         connections.idle = \"1s\"\n[pool.app.health]\npath = \"/healthz\"\n",
        backends.join(", ")
    )
}

/// So many reloads under load, then so many requests.
async fn work(
    balancer: &Balancer,
    addresses: &[SocketAddr],
    (reloads, requests): (usize, u64),
) -> Result<(), String> {
    let (left, began) = (Rc::new(Cell::new(u64::MAX)), Instant::now());
    let clients = crowd(balancer.address, &left);
    for turn in (0..reloads).rev() {
        balancer.edit(&text(addresses, turn));
        let (status, body) = balancer.reload().await;
        if status != 200 {
            return Err(format!("a reload was answered with {status}: {body}"));
        }
    }
    left.set(0);
    done(clients).await?;
    println!("  {reloads} reloads in {:.1} s", began.elapsed().as_secs_f64());
    left.set(requests);
    done(crowd(balancer.address, &left)).await
}

fn crowd(address: SocketAddr, left: &Rc<Cell<u64>>) -> Vec<JoinHandle<std::io::Result<()>>> {
    (0..CLIENTS).map(|_| tokio::task::spawn_local(asks(address, left.clone()))).collect()
}

async fn done(clients: Vec<JoinHandle<std::io::Result<()>>>) -> Result<(), String> {
    for client in clients {
        client
            .await
            .expect("a client does not panic")
            .map_err(|error| format!("a request failed: {error}"))?;
    }
    Ok(())
}

/// Asks on one connection as long as something is left to ask.
async fn asks(address: SocketAddr, left: Rc<Cell<u64>>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    while left.get() > 0 {
        left.set(left.get() - 1);
        stream.write_all(REQUEST).await?;
        let mut have = 0;
        while !buffer[..have].ends_with(ANSWER) {
            match stream.read(&mut buffer[have..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => have += read,
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(std::io::Error::other(String::from_utf8_lossy(&buffer[..have]).into_owned()));
        }
    }
    Ok(())
}

/// The holdings once they stay what they are.
async fn settled(balancer: &Balancer, pid: u64) -> Holdings {
    let until = Instant::now() + SETTLES;
    let mut before = Holdings::of(balancer, pid).await;
    let mut same = 0;
    while same < 6 && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        let now = Holdings::of(balancer, pid).await;
        let still = now.descriptors == before.descriptors
            && now.tasks == before.tasks
            && now.memory_kib.abs_diff(before.memory_kib) < 128;
        same = if still { same + 1 } else { 0 };
        before = now;
    }
    before
}

async fn tunnel(address: SocketAddr) -> Result<WebSocketStream<TcpStream>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let opened = tokio_tungstenite::client_async("ws://chaos.example/ws", stream).await;
    let mut socket = opened.map_err(|error| format!("a WebSocket was not opened: {error}"))?.0;
    talks(&mut socket).await?;
    Ok(socket)
}

async fn talks(socket: &mut WebSocketStream<TcpStream>) -> Result<(), String> {
    socket
        .send(Message::text("still here"))
        .await
        .map_err(|error| format!("a WebSocket was cut: {error}"))?;
    match tokio::time::timeout(crate::client::PATIENCE, socket.next()).await {
        Ok(Some(Ok(Message::Text(text)))) if text.as_str() == "still here" => Ok(()),
        other => Err(format!("a WebSocket was cut: {other:?}")),
    }
}
