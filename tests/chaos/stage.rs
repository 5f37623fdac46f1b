//! Everything that runs, and what is done with it: traffic, one fault, the judgement; again.
//!
//! Start at [`Stage::phase`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::Options;
use crate::balancer::{Balancer, Ended, Event};
use crate::faults::{self, Done, Fault};
use crate::file::File;
use crate::fleet::{Backend, Ledger};
use crate::keeper::Keeper;
use crate::report::Row;
use crate::rules;
use crate::traffic::{Diet, Failure, Tally, Traffic};

/// The access log has every line by then.
const LOGGED_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How big and how long things are.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Of a download.
    pub bytes: u64,
    pub over: Duration,
    /// Of a drain. Longer than a download takes, so that none is cut.
    pub deadline: Duration,
}

/// Every fault once, or again and again until the time is over.
pub async fn run(options: &Options, faults: &[Fault]) -> BTreeMap<Fault, Row> {
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let mut stage = Stage::set(options).await;
    let mut rows: BTreeMap<Fault, Row> = BTreeMap::new();
    let mut order = faults.to_vec();
    loop {
        for fault in &order {
            let began = Instant::now();
            let row = rows.entry(*fault).or_default();
            let before = (row.failed(), row.violations.len());
            stage.phase(*fault, row).await;
            let bad = row.violations.len() - before.1;
            let failed = row.failed() - before.0;
            let verdict = if bad > 0 { format!("{bad} WITHOUT A REASON") } else { "ok".into() };
            let took = began.elapsed().as_secs_f64();
            println!("chaos {:8} {verdict} ({failed} failed for a reason, {took:.1} s)", fault.name());
            if options.minutes > 0.0 && Instant::now() >= end {
                return rows;
            }
        }
        if Instant::now() >= end {
            return rows;
        }
        stage.random.shuffle(&mut order);
    }
}

/// Everything that runs.
pub struct Stage {
    pub backends: Vec<Backend>,
    /// The only backend of its pool.
    pub solo: Backend,
    pub balancer: Balancer,
    pub file: File,
    pub random: fastrand::Rng,
    pub pace: Pace,
    ledger: Ledger,
    next_id: u64,
    /// The last: it ends the others.
    pub keeper: Rc<Keeper>,
}

impl Stage {
    async fn set(options: &Options) -> Self {
        let (keeper, ledger) = (Rc::new(Keeper::start()), Ledger::default());
        let mut backends = Vec::new();
        for number in 1..=4 {
            let name = format!("b{number}");
            backends.push(Backend::start(&keeper, &name, address(number), &ledger).await);
        }
        let solo = Backend::start(&keeper, "solo", address(5), &ledger).await;
        let known = backends.iter().map(|backend| (backend.name.clone(), backend.address));
        let file = File::new(known.collect(), solo.address);
        let balancer = Balancer::start(&keeper, &options.pintle, "run", &file.text()).await;
        let long = options.minutes > 0.0;
        let seconds = Duration::from_secs;
        let pace = match long {
            true => Pace { bytes: 8 << 20, over: seconds(3), deadline: seconds(8) },
            false => Pace { bytes: 2 << 20, over: seconds(1), deadline: seconds(3) },
        };
        let random = fastrand::Rng::with_seed(options.seed);
        Self { backends, solo, balancer, file, random, pace, ledger, next_id: 0, keeper }
    }

    /// Traffic, one fault in the middle of it, and the judgement.
    pub async fn phase(&mut self, fault: Fault, row: &mut Row) {
        let (told, before) = (self.balancer.told().len(), row.violations.len());
        let mark = self.balancer.log_mark();
        let mixed = Diet::mixed(self.pace.bytes, self.pace.over);
        let diet = if fault == Fault::Hold { Diet::solo() } else { mixed };
        let traffic = Traffic::start(self.balancer.address, diet, self.next_id);
        traffic.flows(150).await;
        let done = faults::act(fault, self).await;
        self.balancer.well().await;
        traffic.flows(50).await;
        let (tally, next_id) = traffic.stop().await;
        self.next_id = next_id;
        let quiet = async |it: &Balancer| {
            let status = it.status().await;
            status["predecessors"].as_array().is_some_and(Vec::is_empty)
                && status["totals"]["requests_in_flight"] == 0
                && status["totals"]["tunnels"] == 0
        };
        self.balancer.eventually("nothing is left of the traffic", quiet).await;
        let Done { strikes, slowest } = done.unwrap_or_else(|why| {
            row.violations.push(why);
            Done::default()
        });
        for backend in self.backends.iter_mut().chain([&mut self.solo]) {
            backend.sync().await;
        }
        let logged = self.logged(mark, &tally).await;
        let judgement = rules::judge(&tally, &strikes, &self.ledger, &logged);
        self.ledger.clear();
        row.phases += 1;
        row.requests += tally.counts.values().sum::<u64>();
        for (rule, count) in judgement.explained {
            *row.explained.entry(rule).or_default() += count;
        }
        row.violations.extend(judgement.violations);
        row.slowest = row.slowest.max(tally.slowest);
        if let Some(limit) = slowest.filter(|limit| tally.slowest > *limit) {
            row.violations.push(format!("a GET took {:?}, and {limit:?} is the most", tally.slowest));
        }
        if let Some(strike) = strikes.first() {
            row.noticed = row.noticed.max(self.noticed(&strike.backend, strike.from).first().copied());
            let hurt = judgement.last_hurt.and_then(|hurt| hurt.checked_duration_since(strike.from));
            row.hurt = row.hurt.max(hurt);
        }
        if row.violations.len() > before {
            println!("{}", &self.balancer.told()[told..]);
        }
    }

    /// When each pool told that the backend was down, counted from `since`.
    pub fn noticed(&self, backend: &str, since: Instant) -> Vec<Duration> {
        let then = SystemTime::now() - since.elapsed();
        let down = |event: &Event| {
            event.kind == "health" && event.backend == backend && event.message.contains(" down")
        };
        let events = self.balancer.events().into_iter().filter(down);
        events.filter_map(|event| event.at.duration_since(then).ok()).collect()
    }

    /// With whom the access log says that those requests were of which no backend has said it.
    async fn logged(&self, mark: u64, tally: &Tally) -> HashMap<String, String> {
        let unknown =
            |failure: &&Failure| failure.backend.is_none() && self.ledger.seen(&failure.id).begun.is_empty();
        let ids: Vec<&str> =
            tally.failures.iter().filter(unknown).map(|failure| failure.id.as_str()).collect();
        let until = Instant::now() + LOGGED_WITHIN;
        loop {
            let lines = self.balancer.log_since(mark);
            let told =
                lines.iter().filter_map(|line| Some((line["id"].as_str()?, line["backend"].as_str()?)));
            let told = told.filter(|(id, _)| ids.contains(id));
            let logged: HashMap<_, _> =
                told.map(|(id, backend)| (id.to_owned(), backend.to_owned())).collect();
            if logged.len() == ids.len() || Instant::now() > until {
                return logged;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A command about this Pintle, run to its end.
    pub fn command(&self, arguments: Vec<String>) -> impl Future<Output = Ended> + use<> {
        self.balancer.run(self.keeper.clone(), arguments)
    }
}

/// An address of this run's own. Nobody else is at it, and no client's port comes from there, so that
/// it is free when its backend comes back.
pub fn address(number: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 64 + (number & 15), high, low.max(1)], 9000 + u16::from(number)))
}
