//! An invented run with every kind of claim and of exhibit, to try the layout on. None of its
//! figures were measured, and none of it is ever printed by a run.

use std::time::Duration;

use crate::harness::exhibit::{Bars, Frame, Lines, Seat, SeatMap, SeatRow, Series, Table, Text};
use crate::harness::{Aspect, AuditRow, Chapter, Column, Findings, Run, Scale, Told, quote};

static FIRST: Chapter = Chapter {
    name: "first",
    title: "An invented chapter: one shop, five ways to keep its session",
    about: "300 users shop on three replicas. Then replica 1 is killed, and replica 4 is added.",
    guess: "How many of 300 carts are lost when one of three replicas dies, with carts in memory?",
    roles: &[],
    run: |_| Box::pin(async { Ok(Findings::default()) }),
};

static SECOND: Chapter = Chapter {
    name: "second",
    title: "An invented chapter that <fails> & says so",
    about: "It does nothing.",
    guess: "Will it work?",
    roles: &[],
    run: |_| Box::pin(async { Ok(Findings::default()) }),
};

pub fn run() -> Run {
    let second = Told {
        chapter: &SECOND,
        findings: Findings::default(),
        failed: Some("replica 2: connection refused".into()),
        took: Duration::from_millis(40),
    };
    let first =
        Told { chapter: &FIRST, findings: findings(), failed: None, took: Duration::from_millis(4200) };
    let told = vec![first, second];
    Run { seed: 9, scale: Scale::Small, store: "embedded".into(), told, took: Duration::from_millis(92_300) }
}

fn findings() -> Findings {
    let mut found = Findings::default();
    claims(&mut found);
    found.show(seats());
    found.show(lines());
    found.show(bars());
    found.show(table());
    found.show(Text {
        title: "A token, taken apart".into(),
        note: "Nobody needed a key to read this.".into(),
        text:
            "header   {\"alg\":\"HS256\"}\npayload  {\"sub\":\"<b>42</b>\",\"role\":\"admin\"}\n\nsignature "
                .to_owned()
                + &"Zm9v".repeat(40),
    });
    let cell = "61 ns p50, 210 ns p99 (n 1000)";
    found.cell(Aspect::Latency, Column::Sticky, cell, Some(true));
    found.cell(Aspect::Latency, Column::Store, "58 µs p50 over loopback", Some(false));
    found.cell(Aspect::Latency, Column::Store, "1.2 ms p50 with 1 ms added by us", Some(true));
    found.cell(Aspect::Complexity, Column::Jwt, "74 lines, 0 processes, 0 links", None);
    for strategy in ["memory × sticky_cookie", "central store × round_robin"] {
        found.audit.push(AuditRow {
            strategy: strategy.into(),
            where_sessions_live: "in one replica's memory, and nowhere else".into(),
            in_memory: "sessions and carts of 100 users".into(),
            on_restart: "100 of 100 log-ins lost".into(),
            any_server: "No: 67 of 100 requests answered 401 elsewhere".into(),
        });
    }
    found.concept(1, "a replica without sessions was killed and nobody noticed");
    found.concept(7, "sticky: the new replica had 0 of 300 users after a second");
    for line in ["Because the carts were nowhere else.", "Drain for longer than a session.", "Move them out."]
    {
        found.answer(1, line);
    }
    found.left_out("Two machines: everything here crosses loopback.");
    found
}

fn claims(found: &mut Findings) {
    let cons = "Session Management Strategies › Strategy 1: Sticky Sessions › Cons";
    let lost = quote(cons, "Server failure = lost sessions");
    found.holds(
        "first.kill",
        lost,
        "100 of 100 sessions lost",
        100,
        true,
        "Their only copy was in that memory.",
    );
    let hash = quote("Strategy 1: Sticky Sessions", "ip_hash;  # Same IP → same server");
    found.fails(
        "first.hash",
        hash,
        "74 of 300 users moved",
        300,
        false,
        "The fourth replica takes its share.",
    );
    let fast = quote("Performance Considerations", "Latency: ~1-5ms");
    found.weigh(
        "first.latency",
        fast,
        "p50 58 µs, p99 140 µs (n 1000)",
        1000,
        false,
        "Loopback is no network.",
    );
    let memory = quote("Strategy 1: Sticky Sessions › Pros", "Fast (memory access)");
    found.weigh("first.memory", memory, "p50 61 ns", 1000, true, "Nothing leaves the process.");
    let pods = quote("Pattern 1", "Scale API pods infinitely!");
    found.untested("first.infinite", pods, "Two cores end before infinity does.");
    let wrong = quote("Pattern <1>", "All state in managed services & none here");
    found.holds("first.wrong", wrong, "12 of 300 kept", 300, false, "This one is invented to fail.");
}

/// Seats by a rule that looks like chance and is not.
fn seats() -> SeatMap {
    let names = |count: usize| (1..=count).map(|nth| format!("replica {nth}")).collect::<Vec<_>>();
    let frame = |caption: &str, replicas: usize, seat: &dyn Fn(usize) -> Seat| Frame {
        caption: caption.into(),
        replicas: names(replicas),
        seats: (0..300).map(seat).collect(),
    };
    let strategy = |name: &str, loses: bool| {
        let killed = move |user: usize| match user % 3 {
            0 => Seat { replica: 1 + user / 3 % 2, moved: true, kept: !loses },
            at => Seat { replica: at, moved: false, kept: true },
        };
        let added = move |user: usize| match user % 4 {
            3 => Seat { replica: 3, moved: true, kept: !loses },
            _ => Seat { moved: false, ..killed(user) },
        };
        let frames = vec![
            frame("before", 3, &|user| Seat { replica: user % 3, moved: false, kept: true }),
            frame("after replica 1 was killed", 3, &killed),
            frame("after replica 4 was added", 4, &added),
            frame("while the store is down", 4, &|user| Seat {
                replica: if user % 10 == 0 { 4 } else { added(user).replica },
                moved: user % 10 == 0,
                kept: user % 10 != 0,
            }),
        ];
        SeatRow { name: name.into(), frames }
    };
    let rows = vec![strategy("memory × ip_hash", true), strategy("central store × round_robin", false)];
    let note = "Each strategy was given the same users and the same events.".into();
    SeatMap { title: "Who lost a session, and when".into(), note, rows }
}

fn lines() -> Lines {
    let series = |name: &str, at: fn(f64) -> f64| Series {
        name: name.into(),
        points: (0..1500).map(|nth| (f64::from(nth) / 100.0, at(f64::from(nth) / 100.0))).collect(),
    };
    Lines {
        title: "Requests served per second, by replica".into(),
        note: "The new replica starves while cookies hold users to the old ones.".into(),
        x: "seconds".into(),
        y: "requests per second".into(),
        series: vec![
            series("replica 1", |x| if x < 5.0 { 120.0 + 8.0 * (x * 9.0).sin() } else { 0.0 }),
            series("replica 2", |x| if x < 5.0 { 118.0 } else { 176.0 } + 6.0 * (x * 7.0).cos()),
            series("replica 3", |x| if x < 5.0 { 121.0 } else { 178.0 } + 7.0 * (x * 8.0).sin()),
            series("replica 4, new", |x| if x < 9.0 { 0.0 } else { 12.0 + x }),
        ],
        marks: vec![(5.0, "replica 1 killed".into()), (9.0, "replica 4 added".into())],
    }
}

fn bars() -> Bars {
    let group = |name: &str, values: [f64; 3]| {
        let names = ["stop", "drain shorter than a session", "drain longer than a session"];
        (name.to_owned(), names.into_iter().map(str::to_owned).zip(values).collect())
    };
    let groups = vec![group("sticky_cookie", [100.0, 41.5, 0.0]), group("ip_hash", [100.0, 98.0, 97.0])];
    Bars { title: "Carts lost in a rolling deploy".into(), note: String::new(), unit: "carts".into(), groups }
}

fn table() -> Table {
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    Table {
        title: "What a write costs at N replicas".into(),
        note: "One write becomes N-1 messages.".into(),
        columns: row(["strategy <x>", "messages per write", "what happened to the users of the replica"]),
        rows: vec![
            row([
                "replicated, N = 3",
                "2",
                "they went on, after a pause that none of them noticed in this run",
            ]),
            row(["replicated, N = 12", "11", "they went on"]),
        ],
    }
}
