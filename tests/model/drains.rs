//! A drain against data threads: once it says that nobody is left, nobody is and nobody comes.
//!
//! The control thread's part is the one of `app::drains`, in short; `drain::Drain` decides. A data
//! thread obeys orders between two requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::sync::mpsc::{Receiver, Sender, channel};

use crate::drain::{Drain, Left, Step};
use crate::fixture::{Inside, Thread, plan, pool, publish};
use crate::http::timer::{Timer, Wheel};
use crate::pool::affinity::Token;
use crate::pool::status::Standing;
use crate::pool::{Claim, Pool};
use crate::{Check, explore, spawn};

pub const CHECKS: &[Check] = &[
    ("a_drain_is_over_when_nobody_is_left_and_nobody_can_come", a_drain_is_over_when_nobody_is_left),
    ("a_thread_that_looked_before_closing_time_has_not_seen_it", a_thread_that_looked_before_closing_time),
    ("who_comes_back_when_a_drain_finds_nobody_is_waited_for", who_comes_back_when_a_drain_finds_nobody),
    ("a_request_that_becomes_a_tunnel_is_never_out_of_sight", a_request_that_becomes_a_tunnel),
];

/// Who has a lease, and whether the drain is over.
#[derive(Clone, Default)]
struct Truth {
    leases: Inside,
    over: Inside,
}

impl Truth {
    fn comes(&self) {
        assert_eq!(self.over.count(), 0, "the drain is over");
        self.leases.comes();
    }

    fn goes(&self) {
        self.leases.goes();
    }

    fn ends(&self) {
        assert_eq!(self.leases.count(), 0, "somebody is left");
        self.over.comes();
    }
}

/// Obeys each of so many orders to look, and serves a request with and without a token between them.
fn data_thread(
    pool: &Arc<Pool>,
    truth: &Truth,
    (orders, looked): (Receiver<u32>, Sender<u32>),
    looks: usize,
) -> loom::thread::JoinHandle<()> {
    let (pool, truth) = (pool.clone(), truth.clone());
    spawn(move || {
        let thread = Thread::new(&pool, 0);
        let backend = pool.backends[0].plan.name.clone();
        let token = Token { backend, issued: 0, last_seen: 0, session: 1 };
        for _ in 0..looks {
            if let Ok(lease) = thread.pick(Claim::Token(&token), None) {
                truth.comes();
                truth.goes();
                drop(lease);
            }
            let order = orders.recv().expect("the control thread says so");
            looked.send(order).expect("the control thread hears it");
        }
        assert!(thread.pick(Claim::Token(&token), None).is_err(), "it is known to be shut");
    })
}

fn left(pool: &Pool) -> Left {
    let counts = pool.backends[0].vitals.counts();
    Left { in_flight: counts.in_flight, tunnels: counts.tunnels, sessions: 1 }
}

fn a_drain_is_over_when_nobody_is_left() {
    let plan = plan("");
    explore(2, move || {
        let (pool, truth, now) = (pool(&plan), Truth::default(), Instant::now());
        publish(&pool, Standing::Open, false);
        let ((order, orders), (looks, looked)) = (channel(), channel());
        let thread = data_thread(&pool, &truth, (orders, looks), 1);
        let mut drain = Drain::begin(false, None, now);
        publish(&pool, Standing::Shut, true);
        order.send(drain.ask()).expect("the thread runs");
        assert_eq!(drain.step(left(&pool), now), None, "nothing is acknowledged");
        drain.acknowledge(looked.recv().expect("the thread looks"));
        assert_eq!(drain.step(left(&pool), now), Some(Step::CloseIdle));
        truth.ends();
        thread.join().expect("it ends");
    });
}

fn a_thread_that_looked_before_closing_time() {
    let plan = plan("policy = \"sticky_cookie\"");
    explore(2, move || {
        let (pool, truth, began) = (pool(&plan), Truth::default(), Instant::now());
        publish(&pool, Standing::Open, false);
        let ((order, orders), (looks, looked)) = (channel(), channel());
        let thread = data_thread(&pool, &truth, (orders, looks), 2);
        let deadline = began + Duration::from_secs(10);
        let mut drain = Drain::begin(true, Some(deadline), began);
        publish(&pool, Standing::Known, true);
        order.send(drain.ask()).expect("the thread runs");
        // The thread is so busy that closing time comes first.
        let closing = deadline - Duration::from_secs(1);
        assert_eq!(drain.step(left(&pool), closing), Some(Step::CloseTokens));
        publish(&pool, Standing::Shut, true);
        order.send(drain.ask()).expect("the thread runs");
        for _ in 0..2 {
            drain.acknowledge(looked.recv().expect("the thread looks"));
            if drain.step(left(&pool), closing) == Some(Step::CloseIdle) {
                truth.ends();
            }
        }
        thread.join().expect("it ends");
        assert_eq!(truth.over.count(), 1, "nobody is left");
    });
}

fn who_comes_back_when_a_drain_finds_nobody() {
    let plan = plan("policy = \"sticky_cookie\"");
    explore(2, move || {
        let (pool, truth, now) = (pool(&plan), Truth::default(), Instant::now());
        publish(&pool, Standing::Known, true);
        let mut drain = Drain::begin(true, None, now);
        let asked = drain.ask();
        drain.acknowledge(asked);
        let ((order, orders), (looks, looked)) = (channel(), channel());
        let thread = {
            let (pool, truth) = (pool.clone(), truth.clone());
            spawn(move || {
                let thread = Thread::new(&pool, 0);
                let backend = pool.backends[0].plan.name.clone();
                let token = Token { backend, issued: 0, last_seen: 0, session: 1 };
                let lease = thread.pick(Claim::Token(&token), None).ok().inspect(|_| truth.comes());
                let obey = || looks.send(orders.recv().expect("it is told")).expect("it is heard");
                obey();
                if let Some(lease) = lease {
                    truth.goes();
                    drop(lease);
                }
                obey();
                assert!(thread.pick(Claim::Token(&token), None).is_err(), "it is known to be shut");
            })
        };
        let nobody = |pool: &Pool| Left { sessions: 0, ..left(pool) };
        let finds_nobody = drain.step(nobody(&pool), now) == Some(Step::CloseIdle);
        publish(&pool, Standing::Shut, true);
        for round in 0..2 {
            order.send(round).expect("the thread runs");
            looked.recv().expect("the thread looks");
            if finds_nobody && !drain.is_over() {
                // Found out again if somebody has come.
                assert!(round == 0 || drain.step(nobody(&pool), now) == Some(Step::CloseIdle));
                drain.emptied(nobody(&pool), now);
                if drain.is_over() {
                    truth.ends();
                }
            }
        }
        assert_eq!(drain.is_over(), finds_nobody);
        thread.join().expect("it ends");
    });
}

fn a_request_that_becomes_a_tunnel() {
    let plan = plan("");
    explore(2, move || {
        let pool = pool(&plan);
        publish(&pool, Standing::Open, false);
        let (begun, begins) = channel();
        let (done, is_done) = channel();
        let thread = {
            let pool = pool.clone();
            spawn(move || {
                let thread = Thread::new(&pool, 0);
                let lease = thread.lease();
                begun.send(()).expect("somebody looks");
                let tunnel = lease.into_tunnel(&Timer::new(&Wheel::new(Instant::now())));
                is_done.recv().expect("somebody has looked");
                drop(tunnel);
            })
        };
        begins.recv().expect("it begins");
        let counts = pool.backends[0].vitals.counts();
        assert!(counts.in_flight + counts.tunnels > 0, "it is one or the other, or just both");
        done.send(()).expect("the tunnel is there");
        thread.join().expect("it ends");
        let counts = pool.backends[0].vitals.counts();
        assert_eq!((counts.in_flight, counts.tunnels), (0, 0));
    });
}
