//! What the desk is answered: one arm per question, and what an operator's word does.

use std::time::{Duration, Instant};

use super::control::Control;
use super::health::sessions;
use super::reload::Reloading;
use super::report;
use crate::admin::desk::{Ask, Document};
use crate::admin::view::{CheckReport, DrainView, Fault, StateAnswer, StateOrder};
use crate::config;
use crate::drain::Phase;
use crate::pool::status::Standing;
use crate::proxy::unix_now;

/// Drains whose outcome can still be asked for.
const PAST_DRAINS: usize = 100;

impl Control {
    /// An asker who has gone away is no error: nobody waits for the reply.
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Status { reply } => drop(reply.send(self.status())),
            Ask::Routes { reply } => drop(reply.send(self.routes())),
            Ask::Config { reply } => drop(reply.send(self.document())),
            Ask::Metrics { reply } => drop(reply.send(self.telemetry.render(&self.gauges()))),
            Ask::Readiness { reply } => drop(reply.send(self.readiness())),
            Ask::Reload { order, reply } => {
                drop(reply.send(self.reload(Reloading::Asked(order.text)).await));
            }
            Ask::Check { text, reply } => drop(reply.send(self.check(&text))),
            Ask::SetState { pool, backend, order, reply } => {
                drop(reply.send(self.set_state((pool, backend), &order, Instant::now())));
            }
            Ask::Drain { id, reply } => drop(reply.send(self.drain(id))),
            Ask::Upgrade { order, reply } => self.begin_upgrade(order, Some(reply)),
            Ask::Shutdown { order, reply } => {
                self.end(true, order.drain_seconds.and_then(report::seconds)).await;
                let _ = reply.send(());
            }
        }
    }

    fn readiness(&self) -> Result<(), Vec<String>> {
        if self.ending.is_some() {
            return Err(vec!["this Pintle is ending".to_owned()]);
        }
        if self.ready {
            return Ok(());
        }
        let waiting = self.plan.pools.iter().filter(|pool| !self.has_verdict(pool));
        Err(waiting.map(|pool| format!("pool {} has no probe's verdict yet", pool.name)).collect())
    }

    /// The configuration in force. It names its secrets and holds none.
    fn document(&self) -> Document {
        Document { content_type: "application/toml; charset=utf-8", text: self.text.clone() }
    }

    fn check(&self, text: &str) -> CheckReport {
        let (ok, problems) = match config::compile(text, &self.source.origin()) {
            Ok(compiled) => (true, compiled.warnings),
            Err(problems) => (false, problems),
        };
        CheckReport { ok, problems: report::problems(&problems), text: problems.render(false) }
    }

    fn drain(&self, id: u64) -> Option<DrainView> {
        let running =
            self.fleet.iter().find(|(_, member)| member.drain.as_ref().is_some_and(|drain| drain.id == id));
        match running {
            Some((key, member)) => report::drain(key, member),
            None => self.past_drains.iter().find(|drain| drain.id == id).cloned(),
        }
    }

    /// Keeps what a drain came to, for those who ask after it is gone.
    pub(super) fn remember(&mut self, mut drain: DrainView) {
        if drain.state == "draining" {
            drain.state = "ended".to_owned();
        }
        if self.past_drains.len() == PAST_DRAINS {
            self.past_drains.pop_front();
        }
        self.past_drains.push_back(drain);
    }

    pub(super) fn set_state(
        &mut self,
        key: (String, String),
        order: &StateOrder,
        now: Instant,
    ) -> Result<StateAnswer, Fault> {
        self.takes_orders()?;
        let name = format!("{}/{}", key.0, key.1);
        let unknown = || report::fault(404, "unknown_backend", format!("there is no backend `{name}`"));
        let Some(pool) = self.plan.pool(&key.0).cloned() else { return Err(unknown()) };
        if self.fleet.get(&key).is_none() {
            return Err(unknown());
        }
        let word = match order.state.as_str() {
            "active" => Phase::Active,
            "draining" => Phase::Draining,
            "stopped" => Phase::Stopped,
            other => {
                let detail = format!("`{other}` is no state; use active, draining or stopped");
                return Err(report::fault(400, "unknown_state", detail));
            }
        };
        let alone =
            !self.fleet.of(&pool).any(|other| other.plan.name != key.1 && other.standing() == Standing::Open);
        // Who takes nobody new already cannot leave the pool with one fewer.
        let open = self.fleet.get(&key).is_some_and(|member| member.standing() == Standing::Open);
        if word != Phase::Active && open && alone && !order.force {
            return Err(Fault {
                hint: Some("add --force to do it all the same".to_owned()),
                ..report::fault(
                    409,
                    "would_leave_none",
                    format!("no other backend of pool {} takes new clients", pool.name),
                )
            });
        }
        let deadline = match order.deadline_seconds {
            None => None,
            Some(seconds) => Some(report::seconds(seconds).ok_or_else(|| {
                report::fault(400, "bad_deadline", format!("`{seconds}` is no number of seconds"))
            })?),
        };
        self.give_word(&key, word, deadline, order.reason.clone(), now)
    }

    fn give_word(
        &mut self,
        key: &(String, String),
        word: Phase,
        deadline: Option<Duration>,
        reason: Option<String>,
        now: Instant,
    ) -> Result<StateAnswer, Fault> {
        let name = format!("{}/{}", key.0, key.1);
        let member = self.fleet.get_mut(key).expect("its presence was checked");
        let before = member.phase();
        let (past, mut notes) = (report::drain(key, member), Vec::new());
        if word == Phase::Active {
            if let Err(holder) = member.words.ready() {
                notes.push(format!("{name} is still held {} by {}", member.phase(), holder.name()));
            }
        } else {
            member.words.operator = Some(word);
            member.reason.clone_from(&reason);
        }
        let turned = member.turned(before, true, now);
        let (after, stays) = (member.phase(), member.sessions(unix_now()));
        let drains = matches!(after, Phase::Draining | Phase::Stopped);
        if after == Phase::Active
            && let Some(past) = past
        {
            self.remember(past);
        }
        let drain = if turned || (drains && deadline.is_some()) {
            self.phase_turned(key, deadline, now)
        } else {
            None
        };
        let drain = drain.or_else(|| self.fleet.get(key)?.drain.as_ref().map(|drain| drain.id));
        if turned {
            let until =
                deadline.map(|deadline| format!(", deadline {}", humantime::format_duration(deadline)));
            let why = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let stay = match after {
                Phase::Draining if stays > 0 => format!("; {}", sessions(stays)),
                _ => String::new(),
            };
            self.tell(
                "state",
                Some(key),
                format!("{name} {after}{}{stay}: an operator's word{why}", until.unwrap_or_default()),
            );
        }
        self.save_words();
        let pool = self.plan.pool(&key.0).expect("its presence was checked");
        let member = self.fleet.get(key).expect("its presence was checked");
        if notes.is_empty() && word == Phase::Active && !member.is_up() {
            notes.push(format!("{name} takes traffic once its probes pass: {}", member.streak.detail()));
        }
        Ok(StateAnswer { backend: self.backend_view(pool, member), drain, notes })
    }
}
