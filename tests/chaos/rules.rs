//! What may fail, and why. Everything else may not.
//!
//! Start at [`RULES`]. A rule explains a failure only if it is known that the backend which was
//! struck had the request, at the time of the blow; [`judge`] finds that out from what the backends
//! and the access log say.

use std::collections::HashMap;
use std::time::Instant;

use crate::client::How;
use crate::fleet::Ledger;
use crate::traffic::{Failure, Kind, Tally};

/// What was done to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Its process is gone, with all that it had.
    Died,
    /// It broke its HTTP connections off, and lives.
    Reset,
    /// It took no new connection for a while.
    Refused,
    /// It stood still, and answers might be waited for.
    Frozen,
    /// It stood still for longer than `timeouts.response`.
    Hung,
    /// An operator's drain with a deadline.
    Drained,
    /// It took nobody new, finished, and ended. No rule: that costs nobody anything.
    Left,
}

#[derive(Clone, Debug)]
pub struct Strike {
    pub backend: String,
    pub blow: Blow,
    pub from: Instant,
    /// What begins later has nothing to do with it, except that it comes elsewhere.
    pub until: Instant,
    /// It is as well as before.
    pub over: Instant,
}

/// When a failure has to have been under way to be explained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// It had begun when the blow fell, and had not ended.
    InFlight,
    /// Any time until the backend is well again.
    Meanwhile,
}

pub struct Rule {
    blows: &'static [Blow],
    kinds: &'static [Kind],
    how: fn(&How) -> bool,
    when: When,
    /// With a number before it: what happened.
    pub what: &'static str,
    pub why: &'static str,
    /// It counts as a failed request.
    pub fails: bool,
}

use Blow::{Died, Drained, Frozen, Hung, Refused, Reset};
use When::{InFlight, Meanwhile};

pub static RULES: &[Rule] = &[
    Rule {
        blows: &[Died, Reset],
        kinds: &[Kind::Download, Kind::Get, Kind::FreshGet, Kind::Session],
        how: |how| *how == How::Short,
        when: InFlight,
        what: "answers cut short",
        why: "part of it had gone to the client: nobody else could go on with it",
        fails: true,
    },
    Rule {
        blows: &[Died, Reset],
        kinds: &[Kind::Post, Kind::Upload],
        how: |how| matches!(how, How::Status(502, word) if word == "reset_before_response"),
        when: InFlight,
        what: "POSTs answered with 502",
        why: "the backend may have seen it: it is never sent twice",
        fails: true,
    },
    Rule {
        blows: &[Died, Reset],
        kinds: &[Kind::Put],
        how: |how| matches!(how, How::Status(502, word) if word == "reset_before_response"),
        when: InFlight,
        what: "PUTs answered with 502",
        why: "part of its body was gone, and it is larger than what is kept (64 KiB)",
        fails: true,
    },
    Rule {
        blows: &[Died],
        kinds: &[Kind::Message],
        how: |how| matches!(how, How::Cut(None)),
        when: InFlight,
        what: "WebSockets cut",
        why: "its other end was the dead backend",
        fails: true,
    },
    Rule {
        blows: &[Died, Refused, Frozen, Hung, Drained],
        kinds: &[Kind::Session],
        how: |how| *how == How::Moved,
        when: Meanwhile,
        what: "sessions moved",
        why: "their backend was out of service",
        fails: false,
    },
    Rule {
        blows: &[Reset],
        kinds: &[Kind::Session],
        how: |how| *how == How::Moved,
        when: InFlight,
        what: "sessions moved by a reset",
        why: "a GET that is reset on a fresh connection is answered elsewhere, and its session stays there",
        fails: false,
    },
    Rule {
        blows: &[Hung],
        kinds: &[Kind::Post, Kind::Upload, Kind::Put],
        how: |how| matches!(how, How::Status(504, word) if word == "response_timeout"),
        when: InFlight,
        what: "POSTs and PUTs answered with 504",
        why: "the backend has it, and does not answer within `timeouts.response`",
        fails: true,
    },
    Rule {
        blows: &[Hung],
        kinds: &[Kind::Session],
        how: |how| matches!(how, How::Status(504, word) if word == "response_timeout"),
        when: InFlight,
        what: "session GETs answered with 504",
        why: "a slow answer takes no client away from its token",
        fails: true,
    },
    Rule {
        blows: &[Drained],
        kinds: &[Kind::Message],
        how: |how| *how == How::Cut(Some(1012)),
        when: InFlight,
        what: "WebSockets closed with 1012",
        why: "a drain with a deadline ends the tunnels that are left",
        fails: false,
    },
];

impl Rule {
    fn explains(&self, failure: &Failure, strike: &Strike) -> bool {
        let (begun_by, ended_after) = match self.when {
            InFlight => (strike.until, strike.from),
            Meanwhile => (strike.over, strike.from),
        };
        self.blows.contains(&strike.blow)
            && self.kinds.contains(&failure.kind)
            && (self.how)(&failure.how)
            && failure.backend.as_deref() == Some(&*strike.backend)
            && failure.began <= begun_by
            && failure.ended >= ended_after
    }
}

/// What a phase comes to.
#[derive(Default)]
pub struct Judgement {
    /// How often each rule was the reason, by its place in [`RULES`].
    pub explained: HashMap<usize, u64>,
    /// What no rule allows, a line each.
    pub violations: Vec<String>,
    /// The end of the last request that was hurt.
    pub last_hurt: Option<Instant>,
}

/// Judges all that failed. `logged`: which backend the access log says a request was with.
pub fn judge(
    tally: &Tally,
    strikes: &[Strike],
    ledger: &Ledger,
    logged: &HashMap<String, String>,
) -> Judgement {
    let mut judgement = Judgement { last_hurt: tally.last_slow, ..Judgement::default() };
    for failure in &tally.failures {
        let mut failure = failure.clone();
        let seen = ledger.seen(&failure.id);
        let had = || seen.begun.last().map(ToString::to_string).or_else(|| logged.get(&failure.id).cloned());
        failure.backend = failure.backend.clone().or_else(had);
        let explains = |rule: &Rule| strikes.iter().any(|strike| rule.explains(&failure, strike));
        match RULES.iter().position(explains) {
            Some(rule) => {
                *judgement.explained.entry(rule).or_default() += 1;
                if RULES[rule].fails {
                    judgement.last_hurt = judgement.last_hurt.max(Some(failure.ended));
                }
            }
            None => judgement.violations.push(tell(&failure, strikes)),
        }
    }
    for (id, kind, answered) in &tally.once {
        let seen = ledger.seen(id);
        if seen.begun.len() > 1 {
            let backends = seen.begun.join(", ");
            judgement.violations.push(format!(
                "{} {id}: {:?}, seen by {backends}",
                kind.name(),
                How::Doubled
            ));
        }
        if *answered && seen.whole == 0 {
            judgement.violations.push(format!("{} {id}: {:?}", kind.name(), How::Lost));
        }
    }
    judgement
}

fn tell(failure: &Failure, strikes: &[Strike]) -> String {
    let after = strikes.first().map(|strike| {
        let since = |at: Instant| match at.checked_duration_since(strike.from) {
            Some(after) => after.as_secs_f64(),
            None => -(strike.from - at).as_secs_f64(),
        };
        format!(", from {:.3} s to {:.3} s after the first blow", since(failure.began), since(failure.ended))
    });
    let struck: Vec<_> =
        strikes.iter().map(|strike| format!("{} {:?}", strike.backend, strike.blow)).collect();
    format!(
        "{} {}: {:?} at {}{} (struck: {})",
        failure.kind.name(),
        failure.id,
        failure.how,
        failure.backend.as_deref().unwrap_or("nobody known"),
        after.unwrap_or_default(),
        if struck.is_empty() { "nobody".to_owned() } else { struck.join(", ") },
    )
}
