//! Figures for people: spreads of times, sizes, shares.

use std::fmt;
use std::time::Duration;

/// Times, sorted: printed with their median, their 99th percentile and how many there are.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<Duration>);

impl Spread {
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }

    /// The time that a share of them does not exceed (nearest rank); zero when there are none.
    pub fn at(&self, share: f64) -> Duration {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub fn p50(&self) -> Duration {
        self.at(0.5)
    }

    pub fn p99(&self) -> Duration {
        self.at(0.99)
    }

    pub fn n(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {}, p99 {} (n {})", time(self.p50()), time(self.p99()), self.n())
    }
}

/// `840 ns`, `12.3 µs`, `4.56 ms`, `200 ms`, `1.20 s`: three digits, so that no more is claimed.
pub fn time(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (value, unit) = match nanos {
        ..999.5 => return format!("{nanos:.0} ns"),
        ..999.5e3 => (nanos / 1e3, "µs"),
        ..999.5e6 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let places = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.places$} {unit}")
}

/// `512 B`, `1.5 KiB`, `20.0 MiB`.
pub fn bytes(bytes: f64) -> String {
    match bytes.abs() {
        ..1024.0 => format!("{bytes:.0} B"),
        1024.0..1_048_576.0 => format!("{:.1} KiB", bytes / 1024.0),
        1_048_576.0..1_073_741_824.0 => format!("{:.1} MiB", bytes / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes / 1_073_741_824.0),
    }
}

/// `12 of 300 (4 %)`.
pub fn share(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "0 of 0".into();
    }
    format!("{part} of {whole} ({:.0} %)", 100.0 * part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_digits() {
        let told = [(7, "7 ns"), (1_234, "1.23 µs"), (65_449, "65.4 µs"), (200_000_000, "200 ms")];
        for (nanos, text) in told.into_iter().chain([(9_996_000, "10.0 ms"), (999_600_000, "1.00 s")]) {
            assert_eq!(time(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(time(Duration::from_millis(72_340)), "72.3 s");
    }
}
