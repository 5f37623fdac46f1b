//! The promises, held against what has come of a step.
//!
//! Start at [`hold`], which is asked after every step; [`changed`] after each thing that the control
//! thread takes in, [`picked`] after each choice, and the others when their time comes.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::request::{Picked, State};
use super::world::{Cause, World};
use crate::app::control::Control;
use crate::app::fleet::{Key, Member};
use crate::app::report;
use crate::drain::{Drain, Phase};
use crate::plan::{HealthInit, PolicyPlan, PoolPlan};
use crate::pool::Pool;
use crate::pool::backend::{Counts, Vitals};
use crate::pool::health::Health;
use crate::pool::status::{Standing, admits};
use crate::proxy::Evidence;
use crate::telemetry::Stick;

/// How a backend stood.
pub struct Was {
    vitals: Arc<Vitals>,
    /// Its drain, whether that is over, and whether tokens hold.
    drain: Option<(u64, bool, bool)>,
    health: Health,
    ejected: bool,
    phase: Phase,
}

pub fn standing_of(control: &Control) -> HashMap<Key, Was> {
    let was = |member: &Member| Was {
        vitals: member.vitals.clone(),
        drain: drain_of(member),
        health: member.streak.health(),
        ejected: member.outlier.is_ejected(),
        phase: member.phase(),
    };
    control.fleet.iter().map(|(key, member)| (key.clone(), was(member))).collect()
}

fn drain_of(member: &Member) -> Option<(u64, bool, bool)> {
    let following = member.drain.as_ref()?;
    Some((following.id, following.drain.is_over(), following.drain.holds_tokens()))
}

/// After every step.
pub fn hold(world: &mut World) {
    leases_are_counted(world);
    words_prevail(world);
    let pools = world.control.live.load().pools.clone();
    for pool in &pools {
        stands_as_it_should(world, pool);
        is_seated_as_it_should(world, pool);
    }
    who_left_is_shut(world);
    limits_hold(world);
    nobody_waits_for_nothing(world);
}

/// In-flight counts are the leases that are out.
fn leases_are_counted(world: &World) {
    let mut leases: HashMap<*const Vitals, (u64, u64)> = HashMap::new();
    for request in &world.requests {
        if let Some(lease) = request.lease() {
            let count = leases.entry(Arc::as_ptr(&lease.post.vitals)).or_default();
            if request.is_tunnel() { count.1 += 1 } else { count.0 += 1 }
        }
    }
    let members = world.control.fleet.iter().map(|(_, member)| &member.vitals);
    for vitals in members.chain(&world.control.fleet.former) {
        let counts = vitals.counts();
        let out = leases.remove(&Arc::as_ptr(vitals)).unwrap_or_default();
        assert_eq!((counts.in_flight, counts.tunnels), out, "leases on {}/{}", vitals.pool, vitals.name);
    }
    assert!(leases.is_empty(), "a backend is forgotten that has something to finish");
}

/// The phase is what file, operator and probe say of it.
fn words_prevail(world: &World) {
    for (key, member) in world.control.fleet.iter().filter(|(_, member)| !member.removed) {
        let entry = &world.book.backends[key];
        assert_eq!(member.words.phase(), entry.phase(), "{key:?}: {:?}", member.words);
        let drains = matches!(entry.phase(), Phase::Draining | Phase::Stopped);
        assert_eq!(member.drain.is_some(), drains, "{key:?} is {}", member.phase());
    }
}

fn stands_as_it_should(world: &World, pool: &Pool) {
    let plan = &pool.plan;
    let members: Vec<&Member> = world.control.fleet.of(plan).collect();
    assert_eq!(members.len(), plan.backends.len());
    let stands = |trusts: bool, spares: bool| {
        members.iter().map(move |member| standing(member, plan, trusts, spares)).collect::<Vec<_>>()
    };
    let own = stands(false, false);
    let counts = |member: &&Member| {
        let judged = plan.health.is_none()
            || member.streak.health() != Health::Unknown
            || plan.health.as_ref().is_some_and(|health| health.init == HealthInit::Up);
        member.phase() == Phase::Active && member.unresolved.is_none() && judged
    };
    let all = members.iter().copied().filter(|member| counts(member)).count() as f64;
    let open = own.iter().filter(|standing| **standing == Standing::Open).count() as f64;
    let panics = open < all * plan.panic_threshold;
    let ought = match () {
        () if panics => stands(true, true),
        () if open > 0.0 => own,
        () => stands(false, true),
    };
    let are: Vec<Standing> = members.iter().map(|member| member.vitals.standing()).collect();
    assert_eq!(are, ought, "pool {}", plan.name);
    assert_eq!(pool.shared.panics.load(Ordering::Relaxed), panics, "pool {} panics", plan.name);
}

/// How a backend ought to stand. `trusts`: what probes found is ignored; `spares`: ejections are.
fn standing(member: &Member, plan: &PoolPlan, trusts: bool, spares: bool) -> Standing {
    let init = plan.health.as_ref().map_or(HealthInit::Up, |health| health.init);
    let lives = match member.streak.health() {
        Health::Up => true,
        Health::Down => trusts,
        Health::Unknown => init == HealthInit::Up,
    };
    let out = member.outlier.is_ejected() && !spares;
    if member.removed || member.unresolved.is_some() || !lives || out {
        return Standing::Shut;
    }
    let holds = member.drain.as_ref().is_some_and(|following| following.drain.holds_tokens());
    match member.phase() {
        Phase::Active => Standing::Open,
        Phase::Draining if member.keeps_sessions() && holds => Standing::Known,
        Phase::Draining | Phase::Drained | Phase::Stopped => Standing::Shut,
    }
}

/// Those who are dealt to are the open primaries, or the open backups while there are none.
fn is_seated_as_it_should(world: &mut World, pool: &Pool) {
    let open = |backup: bool| {
        let of_kind = pool.backends.iter().filter(move |backend| backend.plan.backup == backup);
        of_kind.filter(|backend| backend.vitals.standing() == Standing::Open).collect::<Vec<_>>()
    };
    let seated = if open(false).is_empty() { open(true) } else { open(false) };
    for backend in &pool.backends {
        let sits = seated.iter().any(|seat| Arc::ptr_eq(&seat.vitals, &backend.vitals));
        assert_eq!(backend.vitals.is_seated(), sits, "{}/{}", pool.name, backend.plan.name);
    }
    let seats = seated.iter().map(|seat| (seat.plan.name.clone(), seat.plan.weight)).collect();
    world.book.deals.entry(pool.plan.name.clone()).or_default().seated(seats);
}

fn who_left_is_shut(world: &World) {
    let fleet = &world.control.fleet;
    let removed = fleet.iter().filter(|(_, member)| member.removed).map(|(_, member)| &member.vitals);
    for vitals in removed.chain(&fleet.former) {
        assert_eq!(vitals.standing(), Standing::Shut, "{}/{} has left", vitals.pool, vitals.name);
    }
}

/// No more are in flight than `max_in_flight`, or than were when it was lowered.
fn limits_hold(world: &mut World) {
    for pool in &world.control.live.load().pools {
        let max = pool.plan.max_in_flight;
        for backend in &pool.backends {
            let load = backend.vitals.load.in_flight();
            let ceiling = world.ceilings.entry(Arc::as_ptr(&backend.vitals) as usize).or_insert(u32::MAX);
            *ceiling = match max {
                0 => u32::MAX,
                max if *ceiling == u32::MAX => load.max(max),
                max => (*ceiling).max(max),
            };
            assert!(load <= *ceiling, "{} on {}/{}", load, pool.name, backend.plan.name);
            if max > 0 {
                *ceiling = load.max(max);
            }
        }
    }
}

/// Where somebody waits who could be served now, somebody of that line has been called.
fn nobody_waits_for_nothing(world: &World) {
    let pools = &world.control.live.load().pools;
    for request in &world.requests {
        let State::Waits { line, called: false, .. } = &request.state else { continue };
        let Some(view) = request.pool() else { continue };
        let hold = &view.pool.shared.hold;
        let called = || {
            world.requests.iter().any(|other| {
                let waits = matches!(other.state, State::Waits { called: true, .. });
                waits && other.ticket.as_ref().is_some_and(|ticket| ticket.is_for(hold))
            })
        };
        let now = pools.iter().find(|pool| Arc::ptr_eq(&pool.shared.hold, hold));
        let Some(now) = now else {
            assert!(called(), "the pool {} is gone, and nobody is told", request.pool);
            continue;
        };
        let has_room = |vitals: &Vitals| {
            let max = now.plan.max_in_flight;
            max == 0 || vitals.load.in_flight() < max
        };
        match line.wants {
            Some(place) => {
                let wants = &view.posts[place].vitals;
                assert!(admits(wants.standing(), true), "its backend has shut, and it is not told");
                assert!(
                    !has_room(wants) || called(),
                    "its backend has room, nobody is called:\n{}",
                    shown(world, now)
                );
            }
            None => {
                let serves = |vitals: &Arc<Vitals>| {
                    vitals.is_seated() && has_room(vitals) && !is_suspected(world, vitals)
                };
                let could = now.backends.iter().any(|backend| serves(&backend.vitals));
                assert!(!could || called(), "somebody could serve, nobody is called:\n{}", shown(world, now));
            }
        }
    }
}

/// How things stand in a pool, for who looks for the reason.
fn shown(world: &World, pool: &Pool) -> String {
    let mut text = format!("pool {}, max_in_flight {}\n", pool.name, pool.plan.max_in_flight);
    for backend in &pool.backends {
        let vitals = &backend.vitals;
        let (standing, load, counts) = (vitals.standing(), vitals.load.in_flight(), vitals.counts());
        let seated = vitals.is_seated();
        text += &format!("{}: {standing:?}, seated: {seated}, load {load}, {counts:?}\n", backend.plan.name);
    }
    for request in world.requests.iter().filter(|request| *request.pool == *pool.name) {
        text += &format!("{}\n", request.shown());
    }
    text
}

/// It has refused a connection, of which the control thread has not heard, or does not want to: who
/// was refused there waits for the others.
fn is_suspected(world: &World, vitals: &Arc<Vitals>) -> bool {
    let told = |evidence: &Evidence| Arc::ptr_eq(&evidence.vitals, vitals);
    let key = (vitals.pool.to_string(), vitals.name.to_string());
    let down = world.control.fleet.get(&key).is_some_and(|member| member.streak.health() == Health::Down);
    down || world.evidence.iter().any(told)
}

/// After each thing that the control thread has taken in: what may change by it, and what may not.
pub fn changed(world: &mut World, before: &HashMap<Key, Was>, cause: &Cause) {
    world.event += 1;
    let plan = &world.control.plan;
    for (key, member) in world.control.fleet.iter() {
        let Some(was) = before.get(key) else { continue };
        drain_changed(&mut world.shut, world.event, world.now, was, member);
        if !Arc::ptr_eq(&was.vitals, &member.vitals) {
            assert!(matches!(cause, Cause::Reload), "only a reload moves a backend");
            continue;
        }
        let Some(pool) = plan.pool(&key.0) else { continue };
        let entry = world.book.backends.get_mut(key).expect("it is known");
        let (rise, fall) = pool.health.as_ref().map_or((1, 1), |health| (health.rise, health.fall));
        let ready = member.phase() == Phase::Active && was.phase != Phase::Active;
        match cause {
            Cause::Refused(of) if of == key => {
                entry.passes = 0;
                entry.fails = if was.health == Health::Down { entry.fails } else { 1 };
            }
            _ if ready && was.phase != Phase::Draining => (entry.passes, entry.fails) = (0, 0),
            _ => {}
        }
        match (was.health, member.streak.health()) {
            (before, Health::Down) if before != Health::Down => {
                let may = match cause {
                    Cause::Refused(of) => of == key,
                    Cause::Failed(of) => of == key && (entry.fails >= fall || before == Health::Unknown),
                    Cause::Order | Cause::Reload | Cause::Tick => ready,
                    _ => false,
                };
                assert!(may, "{key:?} went down for nothing");
            }
            (before, Health::Up) if before != Health::Up => {
                let may = match cause {
                    Cause::Passed(of) => of == key,
                    Cause::AskedToDrain(of) => of == key && before == Health::Unknown,
                    _ => false,
                };
                assert!(may, "{key:?} came up for nothing");
            }
            (Health::Up, Health::Up) => {
                let down = matches!(cause, Cause::Failed(of) if of == key) && entry.fails >= fall;
                assert!(!down, "{key:?} has failed {} probes", entry.fails);
                assert!(!matches!(cause, Cause::Refused(of) if of == key), "{key:?} refuses connections");
            }
            (Health::Down, Health::Down) => {
                let up = matches!(cause, Cause::Passed(of) if of == key) && entry.passes >= rise;
                assert!(!up || ready, "{key:?} has passed {} probes", entry.passes);
            }
            _ => {}
        }
        if member.outlier.is_ejected() && !was.ejected {
            assert!(matches!(cause, Cause::Fault(of) if of == key), "{key:?} is ejected for nothing");
            let of_pool = || world.control.fleet.of(pool);
            let open =
                of_pool().any(|other| other.plan.name != key.1 && other.vitals.standing() == Standing::Open);
            assert!(open, "{key:?} was the last");
            let ejected = of_pool().filter(|other| other.outlier.is_ejected()).count() as f64;
            let most = pool.outlier.as_ref().expect("the pool ejects").max_ejected;
            assert!(ejected <= pool.backends.len() as f64 * most, "{ejected} of {}", pool.name);
        }
        if was.ejected && !member.outlier.is_ejected() {
            assert!(matches!(cause, Cause::Tick), "{key:?} is no longer ejected");
        }
    }
}

/// Notes when every thread had to learn of a drain anew: when it begins and at closing time. One that
/// is over, and not by force, has left nobody.
fn drain_changed(shut: &mut HashMap<u64, u64>, event: u64, now: Instant, was: &Was, member: &Member) {
    let Some((id, over, holds)) = drain_of(member) else { return };
    let (was_over, was_holding) = match was.drain {
        Some((before, over, holds)) if before == id => (over, holds),
        _ => {
            shut.insert(id, event);
            (false, holds)
        }
    };
    let drain = &member.drain.as_ref().expect("it was just seen").drain;
    if was_holding && !holds && closes(drain).is_some_and(|closes| now >= closes) {
        shut.insert(id, event);
    }
    if over && !was_over && drain.deadline.is_none_or(|deadline| now < deadline) {
        let counts = member.vitals.counts();
        assert_eq!((counts.in_flight, counts.tunnels), (0, 0), "a drain is over, and somebody is left");
    }
}

/// What those who may be picked had in flight.
pub type Loads = Vec<(Arc<Vitals>, u32)>;

pub fn loads(control: &Control, pool: &str) -> Loads {
    let snapshot = control.live.load();
    let pool = snapshot.pools.iter().filter(|known| known.plan.name == pool);
    let vitals = pool.flat_map(|pool| &pool.backends).map(|backend| &backend.vitals);
    vitals
        .filter(|vitals| vitals.is_seated())
        .map(|vitals| (vitals.clone(), vitals.load.in_flight()))
        .collect()
}

/// After each choice: it went where it may.
pub fn picked(world: &mut World, at: usize, picked: &Picked, loads: &Loads) {
    let Picked { vitals, stick, .. } = picked;
    let request = &world.requests[at];
    let key = (vitals.pool.to_string(), vitals.name.to_string());
    if picked.again {
        return;
    }
    let member = world.control.fleet.get(&key).filter(|member| Arc::ptr_eq(&member.vitals, vitals));
    let member = member.unwrap_or_else(|| panic!("{key:?} has left, or that address of it"));
    let plan = world.control.plan.pool(&key.0).expect("a backend of no pool was picked");
    assert!(!member.removed, "{key:?} has left");
    match world.book.backends[&key].phase() {
        Phase::Active => {}
        Phase::Draining => {
            assert_eq!(*stick, Stick::Valid, "{key:?} drains, and gets somebody new");
            let following = member.drain.as_ref().expect("who drains has a drain");
            assert!(following.drain.holds_tokens(), "{key:?} keeps nobody any more");
        }
        Phase::Drained | Phase::Stopped => panic!("{key:?} is {}", member.phase()),
    }
    let panics = world.control.shared[&key.0].panics.load(Ordering::Relaxed);
    assert!(panics || member.streak.health() != Health::Down, "{key:?} is down");
    assert!(vitals.standing() != Standing::Shut);
    let snapshot = world.control.live.load();
    if !Arc::ptr_eq(&request.view.snapshot, &snapshot) {
        return;
    }
    if let Some(token) = request.token.as_ref().filter(|_| plan.sticky) {
        let bound = (key.0.clone(), token.backend.clone());
        let place = plan.backends.iter().position(|backend| backend.name == token.backend);
        let place = place.filter(|place| !picked.tried.contains(*place));
        let keeps = world.control.fleet.get(&bound).filter(|_| place.is_some());
        let keeps = keeps.is_some_and(|member| admits(member.vitals.standing(), true));
        assert_eq!(keeps, *stick == Stick::Valid, "{token:?} was {stick:?}");
        assert!(!keeps || bound == key, "{token:?} went to {key:?}");
    }
    if *stick == Stick::Valid {
        return;
    }
    assert!(vitals.is_seated(), "{key:?} is nobody's turn");
    if !picked.clean || plan.max_in_flight > 0 || !plan.slow_start.is_zero() {
        return;
    }
    let deals = world.book.deals.get_mut(&key.0).expect("the pool has seats");
    match plan.policy {
        PolicyPlan::RoundRobin => deals.turn(&key.1),
        PolicyPlan::IpHash(_) | PolicyPlan::ConsistentHash(_) => deals.hashed(request.key, &key.1),
        PolicyPlan::LeastConn => {
            let cost = |(vitals, load): &(Arc<Vitals>, u32)| {
                f64::from(*load) / f64::from(deals.seats[&*vitals.name])
            };
            let own = loads.iter().find(|(other, _)| Arc::ptr_eq(other, vitals)).map(cost);
            let least = loads.iter().map(cost).fold(f64::INFINITY, f64::min);
            assert_eq!(own, Some(least), "{key:?} has not the least");
        }
        PolicyPlan::LeastTime | PolicyPlan::RandomTwo => {}
    }
}

/// After a look at drains: until closing time tokens hold, from then on they do not.
pub fn followed(world: &World) {
    for (key, member) in world.control.fleet.iter() {
        let Some(following) = &member.drain else { continue };
        let drain = &following.drain;
        let closing = closes(drain).is_some_and(|closes| world.now >= closes);
        let emptied = world.emptied.contains(&following.id);
        let told = report::drain(key, member).expect("there is something to tell");
        assert_eq!((told.id, told.state == "drained"), (following.id, drain.is_over()));
        assert_eq!(drain.holds_tokens(), drain.keeps && !closing && !emptied, "{key:?}");
    }
}

/// When closing time begins: the last fifth, at least a second and at most thirty.
fn closes(drain: &Drain) -> Option<Instant> {
    let deadline = drain.deadline?;
    let fifth = deadline.saturating_duration_since(drain.began) / 5;
    Some(deadline - fifth.clamp(Duration::from_secs(1), Duration::from_secs(30)))
}

/// When a drain finds that nobody is left: nobody is, every thread knows, and nobody is expected;
/// or its deadline has passed.
pub fn emptied(world: &mut World, vitals: &Arc<Vitals>) {
    let key = (vitals.pool.to_string(), vitals.name.to_string());
    let member = world.control.fleet.get(&key).filter(|member| Arc::ptr_eq(&member.vitals, vitals));
    let Some((member, following)) = member.and_then(|member| Some((member, member.drain.as_ref()?))) else {
        return;
    };
    world.emptied.insert(following.id);
    let drain = &following.drain;
    if drain.deadline.is_some_and(|deadline| world.now >= deadline) {
        return;
    }
    let counts = vitals.counts();
    assert_eq!((counts.in_flight, counts.tunnels), (0, 0), "{key:?} is not empty");
    let shut = world.shut.get(&following.id).copied().unwrap_or_default();
    assert!(world.threads.iter().all(|thread| thread.obeyed > shut), "not every thread knows of {key:?}");
    let closing = closes(drain).is_some_and(|closes| world.now >= closes);
    if drain.keeps && !closing {
        let (clock, window) = (world.clock(), member.session_window().as_secs());
        let there = world.book.backends[&key].sessions.values().any(|seen| clock - seen <= window);
        assert!(!there || !member.keeps_sessions(), "{key:?} has sessions");
    }
}

/// After a thread has obeyed an order to cut: whoever had a lease there is told, and counted once.
pub fn cut(world: &World, thread: usize, vitals: &Arc<Vitals>, before: Counts) {
    let (mut requests, mut tunnels) = (0, 0);
    for request in
        world.requests.iter().filter(|request| Rc::ptr_eq(&request.proxy, &world.threads[thread].proxy))
    {
        if request.lease().is_some_and(|lease| Arc::ptr_eq(&lease.post.vitals, vitals)) {
            assert!(request.timer.is_cut(), "it goes on");
            if request.is_tunnel() { tunnels += 1 } else { requests += 1 }
        }
    }
    let after = vitals.counts();
    let cut = (after.requests_cut - before.requests_cut, after.tunnels_cut - before.tunnels_cut);
    assert_eq!(cut, (requests, tunnels), "cut on {}/{}", vitals.pool, vitals.name);
}

/// Nothing is under way.
pub fn is_quiet(world: &World) -> bool {
    let fleet = &world.control.fleet;
    let is_over = |member: &Member| member.drain.as_ref().is_none_or(|following| following.drain.is_over());
    let mut threads = world.threads.iter();
    world.requests.is_empty()
        && threads.all(|thread| thread.orders.is_empty())
        && fleet.former.is_empty()
        && fleet.iter().all(|(_, member)| !member.removed && is_over(member))
}

/// When all is over: nothing is counted that is gone, and every drain has come to its end.
pub fn end(world: &World) {
    let fleet = &world.control.fleet;
    for (key, member) in fleet.iter() {
        assert!(!member.removed, "{key:?} has left and has nothing to finish");
        assert_eq!(member.vitals.load.in_flight(), 0, "{key:?}");
        let over = member.drain.as_ref().is_none_or(|following| following.drain.is_over());
        assert!(over, "{key:?} drains for ever");
    }
    assert!(fleet.former.is_empty());
    let seats: BTreeMap<_, _> = world.control.shared.iter().collect();
    for (pool, shared) in seats {
        assert_eq!(shared.hold.waiting(), 0, "somebody waits for {pool}");
    }
}
