//! What threads share about one backend because policies decide by it.
//!
//! One atomic count and one atomic latency on a cache line of their own. What is merely counted
//! for people does not belong here.

use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How long a slow answer is remembered: its weight falls to 1/e in this time.
const MEMORY: f32 = 10.0;

/// Seconds below which a difference in latency says nothing about backends. It also keeps a
/// backend that nobody asked for long from looking infinitely fast.
const FLOOR: f32 = 0.000_1;

/// Seconds assumed of a backend that is being asked for the first time: more than any real
/// answer, so that it gets one visit to show what it can and no crowd before that.
const UNPROVEN: f32 = 1e6;

/// Requests in flight, and the peak-sensitive mean of response times.
#[derive(Debug)]
#[repr(align(128))]
pub struct Load {
    /// What the coarse time below counts from.
    born: Instant,
    in_flight: AtomicU32,
    /// `max_in_flight`; 0: none. Written by the control thread.
    max: AtomicU32,
    /// The mean in seconds as `f32` bits above, the millisecond it was true in below; 0: unknown.
    /// The milliseconds wrap after 49 days of silence, which only makes an old mean count longer.
    latency: AtomicU64,
}

impl Load {
    pub fn new(now: Instant) -> Self {
        Self { born: now, in_flight: AtomicU32::new(0), max: AtomicU32::new(0), latency: AtomicU64::new(0) }
    }

    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub fn limit(&self, max: u32) {
        self.max.store(max, Relaxed);
    }

    pub fn is_limited(&self) -> bool {
        self.max.load(Relaxed) != 0
    }

    /// More are in flight than there may be: the limit was lowered meanwhile.
    pub fn is_over(&self) -> bool {
        let max = self.max.load(Relaxed);
        max != 0 && self.in_flight() > max
    }

    /// Begins a request if the limit admits one more, and says whether it is counted, which
    /// without a limit it is only where it `must` be. `None`: full.
    pub fn take(&self, must: bool) -> Option<bool> {
        match self.max.load(Relaxed) {
            0 => {
                if must {
                    self.begin();
                }
                Some(must)
            }
            max => {
                let add = |count: u32| (count < max).then_some(count + 1);
                self.in_flight.fetch_update(Relaxed, Relaxed, add).ok().map(|_| true)
            }
        }
    }

    /// Ends what one [`Load::begin`] began.
    pub fn end(&self) {
        let before = self.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "every end has its begin");
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Takes in one response time: a slower one counts at once, a faster one wears the memory
    /// away. Two threads that observe at the same moment may lose one of the two, which the next
    /// answer mends and which is cheaper than a loop.
    pub fn observe(&self, latency: Duration, now: Instant) {
        let fresh = latency.as_secs_f32().max(FLOOR);
        let (mean, kept) = self.remembered(now).unwrap_or((fresh, 0.0));
        let mean = if mean > fresh { fresh + (mean - fresh) * kept } else { fresh };
        self.latency.store(u64::from(mean.to_bits()) << 32 | u64::from(self.millis(now)), Relaxed);
    }

    /// The mean response time, fading while nobody asks; `None` before the first answer.
    pub fn ewma(&self, now: Instant) -> Option<Duration> {
        self.remembered(now).map(|(mean, kept)| Duration::from_secs_f32((mean * kept).max(FLOOR)))
    }

    /// How long one more visit would take, as `least_time` reckons: mean × (in flight + 1).
    pub(super) fn expected(&self, now: Instant) -> f32 {
        let in_flight = self.in_flight();
        let one = match self.remembered(now) {
            Some((mean, kept)) => (mean * kept).max(FLOOR),
            None if in_flight == 0 => 0.0,
            None => UNPROVEN,
        };
        one * (in_flight as f32 + 1.0)
    }

    /// The last mean and how much of it still counts, 0 to 1.
    fn remembered(&self, now: Instant) -> Option<(f32, f32)> {
        let packed = self.latency.load(Relaxed);
        let silent = self.millis(now).wrapping_sub(packed as u32);
        // A clock reading older than the last observation comes out as a huge silence.
        let silent = if silent > u32::MAX / 2 { 0 } else { silent };
        (packed != 0)
            .then(|| (f32::from_bits((packed >> 32) as u32), (-(silent as f32) / (MEMORY * 1000.0)).exp()))
    }

    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.born).as_millis() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(500);
    const FAST: Duration = Duration::from_millis(10);

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let start = Instant::now();
        let load = Load::new(start);
        assert_eq!(load.ewma(start), None);
        load.observe(FAST, start);
        load.observe(SLOW, start);
        assert_eq!(load.ewma(start), Some(SLOW));
        load.observe(FAST, start + Duration::from_secs(1));
        let after = load.ewma(start + Duration::from_secs(1)).unwrap();
        assert!(after > SLOW / 2 && after < SLOW, "{after:?}");
        let silent = load.ewma(start + Duration::from_secs(31)).unwrap();
        assert!(silent < SLOW / 10, "{silent:?}");
        let long = load.ewma(start + Duration::from_secs(86_400)).unwrap();
        assert_eq!(long, Duration::from_secs_f32(FLOOR));
    }

    #[test]
    fn an_unproven_backend_gets_one_visit_and_no_crowd() {
        let now = Instant::now();
        let (fresh, known) = (Load::new(now), Load::new(now));
        known.observe(SLOW, now);
        assert!(fresh.expected(now) < known.expected(now));
        fresh.begin();
        assert!(fresh.expected(now) > known.expected(now));
        fresh.end();
        assert_eq!(fresh.in_flight(), 0);
    }

    #[test]
    fn an_older_clock_reading_changes_nothing() {
        let start = Instant::now();
        let load = Load::new(start);
        load.observe(SLOW, start + Duration::from_secs(5));
        assert_eq!(load.ewma(start), Some(SLOW));
    }
}
