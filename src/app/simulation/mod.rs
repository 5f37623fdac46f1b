//! The decisions of the balancer under random schedules, in virtual time and without I/O.
//!
//! Start at [`schedule`]. A [`World`] is the real control thread (`Control`), real data threads'
//! views and real requests' ways through `pool`, `route::budget` and `proxy::retry`; only sockets,
//! clocks and threads are played. Its steps are drawn from a seed: what fails, what probes find,
//! what operators and the file say, which thread is late. After each of them [`rules`] holds what
//! has come of it against what ought to be, which it knows from a simple [`book`] of its own.
//!
//! `cargo test --lib simulation` runs [`SCHEDULES`] seeds; `PINTLE_SCHEDULES` asks for another
//! number, and `PINTLE_SEED` for one seed alone: what a failure prints.

mod book;
mod plans;
mod request;
mod rules;
mod world;

use self::world::World;
use crate::admin::view::StateOrder;
use crate::app::report;
use crate::http::timer::Timer;
use crate::plan::BackendAddress;

/// How many are tried where nobody asks for more.
const SCHEDULES: u64 = 2_000;

/// The steps of one.
const STEPS: usize = 80;

#[test]
fn whatever_happens_in_whatever_order_the_promises_hold() {
    let asked = |name| std::env::var(name).ok().map(|text| text.parse().expect("a whole number"));
    let seeds = match asked("PINTLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("PINTLE_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default());
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    let mut served = 0;
    for seed in seeds.clone() {
        let _named = Named(seed);
        served += runtime.block_on(schedule(seed));
    }
    assert!(served >= seeds.count() as u64 / 2, "next to nothing is served: the simulation is blind");
}

/// Runs what the seed draws, then lets everything come to its end. Tells how many requests were
/// answered.
async fn schedule(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.settle().await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.finish().await;
    world.answered
}

/// Says which seed has failed.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PINTLE_SEED={} cargo test --lib simulation   runs this schedule alone", self.0);
        }
    }
}

/// What is told of a drain is a difference of counts, and those begin anew with another address.
#[test]
fn a_backend_that_moves_during_its_second_drain_can_be_told_of() {
    let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default());
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let mut world = World::new(0);
        let mut plan = world.control.plan.clone();
        let key = (plan.pools[0].name.clone(), plan.pools[0].backends[0].name.clone());
        let view = world.threads[0].proxy.view();
        let post = &view.pools[0].posts[0];
        let lease = post.lease(0, &Timer::new(&world.threads[0].proxy.wheel), false);
        post.cut();
        drop(lease);
        let order = StateOrder { state: "draining".into(), force: true, ..StateOrder::default() };
        world.control.set_state(key.clone(), &order, world.now).expect("it is known");
        plan.pools[0].backends[0].address = BackendAddress::Ip(([127, 0, 0, 1], 9999).into());
        let moved = world.control.change_to(String::new(), plans::compiled(plan), world.now).await;
        moved.expect("nothing of it can fail");
        let member = world.control.fleet.get(&key).expect("it is known");
        let told = report::drain(&key, member).expect("it drains");
        assert_eq!((told.requests_cut, told.tunnels_cut), (0, 0));
    });
}
