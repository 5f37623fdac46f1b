//! Game servers (Q7): players of a match must meet, and their positions are in memory.
//!
//! Start at [`run`]. The match server is in [`server`], who plays on it in [`players`].

mod players;
mod server;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use self::players::{Fate, PLAYERS, Party, places, play};
use self::server::INTERVAL;
use crate::harness::figures::share;
use crate::harness::{Balancer, Bars, Chapter, Findings, Outcome, Quote, Replica, Stage, Table, quote};

pub const CHAPTER: Chapter = Chapter {
    name: "game",
    title: "Game servers (Q7)",
    about: "Three match servers keep positions in memory. Players are led to their match by its id, a fourth server \
            is added while they play, and one is killed; once without and once with snapshots in the store.",
    guess: "A fourth server is added: how many matches must move, if the id is hashed consistently, and how many with \
            hash % n?",
    roles: &[("game", server::role)],
    run: |stage| Box::pin(run(stage)),
};

/// All requests with the same `?match=` go to the same server.
const TOML: &str = r#"
[pool.app]
policy = "consistent_hash"
hash_on = "query:match"
backends = BACKENDS

[pool.app.health]
path = "/healthz"
interval = "100ms"
rise = 1
fall = 2
"#;

/// A snapshot is taken in the midst of these, and some steps come after it.
const ROUNDS: usize = INTERVAL as usize + 2;

const MATCHING: Quote = quote("Practice Questions", "Matching players to the right server");
const CRASH: Quote = quote("Practice Questions", "Server crashes (player progress lost?)");
const PEAK: Quote = quote("Practice Questions", "Scaling during peak hours");
const NEXT: Quote =
    quote("Next Up", "the elegant algorithm behind distributed caches, databases, and load balancers");

async fn run(stage: &Stage) -> Outcome<Findings> {
    let mut findings = Findings::default();
    stage.say("where match ids lead with three servers, and with four");
    let moved = spread(stage).await?;
    growth(&mut findings, &moved);
    stage.say("matches in memory only; a fourth server is added, then one is killed");
    let bare = evening(stage, None).await?;
    stage.say("the same with snapshots in the store");
    let store = stage.store().await?;
    let saved = evening(stage, Some(store.url())).await?;
    store.close().await?;
    meeting(&mut findings, &saved);
    peak(&mut findings, &bare, &saved);
    crash(&mut findings, &bare, &saved);
    answers(&mut findings, &moved, &bare, &saved);
    Ok(findings)
}

/// Which ids lead elsewhere when a fourth server joins three.
struct Moved {
    ids: usize,
    consistent: usize,
    /// Those of `consistent` that went to the new server.
    to_the_new: usize,
    modulo: usize,
}

async fn spread(stage: &Stage) -> Outcome<Moved> {
    let replicas = servers(4, None).await?;
    let mut chance = stage.chance("match ids");
    let ids = (0..stage.pick(400, 1000, 4000)).map(|_| format!("{:08x}", chance.u32(..)));
    let ids: Vec<String> = ids.collect();
    let balancer = Balancer::start(stage, TOML, &replicas[..3]).await?;
    let before = places(balancer.address, &ids).await?;
    balancer.reload(TOML, &replicas).await?;
    balancer.wait_for(&replicas[3].name, "up").await?;
    let after = places(balancer.address, &ids).await?;
    balancer.shutdown().await;

    let moves: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    let to_the_new = moves.iter().filter(|(_, after)| **after == replicas[3].name).count();
    let hash = |id: &String| BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
    let modulo = ids.iter().filter(|id| hash(id) % 3 != hash(id) % 4).count();
    Ok(Moved { ids: ids.len(), consistent: moves.len(), to_the_new, modulo })
}

/// What an evening with a fourth server and a crash did to the matches.
struct Evening {
    matches: usize,
    /// While nothing happened: matches whose players were on one server.
    met: usize,
    /// The same under round_robin.
    met_by_turns: usize,
    grown: Vec<Fate>,
    crashed: Vec<Fate>,
    /// Matches on the server that was killed.
    on_the_killed: usize,
}

async fn evening(stage: &Stage, store: Option<&str>) -> Outcome<Evening> {
    let mut chance = stage.chance("matches");
    let mut replicas = servers(4, store).await?;
    let parties = (0..stage.pick(18, 80, 300)).map(|number| Party::new(number, format!("m{number}")));
    let mut parties: Vec<Party> = parties.collect();
    let balancer = Balancer::start(stage, TOML, &replicas[..3]).await?;
    let at = balancer.address;
    let met = play(at, &mut parties, ROUNDS, &mut chance).await?;

    balancer.reload(TOML, &replicas).await?;
    balancer.wait_for(&replicas[3].name, "up").await?;
    let grown = play(at, &mut parties, ROUNDS, &mut chance).await?;

    let on_the_killed = parties.iter().filter(|party| party.server() == replicas[0].name).count();
    replicas[0].kill();
    balancer.wait_for(&replicas[0].name, "down").await?;
    // One step shows what is remembered.
    let crashed = play(at, &mut parties, 1, &mut chance).await?;

    // Other matches, so that no fate of these is spoilt.
    let others = parties.iter().enumerate().map(|(number, _)| Party::new(number, format!("turn{number}")));
    let mut others: Vec<Party> = others.collect();
    balancer.reload(&TOML.replace("consistent_hash", "round_robin"), &replicas).await?;
    let by_turns = play(at, &mut others, 1, &mut chance).await?;
    balancer.shutdown().await;
    let together = |fates: &[Fate]| fates.iter().filter(|fate| fate.servers == 1 && fate.failed == 0).count();
    let (met, met_by_turns) = (together(&met), together(&by_turns));
    Ok(Evening { matches: parties.len(), met, met_by_turns, grown, crashed, on_the_killed })
}

async fn servers(number: usize, store: Option<&str>) -> Outcome<Vec<Replica>> {
    let mut servers = Vec::new();
    for number in 1..=number {
        servers.push(Replica::start("game", &format!("g{number}"), store).await?);
    }
    Ok(servers)
}

/// What the fates of several matches come to.
struct Sum {
    moved: usize,
    anew: usize,
    players: usize,
    steps: u64,
    worst: u64,
    failed: usize,
}

fn sum(fates: &[Fate]) -> Sum {
    Sum {
        moved: fates.iter().filter(|fate| fate.moved).count(),
        anew: fates.iter().filter(|fate| fate.anew).count(),
        players: fates.iter().map(|fate| fate.players).sum(),
        steps: fates.iter().map(|fate| fate.steps).sum(),
        worst: fates.iter().map(|fate| fate.worst).max().unwrap_or_default(),
        failed: fates.iter().map(|fate| fate.failed).sum(),
    }
}

fn meeting(findings: &mut Findings, evening: &Evening) {
    findings.holds(
        "game.meet",
        MATCHING,
        format!(
            "{} matches had all {PLAYERS} players on one server; by round_robin {} had",
            share(evening.met, evening.matches),
            evening.met_by_turns,
        ),
        evening.matches,
        evening.met == evening.matches && evening.met_by_turns < evening.matches,
        "consistent_hash on the match id sends everybody who names the same match to the same server; nobody keeps a \
         list.",
    );
}

fn growth(findings: &mut Findings, moved: &Moved) {
    let part = |count: usize| count as f64 / moved.ids.max(1) as f64;
    findings.holds(
        "game.consistent-hash",
        NEXT,
        format!(
            "{} match ids moved from 3 to 4 servers, {} of them to the new one",
            share(moved.consistent, moved.ids),
            moved.to_the_new,
        ),
        moved.ids,
        (0.15..0.35).contains(&part(moved.consistent)) && moved.to_the_new == moved.consistent,
        "The new server takes its quarter from all others, and nothing moves between those.",
    );
    findings.holds(
        "game.modulo",
        NEXT,
        format!("{} of the same ids would move by hash % n", share(moved.modulo, moved.ids)),
        moved.ids,
        (0.65..0.85).contains(&part(moved.modulo)),
        "Only an id with the same remainder by 3 and by 4 stays. This is computed, not sent: Pintle does not hash so.",
    );
    findings.show(Bars {
        title: "Match ids that move when a fourth server joins three".into(),
        note: format!(
            "The same {} ids in both; 25 % is what the fourth server needs, to have as many as the others.",
            moved.ids
        ),
        unit: "% of ids".into(),
        groups: vec![(
            "3 → 4 servers".into(),
            vec![
                ("consistent_hash".into(), 100.0 * part(moved.consistent)),
                ("hash % n".into(), 100.0 * part(moved.modulo)),
            ],
        )],
    });
}

fn peak(findings: &mut Findings, bare: &Evening, saved: &Evening) {
    let (memory, store) = (sum(&bare.grown), sum(&saved.grown));
    findings.fails(
        "game.peak-memory",
        PEAK,
        format!("{} matches began anew when the fourth server joined", share(memory.anew, bare.matches)),
        bare.matches,
        memory.anew == 0 && memory.moved == 0,
        "Existing matches do not finish where they began: their ids now lead to the new server, which knows nothing of \
         them.",
    );
    findings.holds(
        "game.peak-snapshots",
        PEAK,
        format!(
            "{} matches moved and {} were lost; the most that a player lost is {} steps",
            share(store.moved, saved.matches),
            store.anew,
            store.worst,
        ),
        saved.matches,
        store.moved > 0 && store.anew == 0 && store.worst < INTERVAL && store.failed == 0,
        "The new server takes each match up from its snapshot. A real game rather sends only new matches to a new \
         server, and drains an old one until its matches have ended.",
    );
}

fn crash(findings: &mut Findings, bare: &Evening, saved: &Evening) {
    let (memory, store) = (sum(&bare.crashed), sum(&saved.crashed));
    findings.holds(
        "game.crash-memory",
        CRASH,
        format!(
            "{} matches on the killed server began anew; {} players lost {} steps",
            share(memory.anew, bare.on_the_killed),
            memory.players,
            memory.steps,
        ),
        bare.on_the_killed,
        bare.on_the_killed > 0 && memory.anew == bare.on_the_killed,
        "Lost, all of it: the positions were in that process only.",
    );
    findings.holds(
        "game.crash-snapshots",
        CRASH,
        format!(
            "{} of {} matches began anew; {} players lost {} steps, none more than {}",
            store.anew, saved.on_the_killed, store.players, store.steps, store.worst,
        ),
        saved.on_the_killed,
        saved.on_the_killed > 0 && store.anew == 0 && store.worst < INTERVAL && store.failed == 0,
        "A match is saved after every 5 steps of a player, and the server that takes over goes on from there.",
    );
    let row = |what: &str, fates: &[Fate]| {
        let all = sum(fates);
        let cells = [
            share(all.moved, fates.len()),
            all.anew.to_string(),
            all.steps.to_string(),
            all.worst.to_string(),
        ];
        std::iter::once(what.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    findings.show(Table {
        title: "What players lost".into(),
        note: format!("{PLAYERS} players in each match, {ROUNDS} steps each between the events."),
        columns: ["Event", "Matches moved", "Begun anew", "Steps lost", "Most per player"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![
            row("fourth server, memory only", &bare.grown),
            row("fourth server, snapshots", &saved.grown),
            row("server killed, memory only", &bare.crashed),
            row("server killed, snapshots", &saved.crashed),
        ],
    });
}

fn answers(findings: &mut Findings, moved: &Moved, bare: &Evening, saved: &Evening) {
    let (memory, store) = (sum(&bare.crashed), sum(&saved.crashed));
    findings.answer(
        7,
        format!(
            "Crashes: without snapshots {} players lost {} steps; with one after every {INTERVAL} steps in the store \
             nobody lost more than {}.",
            memory.players, memory.steps, store.worst,
        ),
    );
    findings.answer(
        7,
        format!(
            "Peak hours: a fourth server moved {} matches, whose state came from the snapshots; better still, give it \
             new matches only, and drain servers until theirs have ended.",
            share(sum(&saved.grown).moved, saved.matches),
        ),
    );
    findings.answer(
        7,
        format!(
            "Matching: consistent_hash on the match id had the players of {} matches on one server, and moved {} ids \
             for a fourth server where hash % n moves {}.",
            share(saved.met, saved.matches),
            share(moved.consistent, moved.ids),
            moved.modulo,
        ),
    );
    findings.left_out(
        "Games play over UDP or WebSockets and save by the clock; steps are requests here, so that they can be counted.",
    );
}
