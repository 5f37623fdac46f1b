//! What the lesson says of memory, revocation, local copies and second services, beside what the
//! [`stands`](super::stands) measured.

use super::stands::{Measured, REPLICAS};
use super::table;
use crate::harness::figures::{bytes, share};
use crate::harness::{Aspect, Column, Findings, Spread, Table, memory, quote};

const COPIES: &str = "Performance Considerations / Optimizations / 2. Local Caching of Sessions";
/// With fewer sessions, their memory cannot be told from that of a few connections.
const TELLING: usize = 1000;

const COLUMNS: [(Column, &str); 4] = [
    (Column::Sticky, "sticky"),
    (Column::Replication, "replication"),
    (Column::Store, "store"),
    (Column::Jwt, "JWT"),
];

pub fn memory(findings: &mut Findings, measured: [&Measured; 4]) {
    let [sticky, replicated, shared, token] = measured;
    let words = table("Server Memory: Sticky High, Replication Very High, Store Low, JWT None");
    let sessions = sticky.sessions;
    findings.holds(
        "lookups.sessions_held",
        words,
        format!(
            "for {sessions} log-ins replicas held {} (sticky), {} (replication), {} (store), {} (JWT)",
            sticky.held, replicated.held, shared.held, token.held
        ),
        4 * sessions,
        sticky.held == sessions as u64
            && replicated.held == (REPLICAS * sessions) as u64
            && shared.held == 0
            && token.held == 0,
        "Each session is in one replica, in all three, in none, and in none.",
    );
    let told = [
        (sticky.held == sessions as u64, "in one replica each"),
        (replicated.held == (REPLICAS * sessions) as u64, "in three replicas each"),
        (shared.held == 0, "in no replica"),
        (token.held == 0, "in no replica"),
    ];
    let each = measured.map(|measured| measured.resident.map(|grown| grown as f64 / sessions as f64));
    let known = sessions >= TELLING && each.iter().all(Option::is_some);
    for (((column, _), each), (holds, held)) in COLUMNS.into_iter().zip(each).zip(told) {
        let bytes =
            each.filter(|_| known).map(|each| format!("; {} per session and replica", bytes(each / 3.0)));
        let figure = format!("{sessions} sessions, {held}{}", bytes.unwrap_or_default());
        findings.cell(Aspect::ServerMemory, column, figure, Some(holds));
    }
    let [Some(one), Some(all), Some(none), Some(nothing)] = each else {
        let why = "This system does not tell what memory a process holds.";
        return findings.untested("lookups.server_memory", words, why);
    };
    if !known {
        let why = "This scale begins too few sessions to tell their memory from that of connections.";
        return findings.untested("lookups.server_memory", words, why);
    }
    let stored = shared.store.map_or(0.0, |grown| grown as f64 / sessions as f64);
    let of_all = [one, all, none, nothing].map(bytes);
    findings.weigh(
        "lookups.server_memory",
        words,
        format!(
            "per session {} (sticky), {} (replication), {} (store; and {} in it), {} (JWT)",
            of_all[0],
            of_all[1],
            of_all[2],
            bytes(stored),
            of_all[3]
        ),
        4 * sessions,
        all > one && one > none && one > nothing,
        "This is the growth of three replicas' resident memory, which comes in pages; only the order is \
         judged, and the kernel's sockets are not part of it.",
    );
    show_memory(findings, measured, of_all, stored);
}

fn show_memory(findings: &mut Findings, measured: [&Measured; 4], of_all: [String; 4], stored: f64) {
    let sockets = memory::sockets().map_or("an unknown amount".into(), |held| bytes(held as f64));
    let stored = ["0 B".into(), "0 B".into(), bytes(stored), "0 B".into()];
    let mut rows = Vec::new();
    for ((((_, name), measured), grown), stored) in COLUMNS.into_iter().zip(measured).zip(of_all).zip(stored)
    {
        rows.push(vec![name.to_owned(), measured.held.to_string(), grown, stored]);
    }
    findings.show(Table {
        title: format!("Memory after {} log-ins, three replicas", measured[0].sessions),
        note: format!("Growth of resident memory; all TCP buffers of this machine held {sockets} then."),
        columns: ["session", "sessions held", "bytes per session, all replicas", "bytes per session, store"]
            .map(String::from)
            .into(),
        rows,
    });
}

pub fn revocation(findings: &mut Findings, measured: &Measured, column: Column, id: &str) {
    let (revoked, shopped) = (&measured.revoked, &measured.shopped);
    let until = Spread::of(revoked.until.iter().copied());
    let words = match column {
        Column::Sticky => table("Revocation: Sticky Instant"),
        Column::Replication => table("Revocation: Replication Instant"),
        Column::Store | Column::Jwt => table("Revocation: Store Instant"),
    };
    findings.holds(
        id,
        words,
        format!(
            "{} were accepted anywhere after the log-out; all replicas had refused after {until}",
            share(revoked.accepted, revoked.sessions)
        ),
        revoked.sessions,
        revoked.accepted == 0,
        "A log-out is known by every replica at once: it was answered when the only copy was gone, or all \
         of them. The time is what it takes to ask three replicas.",
    );
    let figure = format!(
        "{} accepted after log-out, refused everywhere within {:.3} s; {:.0} look-ups per 1,000 requests",
        share(revoked.accepted, revoked.sessions),
        until.p99().as_secs_f64(),
        shopped.per_thousand()
    );
    findings.cell(Aspect::Revocation, column, figure, Some(revoked.accepted == 0));
}

/// What local copies save, and what they cost.
pub fn copies(findings: &mut Findings, shared: &Measured, copied: &Measured) {
    let (without, with) = (&shared.shopped, &copied.shopped);
    findings.holds(
        "lookups.network",
        quote(
            "Making Services Stateless / Strategy 2: External Session Store",
            "Extra latency (network call)",
        ),
        format!("{} look-ups in the store for {} requests", without.lookups, without.requests),
        without.requests,
        without.lookups == without.requests as u64,
        "A replica that remembers nothing asks the store for every request.",
    );
    let hits = with.requests.saturating_sub(with.lookups as usize);
    findings.holds(
        "lookups.copies",
        quote(COPIES, "Cache validated sessions briefly"),
        format!(
            "{} requests were answered from a copy; look-ups per 1,000 fell from {:.0} to {:.0}",
            share(hits, with.requests),
            without.per_thousand(),
            with.per_thousand()
        ),
        with.requests,
        hits > 0,
        "A copy lives 133 ms here for the lesson's 60 s, and users think 22 ms for about ten seconds. With \
         more replicas each user meets fewer copies.",
    );
    findings.holds(
        "lookups.stale",
        quote("When You Need Statefulness / Caching User Data", "Caching creates implicit state!"),
        format!(
            "{} requests showed a cart without what was put in; without copies {}",
            share(with.stale, with.requests),
            share(without.stale, without.requests)
        ),
        with.requests + without.requests,
        with.stale > 0 && without.stale == 0,
        "A copy in one replica does not know what was written through another; whoever caches sessions \
         should cache who it is, and not the cart.",
    );
    let revoked = &copied.revoked;
    let until = Spread::of(revoked.until.iter().copied());
    findings.fails(
        "lookups.instant_with_copies",
        table("Revocation: Store Instant, and a session cache of 60 s"),
        format!(
            "{} were still accepted after the log-out, for up to {:.3} s",
            share(revoked.accepted, revoked.sessions),
            until.at(1.0).as_secs_f64()
        ),
        revoked.sessions,
        revoked.accepted == 0,
        "The lesson's table and its code for caching cannot both be had: with the copies of a minute, a \
         log-out is known after up to a minute, and is instant only without them.",
    );
    findings.holds(
        "lookups.copies_end",
        quote(COPIES, "ttl: 60000 // 1 min"),
        format!("{} were accepted later than a copy's life", share(revoked.accepted_late, revoked.sessions)),
        revoked.sessions,
        revoked.accepted_late == 0,
        "A copy is not renewed by its use, so the delay has an end: 60 s in the lesson, 133 ms here.",
    );
    let figure = format!(
        "with local copies {} accepted after log-out, for {:.3} s; {:.0} look-ups per 1,000 requests",
        share(revoked.accepted, revoked.sessions),
        until.p99().as_secs_f64(),
        with.per_thousand()
    );
    findings.cell(Aspect::Revocation, Column::Store, figure, Some(revoked.accepted == 0));
}

pub fn second_service(findings: &mut Findings, measured: [&Measured; 4]) {
    let expected = [false, false, true, true];
    let (mut all, mut told) = (true, Vec::new());
    for (((column, name), measured), yes) in COLUMNS.into_iter().zip(measured).zip(expected) {
        let as_told = measured.accepted == if yes { measured.users } else { 0 };
        let figure = format!("{} accepted by a second service", share(measured.accepted, measured.users));
        told.push(format!("{name} {}", share(measured.accepted, measured.users)));
        findings.cell(Aspect::CrossService, column, figure, Some(as_told));
        all &= as_told;
    }
    findings.holds(
        "lookups.cross_service",
        table("Cross-Service: Sticky No, Replication No, Store Yes, JWT Yes"),
        format!("a second service accepted: {}", told.join(", ")),
        measured.iter().map(|measured| measured.users).sum(),
        all,
        "A second service can be told where the store is, or the secret; it is in no replica's memory, and \
         to be sent every session it would have to become one of them.",
    );
}
