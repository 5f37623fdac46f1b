//! Counts that cost a request next to nothing: one writer each, summed by whoever reads.
//!
//! Start at [`PerThread`]. What is counted, and under which name, belongs to the series.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows. It has **one** writer, so adding is a load and a store and never
/// locks a cache line; a second writer would lose counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One `T` for each data thread, no two on the same cache line.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[Lines<T>]>);

/// Two lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lines<T>(T);

impl<T: Default> PerThread<T> {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Lines::default()).collect())
    }
}

impl<T> PerThread<T> {
    /// The share of `thread`, which alone may write to it.
    pub(crate) fn of(&self, thread: usize) -> &T {
        &self.0[thread].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|lines| &lines.0)
    }

    pub(crate) fn sum(&self, count: impl Fn(&T) -> &Counter) -> u64 {
        self.iter().map(|share| count(share).get()).sum()
    }

    pub(crate) fn distribution(&self, histogram: impl Fn(&T) -> &Histogram) -> Distribution {
        let mut all = Distribution::default();
        for share in self.iter() {
            histogram(share).add_to(&mut all);
        }
        all
    }
}

/// Upper bounds in nanoseconds, and as the `le` label spells them. One scale for everything, from
/// the proxy's own share of a request to a slow backend.
pub(crate) const BOUNDS: [(u64, &str); 17] = [
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
];

/// Durations by size. One writer, like [`Counter`].
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative here; the last holds what is above every bound.
    buckets: [Counter; BOUNDS.len() + 1],
    /// The bits of an `f64`: nanoseconds in a `u64` would wrap within weeks of long requests.
    seconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|(bound, _)| *bound < nanos)].add(1);
        let seconds = f64::from_bits(self.seconds.load(Relaxed)) + duration.as_secs_f64();
        self.seconds.store(seconds.to_bits(), Relaxed);
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let mut all = Distribution::default();
        self.add_to(&mut all);
        all
    }

    fn add_to(&self, all: &mut Distribution) {
        for (total, bucket) in all.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        all.seconds += f64::from_bits(self.seconds.load(Relaxed));
    }
}

/// What histograms add up to at one moment.
#[derive(Debug, Default)]
pub(crate) struct Distribution {
    pub(crate) buckets: [u64; BOUNDS.len() + 1],
    pub(crate) seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_written_by_several_threads_sum_right() {
        let shares = PerThread::<Counter>::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let share = shares.of(thread);
                scope.spawn(move || (0..100_000).for_each(|_| share.add(thread as u64)));
            }
        });
        assert_eq!(shares.sum(|share| share), 600_000);
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::default();
        for (nanos, _) in BOUNDS {
            histogram.observe(Duration::from_nanos(nanos));
        }
        histogram.observe(Duration::from_secs(31));
        let all = histogram.distribution();
        assert_eq!(all.buckets, [1; BOUNDS.len() + 1]);
        assert!((all.seconds - 80.444_35).abs() < 1e-9, "{}", all.seconds);
    }

    #[test]
    fn no_two_threads_share_a_cache_line() {
        assert_eq!(size_of::<Lines<Counter>>(), 128);
    }
}
