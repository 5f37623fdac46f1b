//! Chat at a million (Q3): what an idle WebSocket costs, what a session costs, what a token costs,
//! measured with a few thousand real ones and multiplied.
//!
//! Start at [`TOML`] and [`run`]. Pintle and the replica are processes of their own here, because
//! their memory is what is measured; this process holds the users' ends.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use pintle::app::{Options, Pintle, Source};
use redis::cmd;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::child::{self, Setup};
use crate::harness::figures::{bytes, share};
use crate::harness::websocket::{Accepted, Socket, accept, connect};
use crate::harness::{Boxed, Chapter, Findings, Outcome, Replica, Stage, Table, memory, quote};
use crate::store::{Client, Link, Store};

pub const CHAPTER: Chapter = Chapter {
    name: "chat",
    title: "Chat at a million (Q3)",
    about: "Holds thousands of idle WebSockets through Pintle and keeps thousands of sessions in the \
            store, measures what one of each costs, and multiplies by a million.",
    guess: "A million users are connected and say nothing. What takes more memory: their sessions or \
            their sockets?",
    roles: &[("chat-balancer", balancer), ("chat-ear", ear)],
    run: |stage| Box::pin(run(stage)),
};

/// Pintle as it runs in the child. REPLICA is the one replica's address.
const TOML: &str = r#"
[server]
workers = 1
[log.access]
enabled = false
[listener.web]
bind = "127.0.0.1:0"
[pool.chat]
policy = "sticky_cookie"
backends = ["REPLICA"]
"#;

const MILLION: f64 = 1e6;
/// Opened before anything is measured, so that what is needed once is not counted per socket.
const WARM: usize = 20;
/// What else a process has open, generously.
const OTHER_DESCRIPTORS: u64 = 300;
/// Longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(5);
/// How many commands go to the store in one round trip.
const BATCH: usize = 250;
const SECRET: &[u8] = b"a key for this run of the lesson";

/// Runs Pintle until the parent ends. The order is its configuration.
fn balancer(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move {
        let pintle = Pintle::start(Source::text(setup.order::<String>()?), Options::default()).await?;
        println!("{}", pintle.address().ok_or("the balancer listens nowhere")?);
        std::future::pending().await
    })
}

/// A replica that does as little with a socket as can be: it gives back what it is told.
fn ear(setup: Setup) -> Boxed<'static, Outcome<()>> {
    async fn echo(mut socket: Accepted) {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    }
    let app = Router::new().route("/ws", get(async |request: Request<Body>| accept(request, echo)));
    Box::pin(child::serve(setup, app))
}

/// What a user costs, in bytes.
#[derive(Default)]
struct Cost {
    sockets: usize,
    pintle: Option<f64>,
    replica: Option<f64>,
    kernel: Option<f64>,
    sessions: usize,
    session: f64,
    tokens: usize,
    token: f64,
}

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let mut cost = Cost::default();
    sockets(stage, &mut findings, &mut cost).await?;
    sessions(stage, &mut findings, &mut cost).await?;
    tokens(stage, &mut findings, &mut cost)?;
    conclude(&mut findings, &cost);
    Ok(findings)
}

/// Idle WebSockets from here through Pintle to the replica.
async fn sockets(stage: &Stage, findings: &mut Findings, cost: &mut Cost) -> Outcome<()> {
    let wanted = stage.pick(300, 2_000, 5_000);
    let count = wanted.min(affordable()?);
    if count < wanted {
        findings.left_out(format!(
            "This process may open too few files for {wanted} WebSockets, so there were {count}."
        ));
    }
    stage.say(format!("{count} WebSockets through Pintle, idle"));
    let replica = Replica::start("chat-ear", "ear", ()).await?;
    let toml = TOML.replace("REPLICA", &replica.address.to_string());
    let pintle = Replica::start("chat-balancer", "pintle", toml).await?;

    let mut sockets = Vec::new();
    for _ in 0..WARM {
        sockets.push(connect(pintle.address, "/ws", &[]).await?.0);
    }
    let warm = answered(&mut sockets).await;
    let weigh = || (memory::resident(pintle.pid()), memory::resident(replica.pid()), memory::sockets());
    let before = weigh();
    for _ in 0..count {
        sockets.push(connect(pintle.address, "/ws", &[]).await?.0);
    }
    // The idle time is the point; what is left over from the handshakes goes to rest meanwhile.
    let idle = Duration::from_millis(stage.pick(300, 1_000, 3_000));
    tokio::time::sleep(idle).await;
    let after = weigh();
    let each =
        |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?) as f64 / count as f64);
    cost.sockets = count;
    cost.pintle = each(before.0, after.0);
    cost.replica = each(before.1, after.1);
    cost.kernel = each(before.2, after.2);

    let answered = answered(&mut sockets).await;
    findings.holds(
        "chat.sockets",
        quote("Practice Questions", "a chat application with 1 million concurrent users"),
        format!("{} answered after {idle:?} of silence", share(answered, count + WARM)),
        count + WARM,
        answered == count + WARM && warm == WARM,
        "A socket that says nothing stays open from the user through Pintle to its replica.",
    );
    Ok(())
}

/// How many sockets Pintle can carry here: two descriptors each, of nine tenths of its limit. Raises
/// the soft limit of this process, which its children inherit, to the hard one.
fn affordable() -> Outcome<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let descriptors = limit.maximum.unwrap_or(u64::MAX) / 10 * 9;
    Ok(usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2)?)
}

/// How many sockets give back what they are told.
async fn answered(sockets: &mut [Socket]) -> usize {
    let mut answered = 0;
    for (number, socket) in sockets.iter_mut().enumerate() {
        let text = format!("ping {number}");
        let exchange = async {
            socket.send(Message::text(text.as_str())).await.ok()?;
            socket.next().await?.ok()
        };
        let answer = tokio::time::timeout(LIMIT, exchange).await;
        answered += usize::from(matches!(answer, Ok(Some(Message::Text(back))) if *back == *text));
    }
    answered
}

/// What a session holds, in the store or in a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    sub: String,
    role: String,
    exp: u64,
}

fn session(number: usize) -> Session {
    Session {
        sub: format!("user-{number:07}"),
        role: "member".into(),
        exp: jsonwebtoken::get_current_timestamp() + 86_400,
    }
}

/// Sessions in the store, as the lesson keeps them: `session:{id}`, JSON, one hour.
async fn sessions(stage: &Stage, findings: &mut Findings, cost: &mut Cost) -> Outcome<()> {
    let count = stage.pick(1_000, 5_000, 20_000);
    stage.say(format!("{count} sessions in the store"));
    let store: Store = stage.store().await?;
    let client = Client::connect(store.url(), Link::Multiplexed).await?;
    let mut chance = stage.chance("session ids");
    let ids: Vec<String> = (0..count).map(|_| format!("session:{:032x}", chance.u128(..))).collect();

    let before = store.memory().await?;
    for (batch, ids) in ids.chunks(BATCH).enumerate() {
        let mut pipeline = redis::pipe();
        for (number, id) in ids.iter().enumerate() {
            let json = serde_json::to_string(&session(batch * BATCH + number))?;
            pipeline.cmd("SET").arg(id).arg(json).arg("EX").arg(3600).ignore();
        }
        client.pipeline::<()>(&pipeline).await?;
    }
    cost.sessions = count;
    cost.session = store.memory().await?.saturating_sub(before) as f64 / count as f64;

    let mut found = 0;
    for (batch, ids) in ids.chunks(BATCH).enumerate() {
        let kept: Vec<Option<String>> = client.run(cmd("MGET").arg(ids)).await?;
        for (number, json) in kept.iter().enumerate() {
            let kept = json.as_ref().and_then(|json| serde_json::from_str::<Session>(json).ok());
            found += usize::from(kept.is_some_and(|kept| kept.sub == session(batch * BATCH + number).sub));
        }
    }
    findings.holds(
        "chat.sessions",
        quote("Strategy 3: Centralized Session Store", "Sessions survive server restarts"),
        format!("{} found in the store by their id", share(found, count)),
        count,
        found == count,
        "No replica took part: whichever a user reaches can look the session up.",
    );
    store.close().await
}

/// Tokens, which nobody keeps but the client.
fn tokens(stage: &Stage, findings: &mut Findings, cost: &mut Cost) -> Outcome<()> {
    let count = stage.pick(200, 1_000, 5_000);
    let (key, check) = (EncodingKey::from_secret(SECRET), DecodingKey::from_secret(SECRET));
    let (mut size, mut accepted) = (0, 0);
    for number in 0..count {
        let session = session(number);
        let token = encode(&Header::default(), &session, &key)?;
        size += token.len();
        let read = decode::<Session>(&token, &check, &Validation::new(Algorithm::HS256))?;
        accepted += usize::from(read.claims == session);
    }
    cost.tokens = count;
    cost.token = size as f64 / count as f64;
    findings.holds(
        "chat.tokens",
        quote("Comparison Table", "Server Memory: JWT: None"),
        format!(
            "{} accepted with nothing stored; {:.0} B each at the client",
            share(accepted, count),
            cost.token
        ),
        count,
        accepted == count,
        "The token carries the identity; a server needs its key and no memory of the user.",
    );
    Ok(())
}

/// A million, and which of the three.
fn conclude(findings: &mut Findings, cost: &Cost) {
    let lesson = quote("WebSocket Connections", "Persistent connection. Server remembers the client");
    let (Some(pintle), Some(replica)) = (cost.pintle, cost.replica) else {
        findings.untested("chat.memory", lesson, "This system does not tell what memory a process holds.");
        return;
    };
    let socket = pintle + replica;
    let kernel = cost.kernel.map_or("not told here".into(), bytes);
    findings.weigh(
        "chat.memory",
        lesson,
        format!(
            "an idle socket {} (Pintle {}, replica {}; kernel buffers {kernel}), a session {}, a token 0 B",
            bytes(socket),
            bytes(pintle),
            bytes(replica),
            bytes(cost.session)
        ),
        cost.sockets,
        socket > cost.session,
        "The connection is what a million users cost the servers, and it stays with its replica in every \
         strategy; what is chosen is only where the identity lives.",
    );
    findings.show(table(cost, pintle, replica));
    findings.left_out(
        "A million users were not connected: their memory is (RSS with n sockets − RSS before) / n × \
         1,000,000, without buffers in use, TLS, the kernel's own records of 3 sockets per user, several \
         replicas and balancers, and the work of passing each message to a whole room.",
    );
    let million = |each: f64| bytes(each * MILLION);
    findings.answer(
        3,
        format!(
            "Sticky: each socket needs it, {} idle ({} for 1 million); a dead replica takes its sockets along.",
            bytes(socket),
            million(socket)
        ),
    );
    findings.answer(
        3,
        format!(
            "Store: {} a session ({} for 1 million), revoked at once. JWT: 0 B on servers, {:.0} B at the client.",
            bytes(cost.session),
            million(cost.session),
            cost.token
        ),
    );
    findings.answer(
        3,
        format!(
            "A hybrid: a socket costs {:.0} sessions, so JWT or store for identity; sticky, registry, pub/sub for sockets.",
            socket / cost.session.max(1.0)
        ),
    );
}

fn table(cost: &Cost, pintle: f64, replica: f64) -> Table {
    let row = |what: &str, n: usize, each: f64, place: &str| {
        vec![what.into(), n.to_string(), bytes(each), bytes(each * MILLION), place.into()]
    };
    let mut rows = vec![
        row("idle WebSocket in Pintle", cost.sockets, pintle, "balancer"),
        row("idle WebSocket in the replica", cost.sockets, replica, "its replica, and no other"),
    ];
    if let Some(kernel) = cost.kernel {
        rows.push(row("its TCP buffers at rest", cost.sockets, kernel, "kernel"));
    }
    rows.push(row("session:{id} in the store", cost.sessions, cost.session, "store"));
    rows.push(row(
        "JWT",
        cost.tokens,
        0.0,
        &format!("client: {:.0} B, sent with each handshake", cost.token),
    ));
    Table {
        title: "What a million users cost, from what some thousands did".into(),
        note: "For each: (memory with n − memory before) / n, times 1,000,000. Pintle runs here inside the \
               example with the system's allocator; the program of its own brings another."
            .into(),
        columns: ["what", "n", "each", "1,000,000", "where"].map(Into::into).into(),
        rows,
    }
}
