//! A drain as a person follows it: a first line, one line that grows, a last sentence.
//!
//! Start at [`Progress`]. Everything said is a number of a [`DrainView`], nothing is guessed.

use super::output::{count, span};
use crate::admin::view::DrainView;

/// At most one column a second, however often somebody looks.
const COLUMN_SECONDS: f64 = 1.0;
/// Columns remembered beside the first.
const MAX_COLUMNS: usize = 32;

/// What has been seen of one drain.
#[derive(Default)]
pub struct Progress {
    /// In flight, tunnels, sessions; the first column stays.
    columns: Vec<[u64; 3]>,
    last_at: f64,
    /// What the sessions are called, in a pool that keeps them.
    sessions: Option<String>,
}

impl Progress {
    pub fn is_new(&self) -> bool {
        self.columns.is_empty()
    }

    /// Takes a look into account; whether there is something new to print.
    pub fn look(&mut self, view: &DrainView) -> bool {
        let counts = [view.in_flight, view.tunnels, view.sessions];
        let over = view.state != "draining";
        let due = self.columns.is_empty() || over || view.elapsed_seconds - self.last_at >= COLUMN_SECONDS;
        if !due || self.columns.last() == Some(&counts) {
            return false;
        }
        if self.columns.len() > MAX_COLUMNS {
            self.columns.remove(1);
        }
        self.columns.push(counts);
        self.last_at = view.elapsed_seconds;
        self.sessions = (view.keeps_sessions || self.sessions.is_some())
            .then(|| format!("sessions seen in the last {}", span(view.session_window_seconds)));
        true
    }

    /// The line as it has grown, with as much of its past as fits into `width`.
    pub fn line(&self, width: usize) -> String {
        let mut kept = self.columns.len();
        loop {
            let line = self.with_last(kept);
            if kept <= 1 || line.chars().count() < width {
                return line;
            }
            kept -= 1;
        }
    }

    /// The line as it is now, for a log.
    pub fn latest(&self) -> String {
        self.with_last(0)
    }

    /// The first column and the last `kept`; with 0 only the very last.
    fn with_last(&self, kept: usize) -> String {
        let from = self.columns.len().saturating_sub(kept.max(1));
        let series = |index: usize| {
            let mut parts: Vec<String> =
                self.columns[from..].iter().map(|column| column[index].to_string()).collect();
            if kept > 0 && from > 0 {
                let first = self.columns[0][index].to_string();
                parts.splice(0..0, if from > 1 { vec![first, "…".into()] } else { vec![first] });
            }
            parts.join(" → ")
        };
        let mut line = format!("  in flight {}   tunnels {}", series(0), series(1));
        if let Some(sessions) = &self.sessions {
            line += &format!("   {sessions} {}", series(2));
        }
        line
    }
}

/// `app/a2 draining, deadline 60s, sticky clients stay, no new ones`
pub fn opening(view: &DrainView) -> String {
    let deadline =
        view.deadline_seconds.map_or("no deadline".into(), |seconds| format!("deadline {}", span(seconds)));
    let clients = if view.keeps_sessions {
        "sticky clients stay, no new ones"
    } else {
        "its clients go elsewhere from now on"
    };
    format!("{}/{} draining, {deadline}, {clients}", view.pool, view.backend)
}

/// How it ended, in numbers; `became` is `drained` or `stopped`.
pub fn ending(view: &DrainView, became: &str) -> String {
    let mut parts = Vec::new();
    if view.keeps_sessions || view.sessions_ended + view.sessions_moved > 0 {
        let ended = count(view.sessions_ended, "session");
        let themselves = if view.sessions_ended == 1 { "itself" } else { "themselves" };
        parts.push(format!("{ended} ended by {themselves}"));
        parts.push(format!("{} moved", view.sessions_moved));
    }
    parts.push(format!("{} closed with 1012", count(view.websockets_closed, "WebSocket")));
    if view.tunnels_cut > 0 {
        parts.push(format!("{} cut", count(view.tunnels_cut, "tunnel")));
    }
    parts.push(format!("{} cut", count(view.requests_cut, "request")));
    format!("{}/{} {became} in {}: {}", view.pool, view.backend, span(view.elapsed_seconds), parts.join(", "))
}

/// What a drain that is no longer waited for still has: the drain itself goes on.
pub fn remaining(view: &DrainView) -> String {
    let mut parts = vec![count(view.in_flight, "request"), count(view.tunnels, "tunnel")];
    if view.keeps_sessions {
        parts.push(format!(
            "{} seen in the last {}",
            count(view.sessions, "session"),
            span(view.session_window_seconds)
        ));
    }
    let (pool, backend, elapsed) = (&view.pool, &view.backend, span(view.elapsed_seconds));
    format!("{pool}/{backend} goes on draining, after {elapsed} with {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn at(seconds: f64, in_flight: u64, tunnels: u64, sessions: u64) -> DrainView {
        DrainView { elapsed_seconds: seconds, in_flight, tunnels, sessions, ..samples::drain() }
    }

    fn looked(views: &[DrainView]) -> Progress {
        let mut progress = Progress::default();
        for view in views {
            progress.look(view);
        }
        progress
    }

    #[test]
    fn a_drain_reads_from_first_line_to_last_sentence() {
        let end = DrainView {
            state: "drained".into(),
            sessions_ended: 224,
            sessions_moved: 588,
            websockets_closed: 12,
            ..at(60.2, 0, 0, 588)
        };
        let progress = looked(&[at(0.0, 18, 12, 812), at(30.0, 4, 12, 640), end.clone()]);
        assert_eq!(opening(&end), "app/a2 draining, deadline 60s, sticky clients stay, no new ones");
        assert_eq!(
            progress.line(200),
            "  in flight 18 → 4 → 0   tunnels 12 → 12 → 0   sessions seen in the last 5m 812 → 640 → 588"
        );
        assert_eq!(progress.latest(), "  in flight 0   tunnels 0   sessions seen in the last 5m 588");
        assert_eq!(
            ending(&end, "drained"),
            "app/a2 drained in 60s: 224 sessions ended by themselves, 588 moved, 12 WebSockets closed with 1012, 0 requests cut"
        );
    }

    #[test]
    fn a_pool_without_sessions_does_not_speak_of_them() {
        let view = DrainView {
            keeps_sessions: false,
            deadline_seconds: None,
            tunnels_cut: 2,
            requests_cut: 1,
            ..at(0.4, 1, 0, 0)
        };
        assert_eq!(opening(&view), "app/a2 draining, no deadline, its clients go elsewhere from now on");
        assert_eq!(looked(std::slice::from_ref(&view)).line(80), "  in flight 1   tunnels 0");
        assert_eq!(
            ending(&view, "drained"),
            "app/a2 drained in 400ms: 0 WebSockets closed with 1012, 2 tunnels cut, 1 request cut"
        );
        assert_eq!(remaining(&view), "app/a2 goes on draining, after 400ms with 1 request, 0 tunnels");
    }

    #[test]
    fn a_column_comes_with_a_change_and_at_most_once_a_second() {
        let mut progress = Progress::default();
        let looks =
            [at(0.0, 3, 0, 0), at(0.5, 2, 0, 0), at(1.0, 2, 0, 0), at(9.0, 2, 0, 0), at(9.2, 2, 1, 0)];
        assert_eq!(looks.map(|view| progress.look(&view)), [true, false, true, false, true]);
        let over = DrainView { state: "drained".into(), ..at(9.3, 0, 0, 0) };
        assert!(progress.look(&over));
    }

    #[test]
    fn a_long_drain_keeps_its_first_and_its_latest_columns() {
        let views: Vec<_> = (0..100).map(|second| at(second as f64, 200 - second, 0, 7)).collect();
        let progress = looked(&views);
        let line = progress.line(100);
        assert!(line.starts_with("  in flight 200 → … → ") && line.contains(" → 101   tunnels"), "{line}");
        assert!(line.chars().count() < 100);
        assert!(progress.columns.len() <= MAX_COLUMNS + 1);
    }
}
