//! The queue of those who wait: nobody waits while somebody could serve, no slot is lost and none
//! is given twice.

use std::sync::Arc;

use crate::fixture::{Inside, Thread, plan, pool, publish};
use crate::plan::PoolPlan;
use crate::pool::Pool;
use crate::pool::status::Standing;
use crate::{Check, explore, spawn};

pub const CHECKS: &[Check] = &[
    ("who_comes_up_is_seen_by_who_has_just_joined", who_comes_up_is_seen_by_who_has_just_joined),
    ("who_is_called_calls_the_next", who_is_called_calls_the_next),
    (
        "a_slot_that_comes_free_reaches_who_has_just_joined",
        a_slot_that_comes_free_reaches_who_has_just_joined,
    ),
    ("a_slot_goes_from_one_to_the_next_and_is_never_two", a_slot_goes_from_one_to_the_next_and_is_never_two),
    ("a_slot_of_one_who_leaves_reaches_who_stays", a_slot_of_one_who_leaves_reaches_who_stays),
    ("a_limit_that_is_raised_reaches_who_waits", a_limit_that_is_raised_reaches_who_waits),
];

fn limited(max: u32) -> PoolPlan {
    plan(&format!("max_in_flight = {max}"))
}

/// A request on a data thread of its own.
fn request(pool: &Arc<Pool>, thread: usize, inside: &Inside) -> loom::thread::JoinHandle<()> {
    let (pool, inside) = (pool.clone(), inside.clone());
    spawn(move || {
        let thread = Thread::new(&pool, thread);
        serve(&thread, &pool, &inside);
    })
}

fn serve(thread: &Thread, pool: &Pool, inside: &Inside) {
    let lease = thread.lease();
    let others = inside.comes();
    let max = pool.plan.max_in_flight;
    assert!(max == 0 || others < max, "the limit is {max}");
    inside.goes();
    drop(lease);
}

/// Nobody waits any more, and nothing is in flight.
fn is_quiet(pool: &Pool) {
    assert_eq!(pool.shared.hold.waiting(), 0);
    for backend in &pool.backends {
        assert_eq!((backend.vitals.load.in_flight(), backend.vitals.counts().in_flight), (0, 0));
    }
}

fn who_comes_up_is_seen_by_who_has_just_joined() {
    let plan = plan("");
    explore(2, move || {
        let (pool, inside) = (pool(&plan), Inside::default());
        let request = request(&pool, 0, &inside);
        publish(&pool, Standing::Open, false);
        request.join().expect("it is served");
        is_quiet(&pool);
    });
}

fn who_is_called_calls_the_next() {
    let plan = plan("");
    explore(1, move || {
        let (pool, inside) = (pool(&plan), Inside::default());
        let requests = [0, 1].map(|thread| request(&pool, thread, &inside));
        publish(&pool, Standing::Open, false);
        for request in requests {
            request.join().expect("it is served");
        }
        is_quiet(&pool);
    });
}

fn a_slot_that_comes_free_reaches_who_has_just_joined() {
    let plan = limited(1);
    explore(2, move || {
        let (pool, inside) = (pool(&plan), Inside::default());
        publish(&pool, Standing::Open, false);
        let (first, second) = (Thread::new(&pool, 0), request(&pool, 1, &inside));
        serve(&first, &pool, &inside);
        second.join().expect("it is served");
        is_quiet(&pool);
    });
}

fn a_slot_goes_from_one_to_the_next_and_is_never_two() {
    let plan = limited(1);
    explore(1, move || {
        let (pool, inside) = (pool(&plan), Inside::default());
        publish(&pool, Standing::Open, false);
        let first = Thread::new(&pool, 0);
        let lease = first.lease();
        let others = [1, 2].map(|thread| request(&pool, thread, &inside));
        drop(lease);
        for request in others {
            request.join().expect("it is served");
        }
        is_quiet(&pool);
    });
}

fn a_slot_of_one_who_leaves_reaches_who_stays() {
    let plan = limited(1);
    explore(1, move || {
        let (pool, inside) = (pool(&plan), Inside::default());
        publish(&pool, Standing::Open, false);
        let first = Thread::new(&pool, 0);
        let lease = first.lease();
        // Its client goes away, slot or not.
        let leaves = pool.shared.hold.join(9, None).expect("there is room in the line");
        let gone = spawn(move || drop(leaves));
        let stays = request(&pool, 1, &inside);
        drop(lease);
        stays.join().expect("it is served");
        gone.join().expect("it goes");
        is_quiet(&pool);
    });
}

fn a_limit_that_is_raised_reaches_who_waits() {
    let (one, two) = (limited(1), limited(2));
    explore(2, move || {
        let pool = pool(&one);
        publish(&pool, Standing::Open, false);
        let first = Thread::new(&pool, 0);
        let kept = first.lease();
        let second = {
            let pool = pool.clone();
            spawn(move || drop(Thread::new(&pool, 1).lease()))
        };
        // What a reload changes, but for the snapshot, which is not the room's.
        pool.backends[0].vitals.load.limit(two.max_in_flight);
        pool.shared.hold.wake();
        second.join().expect("it is served beside the first");
        drop(kept);
        is_quiet(&pool);
    });
}
