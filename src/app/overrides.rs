//! Operators' words, kept in `state_dir` so that they survive a restart, deadlines included.
//!
//! A word is good for as long as the file says of the backend what it said when it was given.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tracing::warn;

use super::control::Control;
use super::fleet::Key;
use crate::drain::Phase;

const NAME: &str = "overrides.json";

/// One operator's word on one backend.
#[derive(Clone, Debug, PartialEq)]
struct Override {
    key: Key,
    word: Phase,
    /// What the file said when it was given.
    over: Phase,
    reason: Option<String>,
    /// Seconds since 1970.
    deadline: Option<f64>,
}

impl Control {
    /// Writes every word down, if there is a place for it.
    pub(super) fn save_words(&self) {
        let Some(folder) = &self.plan.server.state_dir else { return };
        let (now, clock) = (Instant::now(), unix());
        let words = self.fleet.iter().filter_map(|(key, member)| {
            let drain = member.drain.as_ref().filter(|following| !following.drain.is_over());
            let deadline = drain.and_then(|following| following.drain.deadline);
            Some(Override {
                key: key.clone(),
                word: member.words.operator?,
                over: member.words.file,
                reason: member.reason.clone(),
                deadline: deadline.map(|at| clock + at.saturating_duration_since(now).as_secs_f64()),
            })
        });
        let text = format!("{:#}\n", Value::Array(words.map(Override::into_json).collect()));
        if let Err(error) = write(folder, &text) {
            warn!(event = "state", %error, "cannot keep operators' words in {}: a restart forgets them", folder.display());
        }
    }

    /// Gives the words of the last run again.
    pub(super) fn recall_words(&mut self) {
        let Some(folder) = &self.plan.server.state_dir else { return };
        let text = fs::read_to_string(folder.join(NAME)).unwrap_or_default();
        for Override { key, word, over, reason, deadline } in read(&text) {
            let Some(member) = self.fleet.get_mut(&key).filter(|member| member.words.file == over) else {
                continue;
            };
            let before = member.phase();
            member.words.operator = Some(word);
            member.reason = reason;
            let now = Instant::now();
            if member.turned(before, true, now) {
                let left = deadline.map(|at| Duration::from_secs_f64((at - unix()).clamp(0.0, MAX_DEADLINE)));
                self.phase_turned(&key, left, now);
                self.tell(
                    "state",
                    Some(&key),
                    format!("{}/{} {word}: an operator's word, kept over the restart", key.0, key.1),
                );
            }
        }
    }
}

/// A year: what is further away was not written by us.
const MAX_DEADLINE: f64 = 366.0 * 86400.0;

impl Override {
    fn into_json(self) -> Value {
        json!({
            "pool": self.key.0,
            "backend": self.key.1,
            "state": self.word.name(),
            "file_state": self.over.name(),
            "reason": self.reason,
            "deadline_unix_seconds": self.deadline,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        Some(Self {
            key: (text("pool")?, text("backend")?),
            word: Phase::named(&text("state")?)?,
            over: Phase::named(&text("file_state")?)?,
            reason: text("reason"),
            deadline: value.get("deadline_unix_seconds")?.as_f64(),
        })
    }
}

/// What can be made out of it; a file that is damaged loses words, never the start.
fn read(text: &str) -> Vec<Override> {
    let values = serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
    values.iter().filter_map(Override::from_json).collect()
}

/// Whole or not at all: a crash must not leave half a file.
fn write(folder: &Path, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!("{NAME}.new"));
    fs::write(&draft, text)?;
    fs::rename(draft, folder.join(NAME))
}

fn unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written_and_a_damaged_file_holds_none() {
        let word = Override {
            key: ("app".into(), "[::1]:9001".into()),
            word: Phase::Draining,
            over: Phase::Active,
            reason: Some("deploy \"42\"".into()),
            deadline: Some(1_700_000_000.5),
        };
        let text = Value::Array(vec![word.clone().into_json()]).to_string();
        assert_eq!(read(&text), [word]);
        for damaged in ["", "{}", "[1]", &text[..text.len() - 9], &text.replace("draining", "dreaming")] {
            assert_eq!(read(damaged), [], "{damaged}");
        }
    }
}
