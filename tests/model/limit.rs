//! `max_in_flight`: never more, whoever asks at the same time, and nothing left when all have gone.

use std::sync::Arc;
use std::time::Instant;

use crate::fixture::Inside;
use crate::pool::policy::Load;
use crate::{Check, explore, spawn};

pub const CHECKS: &[Check] = &[
    ("a_limit_holds_whoever_asks_at_the_same_time", a_limit_holds_whoever_asks_at_the_same_time),
    ("a_lower_limit_admits_nobody_beyond_it", a_lower_limit_admits_nobody_beyond_it),
];

fn a_limit_holds_whoever_asks_at_the_same_time() {
    explore(2, || {
        let load = Arc::new(Load::new(Instant::now()));
        load.limit(1);
        let inside = Inside::default();
        let threads = [(); 3].map(|()| {
            let (load, inside) = (load.clone(), inside.clone());
            spawn(move || {
                if load.take(false) == Some(true) {
                    assert_eq!(inside.comes(), 0, "one is the limit");
                    inside.goes();
                    load.end();
                }
            })
        });
        for thread in threads {
            thread.join().expect("it ends");
        }
        assert_eq!(load.in_flight(), 0);
    });
}

/// Who looked at the limit before it was lowered may still come in by the old one, and no other.
fn a_lower_limit_admits_nobody_beyond_it() {
    explore(2, || {
        let load = Arc::new(Load::new(Instant::now()));
        load.limit(2);
        let threads = [(); 2].map(|()| {
            let load = load.clone();
            spawn(move || {
                assert_ne!(load.take(false), Some(false), "with a limit all are counted");
            })
        });
        load.limit(1);
        for thread in threads {
            thread.join().expect("it ends");
        }
        assert!((1..=2).contains(&load.in_flight()));
        assert_eq!(load.take(false), None, "the limit is reached");
    });
}
