//! Chat rooms over three replicas: what a WebSocket ties down, and what a store sets free.
//!
//! Start at the two configurations below and at [`run`]. The replica's app is in [`replica`], a
//! well-behaved client in [`member`]; the scenes are [`seats`] (who sits where), [`crossing`]
//! (messages between replicas) and [`leaving`] (drains and kills under talk).

mod crossing;
mod leaving;
pub mod member;
pub mod replica;
mod seats;

use std::net::SocketAddr;

use self::member::{Account, Member};
use self::replica::{Order, Way};
use crate::harness::{Balancer, Chapter, Findings, Outcome, Replica, Stage, Table, Text};
use crate::store::Store;

pub const CHAPTER: Chapter = Chapter {
    name: "websocket",
    title: "Chat rooms over three replicas",
    about: "Opens WebSockets through Pintle to three replicas of a chat, lets members talk across \
            replicas, drains one replica and kills another, and counts every message.",
    guess: "A replica with a third of the members is killed. How many messages are lost for good?",
    roles: &[("chat-replica", replica::role)],
    run: |stage| Box::pin(run(stage)),
};

/// A handshake without a cookie goes to the next replica in turn; who comes back goes where it was.
const STICKY: &str = r#"
[pool.chat]
policy = "sticky_cookie"
backends = BACKENDS
sticky.fallback = "round_robin"
health = { path = "/healthz", interval = "100ms", rise = 1, fall = 2 }
"#;

/// The hybrid pattern: the same three replicas in two pools, and the path says which one is meant.
const HYBRID: &str = r#"
[[route]]
path = "/"
pool = "api"

[[route]]
path = "=/ws"
pool = "chat"
websocket.idle_timeout = "1h"

[pool.api]              # any replica will do
policy = "round_robin"
backends = BACKENDS
health = { path = "/healthz", interval = "100ms", rise = 1, fall = 2 }

[pool.chat]             # who comes back, comes back to its replica
policy = "sticky_cookie"
backends = BACKENDS
sticky.fallback = "round_robin"
health = { path = "/healthz", interval = "100ms", rise = 1, fall = 2 }
"#;

const REPLICAS: [&str; 3] = ["r1", "r2", "r3"];

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    let mut accounts = Accounts::default();

    stage.say("sockets that stay, rooms in one replica's memory, and handshakes with a cookie");
    let chat = Chat::open(stage, STICKY, Way::Memory, None, "seats").await?;
    seats::socket_stays(stage, &chat, &mut findings).await?;
    seats::room_in_memory(stage, &chat, &mut findings, &mut accounts).await?;
    seats::handshake_sticks(stage, &chat, &mut findings).await?;
    chat.close(Vec::new()).await;

    let store = stage.store().await?;
    seats::hybrid(stage, &store, &mut findings).await?;

    stage.say("messages across replicas: published to all, or sent where the registry says");
    let chat = Chat::open(stage, STICKY, Way::PubSub, Some(&store), "crossing").await?;
    crossing::published(stage, &chat, &mut findings, &mut accounts).await?;
    crossing::registry(stage, &chat, &mut findings, &mut accounts).await?;
    chat.close(Vec::new()).await;
    crossing::away(stage, &store, &mut findings, &mut accounts).await?;

    stage.say("a replica is drained while its members talk; then one is killed, twice");
    leaving::drained(stage, &store, &mut findings, &mut accounts).await?;
    leaving::killed(stage, &store, &mut findings, &mut accounts).await?;
    store.close().await?;

    findings.show(accounts.table());
    findings.show(Text {
        title: "The hybrid pattern, as Pintle reads it".into(),
        note: "Two routes over the same replicas: plain HTTP takes turns, a handshake on /ws follows its \
               cookie. BACKENDS stands for the list of replicas."
            .into(),
        text: HYBRID.trim().into(),
    });
    findings.left_out(
        "Whoever speaks sits on a replica that stays: a client that is cut while it speaks must say it \
         again under an id of its own, which is not part of this chat.",
    );
    Ok(findings)
}

/// Three replicas and the balancer before them.
struct Chat {
    replicas: Vec<Replica>,
    balancer: Balancer,
}

impl Chat {
    async fn open(stage: &Stage, toml: &str, way: Way, store: Option<&Store>, space: &str) -> Outcome<Self> {
        let order = Order { way, store: store.map(|store| store.url().into()), space: space.into() };
        let mut replicas = Vec::new();
        for name in REPLICAS {
            replicas.push(Replica::start("chat-replica", name, &order).await?);
        }
        let balancer = Balancer::start(stage, toml, &replicas).await?;
        Ok(Self { replicas, balancer })
    }

    fn at(&self) -> SocketAddr {
        self.balancer.address
    }

    /// New members of a room, seated in turn.
    async fn members(&self, room: &str, count: usize) -> Outcome<Vec<Member>> {
        let mut members = Vec::new();
        for number in 0..count {
            members.push(Member::join(self.at(), room, &format!("{room}-{number}")).await?);
        }
        Ok(members)
    }

    /// A member who speaks, on a replica other than `elsewhere`.
    async fn speaker(&self, room: &str, elsewhere: &str) -> Outcome<Member> {
        for number in 0..REPLICAS.len() {
            let speaker = Member::join(self.at(), room, &format!("{room}-speaker-{number}")).await?;
            if speaker.seat != elsewhere {
                return Ok(speaker);
            }
        }
        Err(format!("every seat was on {elsewhere}").into())
    }

    /// Members go first: the balancer's end waits for open sockets.
    async fn close(self, members: Vec<Member>) {
        drop(members);
        self.balancer.shutdown().await;
    }
}

/// What was due and what came, by scene.
#[derive(Default)]
struct Accounts(Vec<(&'static str, Account)>);

impl Accounts {
    fn add(&mut self, scene: &'static str, account: Account) -> Account {
        self.0.push((scene, account));
        account
    }

    fn table(&self) -> Table {
        let row = |(scene, account): &(&str, Account)| {
            let counts = [account.due, account.received, account.lost, account.doubled];
            [(*scene).to_owned()].into_iter().chain(counts.map(|count| count.to_string())).collect()
        };
        Table {
            title: "Messages, by what carries them".into(),
            note: "Due is messages said × members who should have been shown each of them exactly once."
                .into(),
            columns: ["scene", "due", "received", "lost", "doubled"].map(Into::into).into(),
            rows: self.0.iter().map(row).collect(),
        }
    }
}

/// `a-1` to `a-n`, what is said in a scene.
fn texts(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}-{number}")).collect()
}
