//! What the lesson says of caches, and what was seen.

use super::service::{MAX_AGE, Way};
use super::{Aged, Changed, Grown, Kept, Read, Stuck};
use crate::harness::figures::{bytes, share, time};
use crate::harness::{Findings, Quote, Table, quote};

const HEADING: &str = "Caching User Data";

pub fn changes(changes: &[(Way, Changed)], findings: &mut Findings) {
    for (way, seen) in changes {
        let Changed { users, answers, old, disagreed } = *seen;
        let figure = format!(
            "{} answers were old; {disagreed} of {users} profiles changed back and forth",
            share(old, answers)
        );
        match way {
            Way::Map => findings.holds(
                "cache.maps_disagree",
                quote(HEADING, "Caching creates implicit state!"),
                figure,
                answers,
                old > 0 && disagreed > 0,
                "Only the replica that took the change knows of it. The others answer from their \
                 own Map, for ever.",
            ),
            Way::Shared => findings.holds(
                "cache.shared_agrees",
                quote(HEADING, "External Cache (Redis): All servers share same cache"),
                figure,
                answers,
                old == 0 && answers > 0,
                "The change deletes the one copy that there is, and all replicas ask for that one.",
            ),
            Way::Edge | Way::Nowhere => findings.holds(
                "cache.none_agrees",
                quote(HEADING, "Accept Cache Misses"),
                figure,
                answers,
                old == 0 && answers > 0,
                "What is not kept cannot be old.",
            ),
        }
    }
    findings.left_out(
        "A shared cache can still be filled with an old value when a reader fetches it just before \
         a change and \
         stores it just after. Here a profile is read and changed by one person at a time; an \
         expiry bounds it.",
    );
}

const QUESTION: &str = "Practice Questions";

pub fn growth(grown: &Grown, findings: &mut Findings) {
    let Grown { asked, half, all, memory } = *grown;
    findings.holds(
        "cache.map_grows_without_limit",
        quote(QUESTION, "const cache = new Map()"),
        format!("{half} entries after {} profiles, {all} after {asked}: none ever went", asked / 2),
        asked,
        half == asked / 2 && all == asked,
        "Nothing in the lesson's code takes an entry out, so each person ever seen stays until a restart.",
    );
    let lesson: Quote = quote("Comparison Table", "Server Memory: High");
    match memory {
        Some((before, after)) => findings.weigh(
            "cache.map_takes_memory",
            lesson,
            format!(
                "resident memory of three replicas {} → {}: {} for each profile",
                bytes(before as f64),
                bytes(after as f64),
                bytes((after as f64 - before as f64) / asked as f64)
            ),
            asked,
            after > before,
            "A profile is about 1 KiB of JSON. The rest is what the process keeps ready after \
             serving so many.",
        ),
        None => findings.untested(
            "cache.map_takes_memory",
            lesson,
            "This system does not tell what memory a process has.",
        ),
    }
    findings.concept(
        2,
        format!("A Map in three processes grew by {all} entries for {asked} users, and gave old answers."),
    );
}

fn per_thousand(read: &Read) -> u64 {
    read.lookups * 1_000 / (read.asked.max(1) as u64)
}

pub fn reads(reads: &[(Way, Read)], findings: &mut Findings) {
    let name = |way: &Way| match way {
        Way::Map => "Map in each of three replicas",
        Way::Shared => "shared cache in the store",
        Way::Edge => "at the edge",
        Way::Nowhere => "nowhere: a miss each time",
    };
    let rows = reads.iter().map(|(way, read)| {
        let spread = |spread: &crate::harness::Spread| match spread.n() {
            0 => "none".to_owned(),
            _ => format!("{} / {}", time(spread.p50()), time(spread.p99())),
        };
        let hits = share(read.hits.n(), read.asked);
        vec![
            name(way).to_owned(),
            hits,
            per_thousand(read).to_string(),
            spread(&read.hits),
            spread(&read.misses),
        ]
    });
    findings.show(Table {
        title: "The same readers, four places to keep a profile".into(),
        note: format!(
            "{} requests each, over the same hundred profiles. The database is a process of this machine: \
                       a real one is farther away, and its misses are dearer.",
            reads[0].1.asked
        ),
        columns: ["", "hits", "database look-ups per 1,000", "hit p50 / p99", "miss p50 / p99"]
            .map(Into::into)
            .into(),
        rows: rows.collect(),
    });
    let [(_, map), (_, shared), (_, edge), (_, nowhere)] = reads else { return };
    let asked: usize = reads.iter().map(|(_, read)| read.asked).sum();
    let failed: usize = reads.iter().map(|(_, read)| read.failed).sum();
    findings.holds(
        "cache.lookups",
        quote(HEADING, "Request 2 → Server 2: Cache miss! Load again"),
        format!(
            "database look-ups per 1,000 requests: Map {}, shared {}, edge {}, nowhere {}",
            per_thousand(map),
            per_thousand(shared),
            per_thousand(edge),
            per_thousand(nowhere)
        ),
        asked,
        failed == 0
            && shared.lookups < map.lookups
            && map.lookups < nowhere.lookups
            && edge.lookups < nowhere.lookups
            && nowhere.lookups == nowhere.asked as u64
            && [map, shared, edge].iter().all(|read| read.lookups == read.misses.n() as u64),
        "Each replica has to fill its own Map, so three replicas load the same profile three times.",
    );
    findings.weigh(
        "cache.miss_cost",
        quote(HEADING, "If cache hit ratio is high enough, misses are acceptable overhead"),
        format!("shared cache: hit {}; miss {}; nowhere {}", shared.hits, shared.misses, nowhere.misses),
        shared.asked,
        shared.hits.p50() < shared.misses.p50(),
        "A miss pays for the cache and for the database. Whether that is acceptable is a matter of \
         how rare it is.",
    );
}

pub fn staleness(aged: &Aged, findings: &mut Findings) {
    let Aged { fresh, after, through } = *aged;
    findings.holds(
        "cache.edge_is_old_for_max_age_at_most",
        quote(HEADING, "CDN/Edge Caching: Cache at network edge"),
        format!(
            "changed elsewhere: {} answers old within max-age, {} after it; changed through this edge: {}",
            share(fresh.1, fresh.0),
            share(after.1, after.0),
            share(through.0, through.1)
        ),
        fresh.0 + after.0 + through.1,
        fresh.1 > 0 && after.0 > 0 && after.1 == 0 && through.0 == 0,
        &format!(
            "An edge cannot know what was changed elsewhere, so max-age is how long it may be \
             wrong: 60 s, which \
             are {MAX_AGE} s here, because the header counts whole seconds."
        ),
    );
}

pub fn personal(kept: &Kept, findings: &mut Findings) {
    findings.holds(
        "cache.edge_keeps_nothing_personal",
        quote(HEADING, "Server doesn't hold state"),
        format!(
            "{} of {} personal answers given to somebody else, {} kept",
            kept.shared, kept.asked, kept.kept
        ),
        kept.asked,
        kept.shared == 0 && kept.kept == 0,
        "private, no-store, answers that set a cookie, and answers to a request with Authorization \
         are not stored.",
    );
}

pub fn sticky(stuck: &Stuck, findings: &mut Findings) {
    findings.holds(
        "cache.edge_keeps_no_sticky_cookie",
        quote("Strategy 1: Sticky Sessions", "User always goes to Server 2"),
        format!(
            "{} of {} users got a cookie of their own; {} got one from the edge; {} kept there; {} \
             pages from the edge without one",
            stuck.own, stuck.users, stuck.others, stuck.kept, stuck.hits
        ),
        stuck.users * 3,
        stuck.own == stuck.users && stuck.others == 0 && stuck.kept == 0,
        "Pintle adds private to an answer that sets its cookie, and the edge keeps no Set-Cookie \
         whatever is said. \
         Otherwise everybody would be sent to the first reader's replica.",
    );
}

pub fn answers(changes: &[(Way, Changed)], reads: &[(Way, Read)], findings: &mut Findings) {
    let [(_, map), (_, shared), (_, nowhere)] = changes else { return };
    let [(_, map_reads), (_, shared_reads), (_, edge_reads), _] = reads else { return };
    findings.answer(
        4,
        format!(
            "Stateful: the Map outlives the request. After a change {} of {} answers were old, and \
         users saw both in turn.",
            map.old, map.answers
        ),
    );
    findings.answer(
        4,
        format!(
            "Each replica loads for itself ({} look-ups per 1,000 against {} with one shared cache), \
         and no entry ever goes.",
            per_thousand(map_reads),
            per_thousand(shared_reads)
        ),
    );
    findings.answer(
        4,
        format!(
            "Use a shared cache with an expiry ({} of {} old), an edge with max-age ({} look-ups per \
         1,000), or accept misses ({} old).",
            shared.old,
            shared.answers,
            per_thousand(edge_reads),
            nowhere.old
        ),
    );
}
