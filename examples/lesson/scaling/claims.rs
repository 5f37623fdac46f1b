//! What the story says about the lesson. Verdicts rest on counts; only served requests per second
//! are weighed. Start at [`judge`].

use std::collections::BTreeSet;

use super::story::{MOBILE, Scene, Story};
use super::{Event, WAYS};
use crate::harness::figures::share;
use crate::harness::{Aspect, Column, Findings, Quote, Scale, Stage, quote};
use crate::shop::crowd::{Deed, Moment, Sighting};
use crate::shop::{Notice, Strategy};

const FREEDOM: &str = "Stateless Scaling Freedom";
const PROBLEM: &str = "Stateful Scaling Problem";
const STICKY: &str = "Strategy 1: Sticky Sessions";
const REPLICATION: &str = "Strategy 2: Session Replication";
const TABLE: &str = "Comparison Table";
const SAME_IP: Quote = quote(STICKY, "Same IP → same server");

/// One replica of three has a third of the users; what `least_conn` and a hash make of that.
const A_THIRD: std::ops::RangeInclusive<f64> = 0.20..=0.47;
/// And one of four a quarter.
const A_QUARTER: std::ops::RangeInclusive<f64> = 0.15..=0.35;

type Users = BTreeSet<usize>;

pub fn judge(findings: &mut Findings, stage: &Stage, stories: &[Story]) {
    for story in stories {
        match story.way.id {
            "memory-round-robin" => forgetful(findings, story),
            "memory-ip-hash" => by_address(findings, story),
            "memory-sticky" => sticky(findings, story),
            _ => stateless(findings, story),
        }
        if story.scene(Event::StoreDown).is_some() {
            store_down(findings, story);
        }
        if story.scene(Event::Add).is_some() {
            served(findings, stage, story);
        }
        cells(findings, story);
    }
    remember(findings, stories);
}

/// At the smallest scale stands run at the same time, and users are too few to fill three replicas.
pub fn compares_speed(stage: &Stage) -> bool {
    stage.scale != Scale::Small
}

/// Who sat on a replica before an event.
fn sat(story: &Story, event: Event, replica: &str) -> Users {
    users(story.before(event), |seat| seat.replica == replica)
}

fn lost(scene: &Scene) -> Users {
    users(&scene.seats, |seat| !seat.kept)
}

fn users(seats: &[Sighting], which: impl Fn(&Sighting) -> bool) -> Users {
    seats.iter().enumerate().filter(|(_, seat)| which(seat)).map(|(user, _)| user).collect()
}

/// Those scenes of a story in which nobody may notice anything.
fn unnoticed(story: &Story, events: &[Event]) -> (bool, String) {
    let scenes = || events.iter().filter_map(|event| story.scene(*event));
    let count = |of: fn(&Scene) -> usize| scenes().map(of).sum::<usize>();
    let (lost, noticed, failed) =
        (count(Scene::lost), count(|scene| scene.log.noticed()), count(|scene| scene.log.failed()));
    let requests = count(|scene| scene.log.requests());
    let text =
        format!("{lost} sessions lost, {noticed} users noticed, {failed} of {requests} requests failed");
    (lost + noticed + failed == 0 && scenes().count() == events.len(), text)
}

/// Requests of those who were there before replica 4, sent when it was up: how many it answered.
fn fourth(scene: &Scene) -> (usize, usize) {
    let (up, end) = (scene.found.done, scene.found.measured);
    let sent = |moment: &&Moment| moment.at >= up + moment.visit.took && moment.at < end;
    let sent: Vec<_> = scene.log.moments.iter().filter(sent).collect();
    (sent.iter().filter(|moment| moment.visit.replica == "r4").count(), sent.len())
}

fn part(some: usize, all: usize) -> f64 {
    some as f64 / all.max(1) as f64
}

fn forgetful(findings: &mut Findings, story: &Story) {
    let (lost, all) = (story.scenes[0].lost(), story.users());
    findings.holds(
        "scaling.calm.memory-round-robin",
        quote(PROBLEM, "Alice's requests MUST go to Server 1!"),
        format!("{} lost their session while nothing happened", share(lost, all)),
        all,
        part(lost, all) > 0.5,
        "round_robin sends the next request to the next replica, and that one has never heard of Alice.",
    );
}

fn sticky(findings: &mut Findings, story: &Story) {
    let all = story.users();
    let Some([calm, kill, add, remove]) =
        scenes(story, [Event::Calm, Event::Kill, Event::Add, Event::Remove])
    else {
        return;
    };
    let seats = &calm.seats;
    let elsewhere =
        calm.log.moments.iter().filter(|moment| moment.visit.replica != seats[moment.user].replica);
    let elsewhere = elsewhere.count();
    findings.holds(
        "scaling.calm.memory-sticky",
        quote(STICKY, "User always goes to Server 2"),
        format!(
            "{elsewhere} of {} requests went elsewhere; {} sessions lost",
            calm.log.requests(),
            calm.lost()
        ),
        calm.log.requests(),
        elsewhere + calm.lost() == 0,
        "The balancer's cookie names the replica, and the replica is well.",
    );
    kill_of_one(findings, story, kill, quote(STICKY, "Server failure = lost sessions"));
    let (its, requests) = fourth(add);
    let moved =
        add.seats.iter().zip(story.before(Event::Add)).filter(|(now, then)| now.replica != then.replica);
    let moved = moved.count();
    findings.holds(
        "scaling.add.memory-sticky",
        quote(PROBLEM, "But existing users stuck on old servers"),
        format!("replica 4 answered {} of their requests; {moved} users moved", share(its, requests)),
        requests,
        its + moved + add.lost() == 0,
        "Every cookie names an old replica, so the new one starves until somebody new comes.",
    );
    let new = &add.found.newcomers;
    let there = users(new, |seat| seat.replica == "r4").len();
    findings.holds(
        "scaling.newcomers.memory-sticky",
        quote(PROBLEM, "New users can go there"),
        format!("{} newcomers sit on replica 4", share(there, new.len())),
        new.len(),
        there > 0,
        "Whoever has no cookie yet is given to the replica with the fewest requests in flight.",
    );
    let (theirs, gone) = (sat(story, Event::Remove, "r2"), lost(remove));
    findings.holds(
        "scaling.remove.memory-sticky",
        quote(PROBLEM, "Or Bob loses everything!"),
        format!("{} lost their session, and {} sat on replica 2", share(gone.len(), all), theirs.len()),
        all,
        gone == theirs && !gone.is_empty(),
        "Exactly those who sat on the replica that was stopped have lost login and cart.",
    );
    drained(findings, story);
}

fn scenes<const N: usize>(story: &Story, events: [Event; N]) -> Option<[&Scene; N]> {
    let found: Vec<_> = events.iter().filter_map(|event| story.scene(*event)).collect();
    found.try_into().ok()
}

/// Exactly those of replica 1 lose their session: a third.
fn kill_of_one(findings: &mut Findings, story: &Story, kill: &Scene, lesson: Quote) {
    let (theirs, gone, all) = (sat(story, Event::Kill, "r1"), lost(kill), story.users());
    findings.holds(
        &format!("scaling.kill.{}", story.way.id),
        lesson,
        format!("{} lost their session; {} sat on replica 1", share(gone.len(), all), theirs.len()),
        all,
        gone == theirs && A_THIRD.contains(&part(gone.len(), all)),
        "Exactly those who sat on the replica that died have lost login and cart; Pintle answered their \
         next request from another replica, which did not know them.",
    );
}

/// What became of those who sat on a replica that was drained.
struct Farewell {
    /// Logged out while the drain still waited for them, and of these, who noticed anything.
    in_time: usize,
    hurt: usize,
    /// Still there when it no longer did, and of these, who lost their session.
    left: usize,
    lost: usize,
    /// New users who were sent there all the same.
    intruders: usize,
}

fn farewell(story: &Story, scene: &Scene) -> Farewell {
    let theirs = sat(story, Event::Drain, "r3");
    let mut farewell = Farewell { in_time: 0, hurt: 0, left: 0, lost: 0, intruders: 0 };
    for user in theirs {
        let mut moments: Vec<_> = scene.log.moments.iter().filter(|moment| moment.user == user).collect();
        let leaves = moments.iter().position(|moment| moment.deed == Deed::Left);
        let well = |moment: &Moment| moment.at < scene.found.done || moment.visit.notice.is_none();
        let leaves = leaves.filter(|at| well(moments[*at]));
        moments.truncate(leaves.map_or(moments.len(), |at| at + 1));
        let troubled = moments.iter().any(|moment| moment.visit.notice.is_some());
        if leaves.is_some() {
            farewell.in_time += 1;
            farewell.hurt += usize::from(troubled);
        } else {
            farewell.left += 1;
            farewell.lost += usize::from(troubled || !scene.seats[user].kept);
        }
    }
    let came =
        |moment: &&Moment| moment.deed == Deed::Arrived && moment.at - moment.visit.took > scene.found.began;
    let came = scene.log.moments.iter().filter(came);
    farewell.intruders = came.filter(|moment| moment.visit.replica == "r3").count();
    farewell
}

fn drained(findings: &mut Findings, story: &Story) {
    let Some(scene) = story.scene(Event::Drain) else { return };
    let Farewell { in_time, hurt, left, lost, intruders } = farewell(story, scene);
    let Some(drain) = &scene.found.drain else { return };
    findings.holds(
        "scaling.drain.memory-sticky",
        quote(STICKY, "Deployment requires draining"),
        format!("{hurt} of {in_time} users who logged out in time lost anything; {intruders} newcomers were sent there"),
        in_time,
        hurt + intruders == 0 && in_time > 0,
        "A drained replica keeps those it knows and takes nobody new, so whoever finishes in time loses \
         nothing.",
    );
    findings.holds(
        "scaling.left.memory-sticky",
        quote(STICKY, "Can't easily scale down"),
        format!(
            "drained in {:.1} s; {lost} of {left} users who were still there lost their session (Pintle \
             moved {} that it had seen within 8 s)",
            drain.elapsed_seconds, drain.sessions_moved
        ),
        left,
        lost > 0,
        "A deadline ends the wait, not the sessions: who stays longer loses login and cart. Pintle's \
         number is larger because it does not know who has logged out.",
    );
}

fn by_address(findings: &mut Findings, story: &Story) {
    let all = story.users();
    let events = [Event::Calm, Event::NewAddresses, Event::Kill, Event::Return, Event::Add];
    let Some([calm, addresses, kill, back, add]) = scenes(story, events) else { return };
    let office: BTreeSet<_> = calm.seats.iter().step_by(10).map(|seat| &seat.replica).collect();
    findings.holds(
        "scaling.office.memory-ip-hash",
        quote(STICKY, "Uneven load distribution"),
        format!("{} users behind one address sit on {} replica", all.div_ceil(10), office.len()),
        all.div_ceil(10),
        office.len() == 1,
        "An office or a mobile network is one address, so all of it lands on one replica.",
    );
    let movers: Users = (5..all).step_by(MOBILE).collect();
    let gone = lost(addresses);
    findings.fails(
        "scaling.addresses.memory-ip-hash",
        SAME_IP,
        format!("{} users whose address changed lost their session", share(gone.len(), movers.len())),
        movers.len(),
        gone.is_empty() || !gone.is_subset(&movers),
        "Same address, same replica; but a user is not an address, and a phone changes its own.",
    );
    kill_of_one(findings, story, kill, quote(STICKY, "Server failure = lost sessions"));
    findings.fails(
        "scaling.return.memory-ip-hash",
        SAME_IP,
        format!("{} lost their session once more when replica 1 came back empty", share(back.lost(), all)),
        all,
        back.lost() == 0,
        "The hash sends them back to replica 1, and what they began meanwhile stays elsewhere.",
    );
    let gone = lost(add);
    findings.fails(
        "scaling.add.memory-ip-hash",
        SAME_IP,
        format!("{} lost their session when replica 4 was added", share(gone.len(), all)),
        all,
        gone.is_empty(),
        "ip_hash does not keep users in place when a server is added: the new one takes its share of \
         addresses, and their sessions stay behind.",
    );
    findings.holds(
        "scaling.quarter.memory-ip-hash",
        quote(PROBLEM, "Need to add Server 4?"),
        format!("{} moved to replica 4, and nobody else lost anything", share(gone.len(), all)),
        all,
        gone == users(&add.seats, |seat| seat.replica == "r4") && A_QUARTER.contains(&part(gone.len(), all)),
        "Pintle's hash moves only whom it must: about a quarter, when three become four. With \
         `hash % n` it would be three quarters.",
    );
}

/// The lesson's words for what a strategy promises: any server, and no notice of a crash.
fn promises(strategy: Strategy) -> [Quote; 2] {
    match strategy {
        Strategy::Replicated => [
            quote(REPLICATION, "Any server can handle any request!"),
            quote(REPLICATION, "Server failure = no data loss"),
        ],
        Strategy::Central => [
            quote("Strategy 2: External Session Store", "Any server can handle any request!"),
            quote(FREEDOM, "User doesn't notice!"),
        ],
        _ => [quote(FREEDOM, "Alice's request → ANY server works!"), quote(FREEDOM, "User doesn't notice!")],
    }
}

fn stateless(findings: &mut Findings, story: &Story) {
    let (id, all) = (story.way.id, story.users());
    let [any, crash] = promises(story.way.strategy);
    let Some([add, remove, drain]) = scenes(story, [Event::Add, Event::Remove, Event::Drain]) else { return };

    let (calm, text) = unnoticed(story, &[Event::Calm, Event::NewAddresses]);
    let hurried = &story.hurried;
    let old = hurried.iter().filter(|visit| visit.notice == Some(Notice::CartLacks)).count();
    let troubled = hurried.iter().filter(|visit| visit.notice.is_some()).count();
    let replicas: BTreeSet<_> = hurried.iter().map(|visit| &visit.replica).collect();
    findings.holds(
        &format!("scaling.any.{id}"),
        any,
        format!(
            "{} replicas answered; {old} of {} answers to users who add and look at once showed an old cart; {text}",
            replicas.len(),
            hurried.len()
        ),
        hurried.len(),
        calm && troubled == 0 && replicas.len() == 3,
        "What one replica has written the next one reads, because it is kept in none of them alone.",
    );
    let (holds, text) = unnoticed(story, &[Event::Kill, Event::Return]);
    findings.holds(
        &format!("scaling.kill.{id}"),
        crash,
        text,
        all,
        holds,
        "Carts are read with GET and written with PUT, so Pintle may send a request again that died with \
         its replica; the next replica knows as much as the dead one did.",
    );
    let (its, requests) = fourth(add);
    findings.holds(
        &format!("scaling.add.{id}"),
        quote(FREEDOM, "Immediately useful!"),
        format!(
            "replica 4 answered {} of the first {:.1} s; {} sessions lost",
            share(its, requests),
            (add.found.measured - add.found.done).as_secs_f64(),
            add.lost()
        ),
        requests,
        A_QUARTER.contains(&part(its, requests)) && add.lost() + add.log.noticed() == 0,
        "Anybody's next request may go to the new replica, so it carries its quarter at once.",
    );
    let (holds, text) = unnoticed(story, &[Event::Drain]);
    let took = drain.found.drain.as_ref().map_or(0.0, |drain| drain.elapsed_seconds);
    findings.holds(
        &format!("scaling.remove.{id}"),
        quote(FREEDOM, "Zero migration needed!"),
        format!(
            "drained in {:.0} ms: {text}; stopped without draining: {} sessions lost, {} requests in flight failed",
            took * 1000.0,
            remove.lost(),
            remove.log.failed()
        ),
        all,
        holds && remove.lost() == 0,
        "A drain waits only for the requests in flight. Without it these are cut, but nobody's session \
         goes with the replica.",
    );
}

fn store_down(findings: &mut Findings, story: &Story) {
    let Some(scene) = story.scene(Event::StoreDown) else { return };
    let (failed, requests) = outage(scene);
    findings.fails(
        "scaling.outage.central",
        quote(FREEDOM, "Alice's request → ANY server works!"),
        format!("{} requests failed while the store was down for 2 s", share(failed, requests)),
        requests,
        failed == 0,
        "Every replica asks the same store, so without it none can say who Alice is. The other shops \
         here have no store: nothing in them depends on one.",
    );
    findings.fails(
        "scaling.store.central",
        quote(FREEDOM, "No data lost (it's in external store)"),
        format!("{} lost their session when the store came back empty", share(scene.lost(), story.users())),
        story.users(),
        scene.lost() == 0,
        "A replica may die, but the one store has taken over the part of the one server; it needs a copy \
         or a disk of its own.",
    );
}

/// Requests that were sent while the store was down, and how many of them failed.
fn outage(scene: &Scene) -> (usize, usize) {
    let (down, up) = (scene.found.began, scene.found.done);
    let during = |moment: &&Moment| moment.at >= down + moment.visit.took && moment.at < up;
    let during: Vec<_> = scene.log.moments.iter().filter(during).collect();
    (during.iter().filter(|moment| moment.visit.notice == Some(Notice::Failed)).count(), during.len())
}

fn column(story: &Story) -> Option<Column> {
    match story.way.id {
        "memory-sticky" => Some(Column::Sticky),
        "replicated" => Some(Column::Replication),
        "central" => Some(Column::Store),
        "jwt" => Some(Column::Jwt),
        _ => None,
    }
}

/// What the fourth replica adds, in answers per second: a time, and so it is only weighed.
fn served(findings: &mut Findings, stage: &Stage, story: &Story) {
    let (Some(column), Some(scene)) = (column(story), story.scene(Event::Add)) else { return };
    let id = format!("scaling.served.{}", story.way.id);
    let (words, wanted): (_, fn(f64) -> bool) = match column {
        Column::Sticky => ("Scalability: Poor", |gain| gain < 1.1),
        Column::Replication => ("Scalability: Limited", |gain| gain > 1.1),
        Column::Store | Column::Jwt => ("Scalability: Excellent", |gain| gain > 1.1),
    };
    let ((before, after), (its, requests)) = (scene.served(), fourth(scene));
    let gain = after / before.max(1.0);
    let lesson = quote(TABLE, words);
    let mut figure =
        format!("replica 4 takes {:.0} % of existing users' requests", 100.0 * part(its, requests));
    if compares_speed(stage) {
        let text = format!("{before:.0} answers/s with 3 replicas, {after:.0} with 4 (× {gain:.2})");
        let why = "Replicas have a modelled capacity of 4 requests at once, 10 ms each. Only a replica that \
                   existing users may use adds to what they are served.";
        findings.weigh(&id, lesson, text, scene.log.requests(), wanted(gain), why);
        figure = format!("{figure}, served/s × {gain:.2}");
    } else {
        findings.untested(
            &id,
            lesson,
            "At this scale the shops share the processors and are not full; `--scale normal` compares them.",
        );
    }
    let share = part(its, requests);
    let holds = match column {
        Column::Sticky => Some(its == 0),
        // Its limit shows with many replicas; four are few.
        Column::Replication => None,
        Column::Store | Column::Jwt => Some(A_QUARTER.contains(&share)),
    };
    findings.cell(Aspect::Scalability, column, figure, holds);
}

fn cells(findings: &mut Findings, story: &Story) {
    let (Some(column), Some(kill)) = (column(story), story.scene(Event::Kill)) else { return };
    let all = story.users();
    let poor = column == Column::Sticky;
    let figure = format!("{} sessions lost with a replica", share(kill.lost(), all));
    findings.cell(Aspect::Availability, column, figure, Some((kill.lost() > 0) == poor));
    if let Some(down) = story.scene(Event::StoreDown) {
        let (failed, requests) = outage(down);
        let lost = share(down.lost(), all);
        let figure = format!("store down: {} requests failed, {lost} sessions lost", share(failed, requests));
        findings.cell(Aspect::Availability, column, figure, None);
    }
    let lines = story.way.strategy.source().lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    // Among N replicas, or from each to the store.
    let n = super::story::REPLICAS;
    let (processes, links) = match story.way.strategy {
        Strategy::Replicated => (0, n * (n - 1) / 2),
        Strategy::Central => (1, n),
        Strategy::Memory | Strategy::Token | Strategy::Client => (0, 0),
    };
    let figure = format!("{lines} lines, {processes} more processes, {links} links at {n} replicas");
    findings.cell(Aspect::Complexity, column, figure, None);
}

/// The lesson's key concepts, and what is left out.
fn remember(findings: &mut Findings, stories: &[Story]) {
    let lost = |stateful: bool, event: Event| {
        let which = stories.iter().filter(|story| story.way.is_stateful() == stateful);
        let scenes: Vec<_> = which.filter_map(|story| story.scene(event)).collect();
        let seats = scenes.iter().map(|scene| scene.seats.len()).sum();
        share(scenes.iter().map(|scene| scene.lost()).sum(), seats)
    };
    let (with, without) = (lost(true, Event::Kill), lost(false, Event::Kill));
    findings.concept(
        2,
        format!(
            "sessions in one replica's memory: {with} were lost when a replica died; elsewhere {without}"
        ),
    );
    let useful: Vec<_> = stories
        .iter()
        .filter_map(|story| Some((story, fourth(story.scene(Event::Add)?))))
        .map(|(story, (its, all))| format!("{} {:.0} %", story.way.name, 100.0 * part(its, all)))
        .collect();
    findings.concept(3, format!("replica 4's share of existing users' requests: {}", useful.join(", ")));
    if let Some(sticky) = stories.iter().find(|story| story.way.is_sticky()) {
        let lost = |event| sticky.scene(event).map_or(0, Scene::lost);
        findings.concept(
            7,
            format!(
                "sticky_cookie lost nothing while nothing happened, {} sessions to a kill, {} to a removal, and replica 4 starved",
                lost(Event::Kill),
                lost(Event::Remove)
            ),
        );
    }
    let capacity = crate::shop::Capacity::default();
    findings.left_out(format!(
        "Replicas do not compute: each works on {} requests at once for {:?}, a model, because two cores \
         cannot show that more processes do more work.",
        capacity.at_once, capacity.each
    ));
    findings.left_out(
        "There is no network: everybody is on loopback, and the only way in which a replica fails here is \
         that its process dies. A lost link or a slow replica is not tried.",
    );
    debug_assert_eq!(stories.len(), WAYS.len());
}
