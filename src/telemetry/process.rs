//! What is counted for the process as a whole: [`ProcessSeries`], and the standard `process_*`
//! metrics, read from `/proc/self` at scrape and left out where there is none.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::exposition::Page;
use super::metrics::{self, Family};
use super::words::ReloadResult;

/// Counts without names. They are rare, so any thread may add to them.
#[derive(Debug)]
pub struct ProcessSeries {
    started: SystemTime,
    generation: AtomicU64,
    reloads: [AtomicU64; ReloadResult::COUNT],
    /// The last result's place in `ReloadResult`, and when that was in milliseconds.
    last_reload: AtomicU64,
    last_reload_at: AtomicU64,
    log_lines_dropped: AtomicU64,
    panics: AtomicU64,
}

impl ProcessSeries {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            started: now,
            generation: AtomicU64::new(1),
            reloads: Default::default(),
            last_reload: AtomicU64::new(ReloadResult::Applied as u64),
            last_reload_at: AtomicU64::new(millis(now)),
            log_lines_dropped: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// A reload ended with `generation` in force.
    pub fn reloaded(&self, result: ReloadResult, generation: u64, now: SystemTime) {
        self.reloads[result as usize].fetch_add(1, Relaxed);
        self.generation.store(generation, Relaxed);
        self.last_reload.store(result as u64, Relaxed);
        self.last_reload_at.store(millis(now), Relaxed);
    }

    pub fn dropped_log_lines(&self, lines: u64) {
        self.log_lines_dropped.fetch_add(lines, Relaxed);
    }

    pub fn log_lines_dropped(&self) -> u64 {
        self.log_lines_dropped.load(Relaxed)
    }

    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub fn started(&self) -> SystemTime {
        self.started
    }

    pub(super) fn write(&self, page: &mut Page) {
        page.family(&metrics::BUILD_INFO, |samples| samples.count(&[env!("CARGO_PKG_VERSION")], 1));
        number(page, &metrics::START_TIME, Some(seconds(millis(self.started))));
        count(page, &metrics::CONFIG_GENERATION, &self.generation);
        let ok = self.last_reload.load(Relaxed) == ReloadResult::Applied as u64;
        number(page, &metrics::CONFIG_LAST_RELOAD_OK, Some(f64::from(u8::from(ok))));
        let at = self.last_reload_at.load(Relaxed);
        number(page, &metrics::CONFIG_LAST_RELOAD_TIME, Some(seconds(at)));
        page.family(&metrics::CONFIG_RELOADS, |samples| {
            for result in ReloadResult::ALL {
                samples.count(&[result.name()], self.reloads[result as usize].load(Relaxed));
            }
        });
        count(page, &metrics::LOG_LINES_DROPPED, &self.log_lines_dropped);
        count(page, &metrics::PANICS, &self.panics);
    }
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

fn count(page: &mut Page, family: &'static Family, count: &AtomicU64) {
    page.family(family, |samples| samples.count(&[], count.load(Relaxed)));
}

fn number(page: &mut Page, family: &'static Family, value: Option<f64>) {
    page.family(family, |samples| value.into_iter().for_each(|value| samples.number(&[], value)));
}

pub(super) fn write_standard(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // The directory that is being read is one of those counted.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));

    number(page, &metrics::PROCESS_CPU, stat.as_ref().map(|stat| stat.cpu_seconds));
    number(page, &metrics::PROCESS_RESIDENT, status_bytes(&status, "VmRSS:"));
    number(page, &metrics::PROCESS_VIRTUAL, status_bytes(&status, "VmSize:"));
    number(page, &metrics::PROCESS_OPEN_FDS, open.map(|open| open as f64));
    number(page, &metrics::PROCESS_MAX_FDS, Some(limit.map_or(f64::INFINITY, |limit| limit as f64)));
    let start = stat.zip(boot).map(|(stat, boot)| boot + stat.start_seconds);
    number(page, &metrics::PROCESS_START_TIME, start);
}

/// The fields of `/proc/self/stat` that are wanted, see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    /// Since boot.
    start_seconds: f64,
}

/// USER_HZ, which Linux has fixed at 100 towards user space on every platform of today.
const TICKS_PER_SECOND: f64 = 100.0;

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The command's name, in parentheses, may itself hold spaces and parentheses.
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<f64> =
            after_name.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        // The manual numbers fields from 1, and the first here is its third.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            start_seconds: field(22)? / TICKS_PER_SECOND,
        })
    }
}

/// A line such as `VmRSS:     1234 kB` of `/proc/self/status`.
fn status_bytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse().ok().map(|kilobytes: f64| kilobytes * 1024.0)
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b) (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1200 4096000 250 18446744073709551615 1";
        let stat = Stat::parse(text).expect("a whole line");
        assert_eq!((stat.cpu_seconds, stat.start_seconds), (2.0, 12.0));
        assert_eq!(Stat::parse("42 (short) S 1"), None);
    }

    #[test]
    fn a_rejected_reload_shows_and_keeps_the_generation() {
        let process = ProcessSeries::new(UNIX_EPOCH);
        process.reloaded(ReloadResult::Applied, 2, UNIX_EPOCH + Duration::from_secs(5));
        process.reloaded(ReloadResult::Rejected, 2, UNIX_EPOCH + Duration::from_millis(7500));
        let mut page = Page::default();
        process.write(&mut page);
        let text = page.finish();
        for line in [
            "pintle_config_generation 2",
            "pintle_config_last_reload_successful 0",
            "pintle_config_last_reload_timestamp_seconds 7.5",
            "pintle_config_reloads_total{result=\"rejected\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
