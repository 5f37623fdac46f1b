//! Health: what probes and refused connections say about one backend, counted.
//!
//! Start at [`Streak`]. Pure: whoever sends the probes passes the verdicts in, with the time,
//! and tells the log about the [`Change`]s that come out. What health means for visits is
//! decided in `status`.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::plan::HealthInit;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass {
        found: Found,
        took: Duration,
    },
    /// `why` in a few words: `connection refused`, `no answer in 1s`, `500`.
    Fail {
        why: Cow<'static, str>,
    },
    /// An answer that means: keep my sessions, send me nobody new.
    DrainAnswer {
        status: StatusCode,
        took: Duration,
    },
}

/// What a probe was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A connect was all that was asked.
    Connected,
    Status(StatusCode),
    /// As gRPC's health service says it.
    Serving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet.
    Unknown,
    Up,
    Down,
}

impl Health {
    /// As `status` and the API spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Unknown, Self::Up, Self::Down].into_iter().find(|health| health.name() == name)
    }
}

/// How many verdicts in a row turn a backend; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes to come back.
    pub rise: u32,
    /// Failures to go down.
    pub fall: u32,
}

/// What a verdict changed, for the log and for whoever acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It may be used; `back` when it had been in use before, which is when slow start applies.
    Up {
        back: bool,
    },
    Down {
        why: Cow<'static, str>,
    },
    /// It asked to be drained.
    Drains,
    /// It no longer asks.
    DrainEnds,
}

/// The state machine of one backend's health.
///
/// One pass admits a backend that was never in use. To come back it needs `rise` passes in a
/// row, but one will do while somebody waits for it (`eager`), or when all that speaks against
/// it is a connection refused in traffic that no probe has confirmed.
#[derive(Clone, Debug)]
pub struct Streak {
    health: Health,
    draining: bool,
    since: Instant,
    /// It has had traffic, or may have had: coming up is coming back.
    used: bool,
    /// Down by [`Streak::refused`] alone.
    unconfirmed: bool,
    passes: u32,
    fails: u32,
    detail: Cow<'static, str>,
    took: Option<Duration>,
}

/// All that a streak knows but its times: what one process tells the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub health: Health,
    pub draining: bool,
    pub used: bool,
    pub unconfirmed: bool,
    pub passes: u32,
    pub fails: u32,
    pub detail: String,
}

impl Streak {
    /// Goes on where another process was.
    pub fn resume(known: Known, now: Instant) -> Self {
        let Known { health, draining, used, unconfirmed, passes, fails, detail } = known;
        let detail = Cow::Owned(detail);
        Self { health, draining, since: now, used, unconfirmed, passes, fails, detail, took: None }
    }

    pub fn known(&self) -> Known {
        Known {
            health: self.health,
            draining: self.draining,
            used: self.used,
            unconfirmed: self.unconfirmed,
            passes: self.passes,
            fails: self.fails,
            detail: self.detail.to_string(),
        }
    }

    /// A backend about which nothing is known.
    pub fn new(init: HealthInit, now: Instant) -> Self {
        Self {
            health: Health::Unknown,
            draining: false,
            since: now,
            used: init == HealthInit::Up,
            unconfirmed: false,
            passes: 0,
            fails: 0,
            detail: Cow::Borrowed("not probed yet"),
            took: None,
        }
    }

    /// It is no longer probed: it cannot have itself drained, nor take that back.
    pub fn asks_no_more(&mut self) {
        self.draining = false;
    }

    /// Where it is has changed: nothing is known of it, but that it was asked to be drained, which
    /// its next pass ends.
    pub fn elsewhere(&self, init: HealthInit, now: Instant) -> Self {
        Self { draining: self.draining, ..Self::new(init, now) }
    }

    /// Takes in what a probe found; `eager` while a request waits for some backend to come back.
    pub fn verdict(
        &mut self,
        verdict: Verdict,
        thresholds: Thresholds,
        eager: bool,
        now: Instant,
    ) -> Vec<Change> {
        match verdict {
            Verdict::Pass { found, took } => {
                self.detail = match found {
                    Found::Connected => Cow::Borrowed("connected"),
                    Found::Status(status) => spelled(status),
                    Found::Serving => Cow::Borrowed("SERVING"),
                };
                self.took = Some(took);
                self.passed(thresholds.rise, eager, now)
            }
            Verdict::Fail { why } => {
                self.detail = why;
                self.took = None;
                self.failed(thresholds.fall, now)
            }
            Verdict::DrainAnswer { status, took } => {
                self.detail = spelled(status);
                self.took = Some(took);
                self.asked_to_drain(now)
            }
        }
    }

    /// A connection was refused in traffic: evidence at once.
    pub fn refused(&mut self, now: Instant) -> Option<Change> {
        self.passes = 0;
        if self.health == Health::Down {
            return None;
        }
        self.unconfirmed = true;
        self.fails = 1;
        self.detail = Cow::Borrowed("connection refused");
        self.took = None;
        Some(self.goes_down(now))
    }

    /// `ready` after it was drained: whatever was known, it waits for `rise` passes.
    pub fn await_rise(&mut self, now: Instant) {
        *self = Self {
            health: Health::Down,
            used: true,
            draining: self.draining,
            detail: Cow::Borrowed("waits for probes"),
            ..Self::new(HealthInit::Probe, now)
        };
    }

    fn passed(&mut self, rise: u32, eager: bool, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        self.fails = 0;
        self.passes = self.passes.saturating_add(1);
        if std::mem::take(&mut self.draining) {
            changes.push(Change::DrainEnds);
        }
        let at_once = eager || !self.used || self.unconfirmed;
        let comes_up = match self.health {
            Health::Up => false,
            Health::Unknown => true,
            Health::Down => at_once || self.passes >= rise,
        };
        if comes_up {
            changes.push(self.comes_up(now));
        }
        changes
    }

    fn failed(&mut self, fall: u32, now: Instant) -> Vec<Change> {
        self.passes = 0;
        self.fails = self.fails.saturating_add(1);
        self.unconfirmed = false;
        let goes_down = match self.health {
            Health::Down => false,
            // It is not in use, so there is nothing to be patient about.
            Health::Unknown if !self.used => true,
            Health::Unknown | Health::Up => self.fails >= fall,
        };
        if goes_down { vec![self.goes_down(now)] } else { Vec::new() }
    }

    /// Neither pass nor fail: no count moves. As a first word it does say that somebody is there,
    /// so that known sessions find their backend after a restart of ours.
    fn asked_to_drain(&mut self, now: Instant) -> Vec<Change> {
        let up = (self.health == Health::Unknown).then(|| self.comes_up(now));
        match std::mem::replace(&mut self.draining, true) {
            false => vec![Change::Drains],
            // It drains since before it moved, and is found where it is now.
            true => up.into_iter().collect(),
        }
    }

    fn comes_up(&mut self, now: Instant) -> Change {
        let back = self.used && self.health == Health::Down;
        (self.health, self.since, self.used, self.unconfirmed) = (Health::Up, now, true, false);
        Change::Up { back }
    }

    fn goes_down(&mut self, now: Instant) -> Change {
        (self.health, self.since) = (Health::Down, now);
        Change::Down { why: self.detail.clone() }
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether its last answers asked for a drain: the `health` word of `drain::Words`.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Since when the health is what it is.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What the last probe or connect saw.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// How long the last answered probe took.
    pub fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Verdicts in a row that agree with the health.
    pub fn length(&self) -> u32 {
        match self.health {
            Health::Up => self.passes,
            Health::Down => self.fails,
            Health::Unknown => 0,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { back: false } => f.write_str("up"),
            Self::Up { back: true } => f.write_str("up again"),
            Self::Down { why } => write!(f, "down: {why}"),
            Self::Drains => f.write_str("draining: its probe asks for it"),
            Self::DrainEnds => f.write_str("no longer asks to be drained"),
        }
    }
}

/// How long after one probe the next one goes out. `jitter` is the share of the interval by
/// which it may come early or late; `random` is between 0 and 1.
pub fn next_probe(interval: Duration, jitter: f64, random: f64) -> Duration {
    interval.mul_f64((1.0 + jitter * (2.0 * random - 1.0)).max(0.0))
}

/// How long after the first probe, which goes out to everybody at once, the second one does:
/// anywhere in the interval, so that later rounds are spread.
pub fn second_probe(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(random)
}

fn spelled(status: StatusCode) -> Cow<'static, str> {
    Cow::Owned(status.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

    fn pass() -> Verdict {
        Verdict::Pass { found: Found::Status(StatusCode::OK), took: Duration::from_millis(1) }
    }

    fn fail() -> Verdict {
        Verdict::Fail { why: "no answer in 1s".into() }
    }

    fn drain() -> Verdict {
        Verdict::DrainAnswer { status: StatusCode::SERVICE_UNAVAILABLE, took: Duration::from_millis(1) }
    }

    fn down(why: &'static str) -> Change {
        Change::Down { why: why.into() }
    }

    /// Feeds verdicts to a streak, none of them eager, and gives the last changes.
    fn feed(streak: &mut Streak, verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Change> {
        let mut feed = |verdict| streak.verdict(verdict, THRESHOLDS, false, Instant::now());
        verdicts.into_iter().map(&mut feed).last().expect("verdicts")
    }

    fn new(init: HealthInit) -> Streak {
        Streak::new(init, Instant::now())
    }

    #[test]
    fn who_moves_while_its_answers_drain_it_is_told_of_when_it_is_found() {
        let mut streak = new(HealthInit::Probe);
        assert_eq!(feed(&mut streak, [drain()]), [Change::Drains]);
        let mut streak = streak.elsewhere(HealthInit::Probe, Instant::now());
        assert_eq!(feed(&mut streak, [drain()]), [Change::Up { back: false }]);
        assert_eq!((streak.health(), streak.draining()), (Health::Up, true));
        assert_eq!(feed(&mut streak, [drain()]), []);
    }

    fn up() -> Streak {
        let mut streak = new(HealthInit::Probe);
        feed(&mut streak, [pass()]);
        streak
    }

    #[test]
    fn one_pass_admits_at_the_start_and_rise_passes_bring_back() {
        let mut streak = new(HealthInit::Probe);
        assert_eq!(feed(&mut streak, [fail()]), [down("no answer in 1s")]);
        assert_eq!(feed(&mut streak, [pass()]), [Change::Up { back: false }]);
        assert_eq!(feed(&mut streak, [fail(), fail()]), []);
        assert_eq!(feed(&mut streak, [fail()]), [down("no answer in 1s")]);
        assert_eq!(feed(&mut streak, [pass()]), []);
        assert_eq!(feed(&mut streak, [pass()]), [Change::Up { back: true }]);
        assert_eq!((streak.detail(), streak.length()), ("200", 2));
    }

    #[test]
    fn a_backend_presumed_up_falls_and_rises_like_any_other() {
        let mut streak = new(HealthInit::Up);
        assert_eq!(feed(&mut streak, [fail(), fail()]), []);
        assert_eq!(streak.health(), Health::Unknown);
        assert_eq!(feed(&mut streak, [fail()]), [down("no answer in 1s")]);
        assert_eq!(feed(&mut streak, [pass()]), []);
    }

    #[test]
    fn a_failure_between_passes_starts_the_count_again() {
        let mut streak = up();
        feed(&mut streak, [fail(), fail(), fail(), pass(), fail(), pass()]);
        assert_eq!(streak.health(), Health::Down);
        feed(&mut streak, [pass(), fail(), fail(), pass(), fail(), fail()]);
        assert_eq!(streak.health(), Health::Up);
    }

    #[test]
    fn a_drain_answer_is_neither_pass_nor_fail_and_the_next_pass_ends_it() {
        let mut streak = up();
        assert_eq!(feed(&mut streak, [drain()]), [Change::Drains]);
        assert_eq!(feed(&mut streak, [drain(), drain(), drain()]), []);
        assert_eq!((streak.health(), streak.draining(), streak.detail()), (Health::Up, true, "503"));
        assert_eq!(feed(&mut streak, [fail(), fail()]), []);
        assert_eq!(feed(&mut streak, [drain(), fail()]), [down("no answer in 1s")]);
        assert!(streak.draining());
        assert_eq!(feed(&mut streak, [drain()]), []);
        assert_eq!(streak.health(), Health::Down);
        assert_eq!(feed(&mut streak, [pass()]), [Change::DrainEnds]);
        assert_eq!(feed(&mut streak, [pass()]), [Change::Up { back: true }]);
    }

    #[test]
    fn a_drain_answer_as_the_first_word_lets_known_sessions_find_their_backend() {
        let mut streak = new(HealthInit::Probe);
        assert_eq!(feed(&mut streak, [drain()]), [Change::Drains]);
        assert_eq!((streak.health(), streak.draining()), (Health::Up, true));
    }

    #[test]
    fn a_refused_connection_is_down_until_one_pass() {
        let mut streak = up();
        assert_eq!(streak.refused(Instant::now()), Some(down("connection refused")));
        assert_eq!(streak.refused(Instant::now()), None);
        assert_eq!(feed(&mut streak, [pass()]), [Change::Up { back: true }]);
    }

    #[test]
    fn a_refused_connection_that_a_probe_confirms_takes_rise_passes() {
        let mut streak = up();
        streak.refused(Instant::now());
        assert_eq!(feed(&mut streak, [fail()]), []);
        assert_eq!(feed(&mut streak, [pass()]), []);
        assert_eq!(feed(&mut streak, [pass()]), [Change::Up { back: true }]);
    }

    #[test]
    fn one_pass_brings_a_backend_back_while_somebody_waits() {
        let mut streak = up();
        feed(&mut streak, [fail(), fail(), fail()]);
        let changes = streak.verdict(pass(), THRESHOLDS, true, Instant::now());
        assert_eq!(changes, [Change::Up { back: true }]);
    }

    #[test]
    fn ready_waits_for_rise_passes() {
        let mut streak = up();
        streak.await_rise(Instant::now());
        assert_eq!(streak.health(), Health::Down);
        assert_eq!(feed(&mut streak, [pass()]), []);
        assert_eq!(feed(&mut streak, [pass()]), [Change::Up { back: true }]);
    }

    #[test]
    fn probes_keep_their_interval_within_the_jitter() {
        let interval = Duration::from_secs(2);
        assert_eq!(next_probe(interval, 0.1, 0.0), Duration::from_millis(1_800));
        assert_eq!(next_probe(interval, 0.1, 0.5), interval);
        assert_eq!(next_probe(interval, 0.1, 1.0), Duration::from_millis(2_200));
        assert_eq!(next_probe(interval, 1.0, 0.0), Duration::ZERO);
        assert_eq!(second_probe(interval, 0.25), Duration::from_millis(500));
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Event {
        Pass,
        EagerPass,
        Fail,
        Drain,
        Refused,
    }

    fn event() -> impl Strategy<Value = Event> {
        use Event::*;
        prop::sample::select(vec![Pass, Pass, EagerPass, Fail, Fail, Drain, Refused])
    }

    /// The last events in a row, drain answers aside, that are all among `of`.
    fn row(history: &[Event], of: &[Event]) -> u32 {
        let heard = history.iter().rev().filter(|event| **event != Event::Drain);
        heard.take_while(|event| of.contains(event)).count() as u32
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_rules(
            history in prop::collection::vec(event(), 0..40),
            rise in 1_u32..4,
            fall in 1_u32..4,
            presumed_up: bool,
        ) {
            let thresholds = Thresholds { rise, fall };
            let init = if presumed_up { HealthInit::Up } else { HealthInit::Probe };
            let now = Instant::now();
            let mut streak = Streak::new(init, now);
            for (at, &event) in history.iter().enumerate() {
                let before = streak.health();
                let changes = match event {
                    Event::Pass => streak.verdict(pass(), thresholds, false, now),
                    Event::EagerPass => streak.verdict(pass(), thresholds, true, now),
                    Event::Fail => streak.verdict(fail(), thresholds, false, now),
                    Event::Drain => streak.verdict(drain(), thresholds, false, now),
                    Event::Refused => streak.refused(now).into_iter().collect(),
                };
                let (past, after) = (&history[..=at], streak.health());
                let passes = row(past, &[Event::Pass, Event::EagerPass]);
                let fails = row(past, &[Event::Fail]);

                // What must turn it.
                let must = match event {
                    Event::EagerPass => Some(Health::Up),
                    Event::Refused => Some(Health::Down),
                    Event::Pass if passes >= rise || before == Health::Unknown => Some(Health::Up),
                    Event::Fail if fails >= fall => Some(Health::Down),
                    _ => None,
                };
                prop_assert!(must.is_none_or(|must| must == after), "{:?} after {:?}", after, past);
                // What alone may turn it.
                let may = match (before, after) {
                    (Health::Unknown, Health::Down) => fails >= fall || !presumed_up || event == Event::Refused,
                    (Health::Unknown, Health::Up) => event != Event::Fail,
                    (Health::Up, Health::Down) => fails >= fall || event == Event::Refused,
                    (Health::Down, Health::Up) => passes > 0 && event != Event::Drain,
                    (Health::Up | Health::Down, Health::Unknown) => false,
                    _ => true,
                };
                prop_assert!(may, "{:?} to {:?} after {:?}", before, after, past);
                // What is told of it.
                let told = changes.iter().any(|change| matches!(change, Change::Up { .. } | Change::Down { .. }));
                let first_word = event == Event::Drain && before == Health::Unknown;
                prop_assert_eq!(told, before != after && !first_word, "{:?}", past);
                let answers = [Event::Pass, Event::EagerPass, Event::Drain];
                let answer = past.iter().rev().find(|event| answers.contains(event));
                prop_assert_eq!(streak.draining(), answer == Some(&Event::Drain));
            }
        }
    }
}
