//! Long-running jobs: a video is encoded, and somebody asks how far it is.
//!
//! Start at [`run`]. The service is in [`api`], the queue and who works on it in [`worker`], who
//! asks in [`client`].

mod api;
mod client;
mod trial;
mod worker;

use self::trial::{Kept, Queued};
use crate::harness::figures::share;
use crate::harness::{Chapter, Findings, Outcome, Quote, Stage, Table, quote};

pub const CHAPTER: Chapter = Chapter {
    name: "jobs",
    title: "Long-running jobs",
    about: "Videos are encoded while their owners ask for progress at three replicas. Jobs are kept in a replica's \
            memory, in a database, and in a queue in the store, and in each case a process is killed.",
    guess: "A worker is killed in the middle of a job, another falls silent and comes back: how many jobs are done \
            twice, and how many do the users see twice?",
    roles: &[("jobs", api::role), ("jobs-database", api::database), ("worker", worker::role)],
    run: |stage| Box::pin(run(stage)),
};

/// A replica that is gone shows in its refused connections; a question is then put to the next.
const TOML: &str = r#"
[pool.app]
policy = "round_robin"
backends = BACKENDS
"#;

const REPLICAS: usize = 3;
const WORKERS: usize = 4;

const LONG: &str = "Long-Running Operations";
const REMEMBER: Quote = quote(LONG, "No need to remember!");

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    stage.say("jobs in the memory of the replica that took them; one replica is killed");
    let memory = trial::in_memory(stage).await?;
    in_memory(&mut findings, &memory);
    stage.say("their status in a database; one replica is killed");
    let database = trial::in_database(stage).await?;
    in_database(&mut findings, &database);
    stage.say("a queue in the store; one worker is killed, one falls silent, one replica is killed");
    let queued = trial::in_queue(stage).await?;
    in_queue(&mut findings, &queued);
    called(&mut findings, &queued);
    compare(&mut findings, &memory, &database, &queued);
    Ok(findings)
}

fn in_memory(findings: &mut Findings, kept: &Kept) {
    let unknown = kept.before.elsewhere - kept.before.known_elsewhere;
    findings.holds(
        "jobs.memory-status",
        quote(LONG, "Server: \"What video? I don't remember!\""),
        format!("{} questions to another replica were answered 404", share(unknown, kept.before.elsewhere)),
        kept.before.elsewhere,
        unknown > 0 && unknown == kept.before.elsewhere && kept.before.known_here == kept.before.here,
        "Only the process that took a job knows about it.",
    );
    findings.holds(
        "jobs.memory-lost",
        quote("Mistake 4: Long-Lived Process State", "If server dies, jobs are lost!"),
        format!("{} jobs gone with one of {REPLICAS} replicas", share(kept.after.forgotten, kept.jobs)),
        kept.jobs,
        kept.on_the_killed > 0 && kept.after.forgotten == kept.on_the_killed,
        "Work and status were in the memory of the replica that was killed.",
    );
}

fn in_database(findings: &mut Findings, kept: &Kept) {
    let asked = kept.before.elsewhere + kept.after.elsewhere;
    let known = kept.before.known_elsewhere + kept.after.known_elsewhere;
    findings.holds(
        "jobs.database-status",
        quote(LONG, "Any server can read status"),
        format!("{} questions to another replica answered", share(known, asked)),
        asked,
        asked > 0 && known == asked && kept.after.forgotten == 0,
        "The status outlives the replica that was killed. Its work does not: a status is no queue.",
    );
}

fn in_queue(findings: &mut Findings, queued: &Queued) {
    let asked = queued.asked.elsewhere + queued.asked.here;
    let known = queued.asked.known_elsewhere + queued.asked.known_here;
    findings.holds(
        "jobs.queue-status",
        quote(LONG, "Status tracked externally"),
        format!("{} questions answered while jobs ran, whichever replica was asked", share(known, asked)),
        asked,
        asked > 0 && known == asked,
        "Replicas read the status from the store; none of them does the work.",
    );
    let done = queued.results.values().filter(|results| **results > 0).count();
    findings.holds(
        "jobs.queue-none-lost",
        quote(LONG, "Any worker can process"),
        format!(
            "{} jobs done, by {} workers; {}, in whose middle a worker was killed, was begun {} times",
            share(done, queued.jobs),
            queued.workers.len(),
            queued.killed,
            queued.begun,
        ),
        queued.jobs,
        done == queued.jobs && queued.workers.len() > 1 && queued.begun > 1,
        "A job lies in its worker's own list while it is worked on, and others put it back when the worker is silent \
         for longer than its lease.",
    );
    let twice = queued.results.values().filter(|results| **results > 1).count();
    findings.holds(
        "jobs.queue-once",
        quote(LONG, "Store job in external queue (Redis, RabbitMQ)"),
        format!(
            "{} jobs were finished {} times, and {twice} have more than one result",
            queued.jobs, queued.finished
        ),
        queued.finished,
        queued.finished > queued.jobs && twice == 0,
        "The worker that fell silent finished a job that another had been given. SET NX takes the first result; a \
         queue alone would have let both through.",
    );
}

fn called(findings: &mut Findings, queued: &Queued) {
    let told = queued.calls.values().filter(|calls| calls.visible > 0).count();
    let twice = queued.calls.values().filter(|calls| calls.visible > 1).count();
    let made: usize = queued.calls.values().map(|calls| calls.made).sum();
    let refused: usize = queued.calls.values().map(|calls| calls.refused).sum();
    let passed_on = queued.calls.values().filter(|calls| calls.by.len() > 1).count();
    findings.holds(
        "jobs.callback",
        quote(LONG, "Server notifies when done"),
        format!(
            "{} jobs told to their client, {twice} of them twice; {} calls were answered 2xx",
            share(told, queued.jobs),
            made - refused,
        ),
        made,
        told == queued.jobs && twice == 0,
        "A call is an order in the queue like any other, and the job's id lets the client ignore a repeated one.",
    );
    findings.fails(
        "jobs.callback-remembers",
        REMEMBER,
        format!(
            "{refused} calls were refused at first and made again; for {} another worker took over",
            share(passed_on, queued.jobs)
        ),
        made,
        refused == 0,
        "The client need not ask, but until its address has answered 2xx somebody must remember to call. Here that is \
         the queue, and no process.",
    );
}

fn compare(findings: &mut Findings, memory: &Kept, database: &Kept, queued: &Queued) {
    let row = |name: &str, elsewhere: String, lost: String, unfinished: String| {
        vec![name.to_owned(), elsewhere, lost, unfinished]
    };
    let kept = |name: &str, kept: &Kept| {
        row(
            name,
            share(kept.before.known_elsewhere, kept.before.elsewhere),
            share(kept.after.forgotten, kept.jobs),
            share(kept.unfinished, kept.jobs),
        )
    };
    let done = queued.results.values().filter(|results| **results > 0).count();
    findings.show(Table {
        title: "Where a job is kept".into(),
        note: "In the first two a replica was killed; in the third a replica and a worker.".into(),
        columns: ["Kept in", "Known at another replica", "Forgotten after the kill", "Never finished"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![
            kept("memory of a replica", memory),
            kept("database, work in a replica", database),
            row(
                "queue in the store",
                share(queued.asked.known_elsewhere, queued.asked.elsewhere),
                share(queued.asked.forgotten, queued.jobs),
                share(queued.jobs - done, queued.jobs),
            ),
        ],
    });
    findings.concept(
        2,
        format!(
            "{} jobs were in a replica's memory and gone with it; from the queue none was.",
            memory.after.forgotten
        ),
    );
    findings.left_out("Encoding is a pause here; what it costs a processor is not the lesson's subject.");
}
