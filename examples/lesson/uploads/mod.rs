//! Uploads (Q5 and mistake 2): files sent to any of 10 replicas, wanted back from any other.
//!
//! Start at [`run`]. The service is in [`app`], who uses it in [`client`]; [`trial`] drives one
//! against the other and counts.

mod app;
mod client;
mod disk;
mod trial;

use pintle::app::{Options, Pintle, Source};

use self::trial::{Seen, edge, try_out};
use crate::harness::figures::{bytes, share};
use crate::harness::{
    Boxed, Chapter, Findings, Outcome, Quote, Replica, Setup, Stage, Table, balancer, quote,
};

pub const CHAPTER: Chapter = Chapter {
    name: "uploads",
    title: "Uploads (Q5)",
    about: "Ten replicas take files of up to 100 MiB. First each keeps them on its own disk, then all keep them \
            in one object store. Users ask for their files and their lists at every replica.",
    guess: "A 100 MiB file goes through the balancer: by how much does its memory grow?",
    roles: &[("upload", app::replica), ("objects", app::objects), ("balancer-uploads", balancer_of_its_own)],
    run: |stage| Box::pin(run(stage)),
};

/// No route is needed: everything goes to the one pool. A request whose body is larger is
/// answered 413.
const TOML: &str = r#"
[listener.web]
bind = "127.0.0.1:0"
max_body = "100MiB"

[pool.app]
policy = "round_robin"
backends = BACKENDS
"#;

const REPLICAS: usize = 10;
const MIB: u64 = 1024 * 1024;

const MISTAKE: &str = "Mistake 2: File System State";
const Q5: &str = "Practice Questions";
const LIST: Quote = quote(Q5, "Allows users to list their uploads");
const UP_TO: Quote = quote(Q5, "Accepts files up to 100MB");

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();

    stage.say("each replica keeps files on its own disk");
    let replicas = replicas(None).await?;
    let front = front(stage, &replicas, "100MiB").await?;
    local(&mut findings, &try_out(stage, &front, &replicas, &[]).await?);
    drop((front, replicas));

    stage.say("all replicas keep files in one object store");
    let objects = Replica::start("objects", "objects", ()).await?;
    let replicas = self::replicas(Some(&objects)).await?;
    // 100 MiB files are for the larger scales; the small one meets the same limit at 4 MiB.
    let (limit, size, large) =
        stage.pick(("4MiB", 4 * MIB, 4), ("100MiB", 100 * MIB, 2), ("100MiB", 100 * MIB, 6));
    let front = self::front(stage, &replicas, limit).await?;
    let seen = try_out(stage, &front, &replicas, &vec![size; large]).await?;
    shared(&mut findings, &seen, limit);
    memory(&mut findings, &seen);
    stage.say(format!("files of {limit} and one byte"));
    edges(&mut findings, &edge(&front, size).await?, limit);
    answers(&mut findings, &seen);
    Ok(findings)
}

/// The balancer as a process of its own, whose memory can be told from ours.
fn balancer_of_its_own(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move {
        let pintle = Pintle::start(Source::text(setup.order::<String>()?), Options::default()).await?;
        println!("{}", pintle.address().ok_or("the balancer listens nowhere")?);
        std::future::pending().await
    })
}

async fn front(stage: &Stage, replicas: &[Replica], limit: &str) -> Outcome<Replica> {
    let toml = TOML.replace("100MiB", limit);
    Replica::start("balancer-uploads", "pintle", balancer::text(stage.spoil, &toml, replicas)).await
}

async fn replicas(store: Option<&Replica>) -> Outcome<Vec<Replica>> {
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        let store = store.map(|store| store.address);
        replicas.push(Replica::start("upload", &format!("r{number}"), store).await?);
    }
    Ok(replicas)
}

fn local(findings: &mut Findings, seen: &Seen) {
    findings.holds(
        "uploads.local-downloads",
        quote(MISTAKE, "Might hit different server!"),
        format!("{} downloads from another replica found nothing", share(seen.missing, seen.elsewhere)),
        seen.elsewhere,
        seen.elsewhere > 0 && seen.missing == seen.elsewhere && seen.missing_here == 0,
        "A file lies on the disk of the replica that took it, and the next request goes to another.",
    );
    findings.holds(
        "uploads.local-lists",
        quote(MISTAKE, "Only on THIS server!"),
        format!("{} lists lacked files of their user", share(seen.short_lists, seen.lists)),
        seen.lists,
        seen.short_lists > 0,
        "Each replica lists what it has itself.",
    );
}

fn shared(findings: &mut Findings, seen: &Seen, limit: &str) {
    let wrong = seen.missing + seen.missing_here + seen.spoilt;
    findings.holds(
        "uploads.shared-downloads",
        quote(MISTAKE, "Fix: Use S3/Cloud Storage"),
        format!("{wrong} of {} downloads missing or with other bytes", seen.downloads()),
        seen.downloads(),
        seen.elsewhere > 0 && wrong == 0,
        "All replicas ask the same object store; length and SHA-256 of each download equal what was sent.",
    );
    findings.holds(
        "uploads.shared-lists",
        LIST,
        format!("{} lists lacked files of their user", share(seen.short_lists, seen.lists)),
        seen.lists,
        seen.lists > 0 && seen.short_lists == 0,
        "The list is the object store's, whoever is asked for it.",
    );
    findings.holds(
        "uploads.own-files-only",
        LIST,
        format!("{} of {} looks at another user's files showed something", seen.foreign, seen.looks),
        seen.looks,
        seen.looks > 0 && seen.foreign == 0,
        "The user's name is part of the key, and it comes from who asks, never from the path. The name is a \
         plain header here; a real service takes it from a session or a token.",
    );
    findings.holds(
        "uploads.ten-replicas",
        quote(Q5, "Works across 10 API servers"),
        format!("{} replicas took files and {} gave some", seen.took.len(), seen.gave.len()),
        seen.files,
        seen.took.len() == REPLICAS && seen.gave.len() == REPLICAS,
        "round_robin gives every replica its turn, and none needs to know the others.",
    );
    findings.holds(
        "uploads.accepts",
        UP_TO,
        format!("{} files of exactly {limit} accepted", share(seen.large_accepted, seen.large)),
        seen.large,
        seen.large > 0 && seen.large_accepted == seen.large,
        "The limit itself is allowed, whether the length is told in advance or not. We read the lesson's MB as MiB; \
         the small scale keeps a limit of 4 MiB.",
    );
}

fn edges(findings: &mut Findings, seen: &trial::Edge, limit: &str) {
    let refused = [&seen.told, &seen.chunked].into_iter().filter(|sent| sent.status == 413).count();
    findings.holds(
        "uploads.one-byte-more",
        UP_TO,
        format!(
            "{refused} of 2 files of {limit} and one byte refused with 413, {} kept; {} had left the client \
             when a told length was refused",
            seen.kept,
            bytes(seen.told.bytes as f64),
        ),
        2,
        refused == 2 && seen.kept == 0,
        "A length told in advance is refused at once; without one, the upload is cut at the first byte too many and \
         the object store keeps no part of it.",
    );
}

fn memory(findings: &mut Findings, seen: &Seen) {
    const WORDS: Quote = UP_TO;
    let Some((rest, peak)) = seen.balancer else {
        findings.untested("uploads.balancer-memory", WORDS, "This system does not tell a process's memory.");
        return;
    };
    let grown = peak.saturating_sub(rest);
    findings.weigh(
        "uploads.balancer-memory",
        WORDS,
        format!(
            "{} at rest, {} more at most while {} went through in files of {}",
            bytes(rest as f64),
            bytes(grown as f64),
            bytes(seen.bytes as f64),
            bytes(seen.largest as f64),
        ),
        seen.files,
        grown < seen.bytes / 4,
        "Pintle passes a body on while it comes and holds only what is on its way.",
    );
    let row = |who: &str, (rest, peak): (u64, u64)| {
        vec![who.to_owned(), bytes(rest as f64), bytes(peak as f64), bytes(peak.saturating_sub(rest) as f64)]
    };
    findings.show(Table {
        title: "Resident memory while files stream through".into(),
        note: format!(
            "{} files, {} in all, the largest {}, uploaded at the same time and downloaded again.",
            seen.files,
            bytes(seen.bytes as f64),
            bytes(seen.largest as f64)
        ),
        columns: ["Process", "At rest", "Peak", "Grown by"].map(str::to_owned).to_vec(),
        rows: vec![
            row("the balancer", (rest, peak)),
            row("the replica that grew most", seen.hungriest.unwrap_or_default()),
        ],
    });
}

fn answers(findings: &mut Findings, seen: &Seen) {
    findings.answer(
        5,
        format!(
            "Replicas keep nothing: a file streams through any of {REPLICAS} into one object store, and {} of {} \
             downloads came back whole from whichever replica was asked.",
            seen.downloads() - seen.missing - seen.missing_here - seen.spoilt,
            seen.downloads(),
        ),
    );
    findings.answer(
        5,
        format!(
            "The list is a question to the store by the user's prefix: {} of {} lists were complete, and {} of {} \
             looks at another user's files showed something.",
            seen.lists - seen.short_lists,
            seen.lists,
            seen.foreign,
            seen.looks,
        ),
    );
    let grown =
        seen.balancer.map_or("not measured".into(), |(rest, peak)| bytes(peak.saturating_sub(rest) as f64));
    findings.answer(
        5,
        format!(
            "The size is limited at the balancer (max_body, 413), and nobody holds a whole file: its memory grew by \
             {grown} while {} went through.",
            bytes(seen.bytes as f64),
        ),
    );
    findings.concept(
        3,
        format!(
            "{REPLICAS} replicas took and gave {} files without one message between them, because the files are in \
             the object store.",
            seen.files
        ),
    );
    findings.left_out(
        "Real clouds let clients send straight to the object store with a signed address; here all bytes \
         pass the replicas.",
    );
}
