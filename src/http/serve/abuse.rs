//! How much of what costs the sender nothing a client may send over HTTP/2. Pure.
//!
//! Start at [`Tally::count`]. The codec itself limits what it would have to keep: header blocks,
//! CONTINUATION frames, empty DATA, resets that it has not looked at yet, streams that it had to
//! reset. Here is what it answers for ever: resets (CVE-2023-44487), SETTINGS and PING
//! (CVE-2019-9512, -9515).

use std::time::{Duration, Instant};

use super::frames::{ACK, Head, Kind};

/// What is counted is forgotten after this.
const WINDOW: Duration = Duration::from_secs(1);

/// No client has reason to change its settings so often.
pub const MAX_SETTINGS_PER_SECOND: u32 = 100;

/// gRPC clients measure the way by pings, one after the other while data comes in.
pub const MAX_PINGS_PER_SECOND: u32 = 5_000;

/// What came within the current second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    since: Option<Instant>,
    resets: u32,
    settings: u32,
    pings: u32,
}

impl Tally {
    /// Takes a frame into account. `false`: that was one too many. `max_resets` is the listener's
    /// `max_resets_per_second`; `None` for a peer that is trusted, which carries many clients'.
    pub fn count(&mut self, head: &Head, now: impl Fn() -> Instant, max_resets: Option<u32>) -> bool {
        let (count, limit): (fn(&mut Self) -> &mut u32, u32) = match head.kind {
            Kind::Reset => (|tally| &mut tally.resets, max_resets.unwrap_or(u32::MAX)),
            Kind::Settings if !head.is(ACK) => (|tally| &mut tally.settings, MAX_SETTINGS_PER_SECOND),
            Kind::Ping if !head.is(ACK) => (|tally| &mut tally.pings, MAX_PINGS_PER_SECOND),
            _ => return true,
        };
        let now = now();
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        let count = count(self);
        *count = count.saturating_add(1);
        *count <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_at(kind: Kind, max_resets: Option<u32>, apart: Duration) -> Option<u32> {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let head = Head { kind, flags: 0, length: 0, stream: 0 };
        (1..20_000).find(|n| !tally.count(&head, || start + apart * *n, max_resets))
    }

    #[test]
    fn a_flood_is_one_more_than_the_limit_within_a_second() {
        assert_eq!(refused_at(Kind::Reset, Some(100), Duration::ZERO), Some(101));
        assert_eq!(refused_at(Kind::Settings, Some(100), Duration::ZERO), Some(101));
        assert_eq!(refused_at(Kind::Ping, Some(100), Duration::ZERO), Some(5_001));
    }

    #[test]
    fn who_spreads_them_and_what_carries_something_is_never_refused() {
        assert_eq!(refused_at(Kind::Reset, Some(100), Duration::from_millis(10)), None);
        assert_eq!(refused_at(Kind::Reset, None, Duration::ZERO), None);
        for kind in [Kind::Data, Kind::Headers, Kind::Continuation, Kind::WindowUpdate, Kind::Other] {
            assert_eq!(refused_at(kind, Some(0), Duration::ZERO), None);
        }
        let answer = Head { kind: Kind::Ping, flags: ACK, length: 8, stream: 0 };
        let mut tally = Tally::default();
        assert!((0..20_000).all(|_| tally.count(&answer, || unreachable!("no clock for it"), None)));
    }
}
