//! What threads share, checked in every order of events.
//!
//! The room `pool` is compiled here once more, from the same files, over loom's atomics and locks
//! instead of std's (see `src/sync.rs`); everything else is the library's. loom runs each check
//! again and again until it has tried every order in which threads may be interrupted at what they
//! share, at most twice in each run (see [`explore`]) where the thread could have gone on, and every value
//! that a load may see under the C11 rules: relaxed loads see old ones, so a fence that is missing
//! is found. It takes a `SeqCst` access for acquire and release, which is less than it is; fences
//! it takes for what they are. Not checked: arc-swap, tokio's channels and `Notify`, whose part a
//! small one plays that blocks the thread.
//!
//! Start at the checks: `limit` (`max_in_flight`), `line` (the queue and who is woken), `drains`
//! (a change of phase against picks and acknowledgements). Connections that one thread hands to
//! another go through a tokio channel and share nothing else: there is nothing of ours to check.
//!
//! `cargo test --test model`, and a part of a name to run that check alone.

// Rooms have more than the checks use.
#![allow(dead_code, unused_imports)]

mod drains;
mod fixture;
// The room's own tests name it. None of them runs here.
#[path = "../../src/fuzz.rs"]
mod fuzz;
mod limit;
mod line;
#[path = "../../src/pool/mod.rs"]
mod pool;
mod sync;

// What the room calls `crate::…`.
use pintle::{drain, http, listen, plan, telemetry, upstream};

use std::time::Instant;

/// Of each thread: rooms need more than loom gives.
const STACK: usize = 1 << 20;

type Check = (&'static str, fn());

fn main() {
    let checks: Vec<Check> = [limit::CHECKS, line::CHECKS, drains::CHECKS].concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(&***part));
    for (name, check) in checks.into_iter().filter(|(name, _)| is_wanted(name)) {
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
            continue;
        }
        let began = Instant::now();
        print!("test {name} ... ");
        check();
        println!("ok ({:.1} s)", began.elapsed().as_secs_f64());
    }
}

/// Tries the threads of `check` in every order with so many interruptions of one that could have
/// gone on. Almost all mistakes show with two; with four threads that takes too long.
fn explore(interruptions: usize, check: impl Fn() + Send + Sync + Clone + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        let check = check.clone();
        spawn(check).join().expect("the check holds");
    });
}

fn spawn(work: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
    loom::thread::Builder::new().stack_size(STACK).spawn(work).expect("loom starts as many as it is told to")
}
