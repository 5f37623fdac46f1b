//! How long a backend keeps an idle connection, as far as it has shown or told. Pure.
//!
//! A request on a connection that the backend is just closing is lost, and where it is a POST it
//! cannot be sent again. So idle connections are let go before the backend does it: after most of
//! what it says in `Keep-Alive: timeout=N`, and after less than the shortest silence after which it
//! was seen to close one. What was seen is forgotten slowly; if it was right, it is soon seen again.
//! A backend that restarts closes them too: once it refuses connections, what was seen just before
//! says nothing.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The part of a silence that ended badly, or of a time that was told, that is trusted.
const TRUSTED: f64 = 0.75;

/// A connection that was closed sooner was not closed for being idle.
const NOT_IDLE: Duration = Duration::from_millis(20);

/// What was seen counts for twice as long a silence each time so much has passed.
const DOUBLES: Duration = Duration::from_secs(30);

/// The same for requests that could not be sent again.
const DOUBLES_FOR_ONCE: Duration = Duration::from_secs(300);

/// A silence that is longer by no more than this factor confirms what was seen before.
const ALIKE: f64 = 1.2;

/// A backend that is going away closes its connections no longer than this before it refuses new ones.
const GOING: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default)]
pub struct Learned {
    told: Option<Duration>,
    seen: Option<Seen>,
    /// What stood before it was lowered, and since when it has been.
    before: Option<(Option<Seen>, Instant)>,
}

/// A silence that is trusted, and since when.
#[derive(Clone, Copy, Debug)]
struct Seen {
    trusted: Duration,
    since: Instant,
}

impl Seen {
    fn grown(&self, doubles: Duration, now: Instant) -> Duration {
        let times = now.saturating_duration_since(self.since).as_secs() / doubles.as_secs();
        self.trusted.saturating_mul(1 << times.min(16))
    }
}

impl Learned {
    /// How long a connection may idle, where the file says `limit`.
    pub fn idle(&self, limit: Duration, now: Instant) -> Duration {
        self.limit(limit, DOUBLES, now)
    }

    /// How long it may have idled for a request that could not be sent again. Others find out
    /// whether the backend now keeps connections longer.
    pub fn idle_for_once(&self, limit: Duration, now: Instant) -> Duration {
        self.limit(limit, DOUBLES_FOR_ONCE, now)
    }

    fn limit(&self, limit: Duration, doubles: Duration, now: Instant) -> Duration {
        let seen = self.seen.map_or(limit, |seen| seen.grown(doubles, now));
        limit.min(self.told.unwrap_or(limit)).min(seen)
    }

    /// The backend has closed a connection after so long a silence.
    pub fn closed_after(&mut self, silence: Duration, now: Instant) {
        if silence < NOT_IDLE {
            return;
        }
        let trusted = silence.mul_f64(TRUSTED);
        match &mut self.seen {
            Some(seen) if trusted >= seen.grown(DOUBLES, now) => {
                if trusted <= seen.trusted.mul_f64(ALIKE) {
                    seen.since = now;
                }
            }
            seen => {
                if self.before.is_none_or(|(_, at)| now.saturating_duration_since(at) > GOING) {
                    self.before = Some((*seen, now));
                }
                *seen = Some(Seen { trusted, since: now });
            }
        }
    }

    /// It takes no connection: those that it has just closed were not closed for being idle.
    pub fn refused(&mut self, now: Instant) {
        if let Some((seen, at)) = self.before.take()
            && now.saturating_duration_since(at) <= GOING
        {
            self.seen = seen;
        }
    }

    /// The first answer on a connection may say how long it is kept.
    pub fn told_by(&mut self, headers: &HeaderMap) {
        let fields = headers.get_all(KEEP_ALIVE);
        let mut items =
            fields.iter().filter_map(|field| field.to_str().ok()).flat_map(|text| text.split(','));
        let seconds = items.find_map(|item| {
            let (name, value) = item.trim().split_once('=')?;
            name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().trim_matches('"').parse::<u32>())
        });
        if let Some(Ok(seconds @ 1..)) = seconds {
            self.told = Some(Duration::from_secs(seconds.into()).mul_f64(TRUSTED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(4);

    fn told(field: &str) -> Duration {
        let mut learned = Learned::default();
        learned.told_by(&HeaderMap::from_iter([(KEEP_ALIVE, HeaderValue::from_str(field).unwrap())]));
        learned.idle(LIMIT, Instant::now())
    }

    #[test]
    fn a_backend_is_taken_at_its_word_with_a_margin_and_never_beyond_the_file() {
        let millis = Duration::from_millis;
        assert_eq!([told("timeout=5"), told("max=9, Timeout = 1")], [millis(3_750), millis(750)]);
        for odd in ["timeout=100", "timeout=0", "timeout=-1", "timeout", "max=5", "timeout=99999999999", ","]
        {
            assert_eq!(told(odd), LIMIT, "{odd}");
        }
    }

    #[test]
    fn a_close_lowers_the_limit_at_once_and_is_forgotten_slowly() {
        let now = Instant::now();
        let mut learned = Learned::default();
        learned.closed_after(Duration::from_millis(200), now);
        assert_eq!(learned.idle(LIMIT, now), Duration::from_millis(150));
        learned.closed_after(Duration::from_millis(800), now);
        assert_eq!(learned.idle(LIMIT, now), Duration::from_millis(150), "a later look says less");
        learned.closed_after(Duration::from_millis(100), now);
        assert_eq!(learned.idle(LIMIT, now), Duration::from_millis(75));
        assert_eq!(learned.idle(LIMIT, now + DOUBLES), Duration::from_millis(150));
        assert_eq!(learned.idle(LIMIT, now + 1_000 * DOUBLES), LIMIT);
    }

    #[test]
    fn what_is_seen_again_is_not_forgotten_and_posts_trust_it_for_longer() {
        let (now, silence) = (Instant::now(), Duration::from_millis(200));
        let mut learned = Learned::default();
        learned.closed_after(silence, now);
        learned.closed_after(silence + Duration::from_millis(5), now + DOUBLES / 2);
        assert_eq!(learned.idle(LIMIT, now + DOUBLES), Duration::from_millis(150));
        let later = now + 2 * DOUBLES;
        assert_eq!(learned.idle(LIMIT, later), Duration::from_millis(300));
        assert_eq!(learned.idle_for_once(LIMIT, later), Duration::from_millis(150));
        learned.closed_after(silence, later);
        assert_eq!(learned.idle(LIMIT, later), Duration::from_millis(150));
        assert_eq!(learned.idle_for_once(LIMIT, later + DOUBLES_FOR_ONCE), Duration::from_millis(300));
    }

    #[test]
    fn what_a_restart_closes_is_not_learnt() {
        let now = Instant::now();
        let mut learned = Learned::default();
        learned.closed_after(Duration::from_millis(200), now);
        let restart = now + 2 * GOING;
        for silence in [140, 60, 30] {
            learned.closed_after(Duration::from_millis(silence), restart);
        }
        assert!(learned.idle(LIMIT, restart) < Duration::from_millis(30));
        learned.refused(restart + Duration::from_millis(1));
        assert_eq!(learned.idle(LIMIT, restart), Duration::from_millis(150));
        learned.refused(restart + GOING);
        assert_eq!(learned.idle(LIMIT, restart), Duration::from_millis(150), "that was long ago");
    }

    #[test]
    fn a_connection_closed_in_full_use_says_nothing_of_idling() {
        let now = Instant::now();
        let mut learned = Learned::default();
        learned.closed_after(Duration::from_millis(5), now);
        assert_eq!(learned.idle(LIMIT, now), LIMIT);
    }

    proptest! {
        #[test]
        fn whatever_is_seen_the_limit_stays_below_the_file_s_and_below_the_last_close(
            closes in prop::collection::vec((20_u64..10_000, 0_u64..100), 1..20),
        ) {
            let (mut learned, mut now) = (Learned::default(), Instant::now());
            for (silence, pause) in closes {
                now += Duration::from_secs(pause);
                let silence = Duration::from_millis(silence);
                learned.closed_after(silence, now);
                let idle = learned.idle(LIMIT, now);
                prop_assert!(idle <= LIMIT && idle < silence && !idle.is_zero());
            }
        }
    }
}
