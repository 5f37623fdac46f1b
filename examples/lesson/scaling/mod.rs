//! Scaling: one shop keeps its session in five ways, and Pintle spreads its users by three
//! policies. Everywhere the same happens: a replica dies, comes back, one is added, one is taken
//! away at once and one in peace. The question is always the same too: who notices?
//!
//! Start at [`WAYS`], then read what happens in [`story`]. What it says about the lesson is in
//! [`claims`], and the pictures are in [`exhibits`].

mod claims;
mod exhibits;
mod story;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::harness::{Chapter, Findings, Outcome, Stage};
use crate::shop::Strategy;

pub const CHAPTER: Chapter = Chapter {
    name: "scaling",
    title: "Scaling: one shop, five ways to keep its session",
    about: "Seven shops of three replicas each, with users who log in and fill a cart. One replica is \
            killed, one is added, one is taken away at once and one is drained; where there is a \
            central store, that goes down too. After each event every user is asked: are you still \
            logged in, and is your cart whole?",
    guess: "A fourth replica is added, and ip_hash sends each address to its replica. How many of the \
            users who are already there lose their cart?",
    roles: &[],
    run: |stage| Box::pin(run(stage)),
};

/// One stand: where the session is, and how the balancer chooses a replica.
pub struct Way {
    /// As claims are called: `scaling.kill.memory-sticky`.
    id: &'static str,
    name: &'static str,
    strategy: Strategy,
    toml: &'static str,
    events: &'static [Event],
}

/// What happens, each under load and followed by a census.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing: users shop.
    Calm,
    /// A few users get another address, as a phone does between two cells.
    NewAddresses,
    /// Replica 1 gets a SIGKILL.
    Kill,
    /// It is back, with nothing remembered.
    Return,
    /// Replica 4 is added to the file.
    Add,
    /// Replica 2 is stopped and gone at once.
    Remove,
    /// Replica 3 is drained, with a deadline, before it is stopped.
    Drain,
    /// The central store is down for a while, and comes back with nothing in it.
    StoreDown,
}

/// What happens everywhere.
const ALL: &[Event] =
    &[Event::Calm, Event::NewAddresses, Event::Kill, Event::Return, Event::Add, Event::Remove, Event::Drain];
/// Where there is a store, it can be lost.
const WITH_STORE: &[Event] = &[
    Event::Calm,
    Event::NewAddresses,
    Event::Kill,
    Event::Return,
    Event::Add,
    Event::Remove,
    Event::Drain,
    Event::StoreDown,
];
/// Who forgets everybody without any event has nothing more to show.
const CALM: &[Event] = &[Event::Calm];

const ROUND_ROBIN: &str = r#"
[pool.app]
policy = "round_robin"
backends = BACKENDS
[pool.app.health]
path = "/healthz"
interval = "150ms"
"#;

const IP_HASH: &str = r#"
[pool.app]
policy = "ip_hash"
backends = BACKENDS
[pool.app.health]
path = "/healthz"
interval = "150ms"
"#;

/// Whoever is silent for `max_idle` is a stranger again, and a drain no longer waits for them.
const STICKY: &str = r#"
[pool.app]
policy = "sticky_cookie"
backends = BACKENDS
[pool.app.sticky]
max_idle = "8s"
[pool.app.health]
path = "/healthz"
interval = "150ms"
"#;

pub const WAYS: [Way; 7] = [
    Way {
        id: "memory-round-robin",
        name: "memory × round_robin",
        strategy: Strategy::Memory,
        toml: ROUND_ROBIN,
        events: CALM,
    },
    Way {
        id: "memory-ip-hash",
        name: "memory × ip_hash",
        strategy: Strategy::Memory,
        toml: IP_HASH,
        events: ALL,
    },
    Way {
        id: "memory-sticky",
        name: "memory × sticky_cookie",
        strategy: Strategy::Memory,
        toml: STICKY,
        events: ALL,
    },
    Way {
        id: "replicated",
        name: "replicated × round_robin",
        strategy: Strategy::Replicated,
        toml: ROUND_ROBIN,
        events: ALL,
    },
    Way {
        id: "central",
        name: "central store × round_robin",
        strategy: Strategy::Central,
        toml: ROUND_ROBIN,
        events: WITH_STORE,
    },
    Way { id: "jwt", name: "JWT × round_robin", strategy: Strategy::Token, toml: ROUND_ROBIN, events: ALL },
    Way {
        id: "client-side",
        name: "client-side × round_robin",
        strategy: Strategy::Client,
        toml: ROUND_ROBIN,
        events: ALL,
    },
];

impl Way {
    /// Whether a user's session is on one replica only.
    fn is_stateful(&self) -> bool {
        self.strategy == Strategy::Memory
    }

    /// Whether the balancer remembers who is where.
    fn is_sticky(&self) -> bool {
        self.toml == STICKY
    }
}

async fn run(stage: &Stage) -> Outcome<Findings> {
    // At the smallest scale they share the processors, so that no speed is compared there.
    let at_once = stage.pick(3, 1, 1);
    let stories: Vec<_> =
        stream::iter(&WAYS).map(|way| story::tell(stage, way)).buffered(at_once).try_collect().await?;
    let mut findings = Findings::default();
    exhibits::show(&mut findings, stage, &stories);
    claims::judge(&mut findings, stage, &stories);
    for c in &findings.claims {
        eprintln!(
            "{} {} exp {:?} holds {:?}: {} (n {})",
            if c.is_as_expected() { "ok  " } else { "BAD " },
            c.id,
            c.expected,
            c.holds,
            c.measured,
            c.n
        );
    }
    for c in &findings.cells {
        eprintln!("cell {c:?}");
    }
    for c in &findings.concepts {
        eprintln!("{c:?}");
    }
    for e in &findings.exhibits {
        if let crate::harness::Exhibit::Table(t) = e {
            eprintln!("{:?}", t.columns);
            for r in &t.rows {
                eprintln!("{r:?}");
            }
        }
    } // TEMP
    Ok(findings)
}
