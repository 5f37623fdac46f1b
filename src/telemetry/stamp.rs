//! Time stamps for log lines, in UTC: [`StampCache`] works out the calendar once a second.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that was written, as text.
#[derive(Clone, Debug)]
pub struct StampCache {
    second: u64,
    /// `2026-11-23T12:04:31`
    iso: [u8; 19],
    /// `23/Nov/2026:12:04:31 +0000`
    common: [u8; 26],
}

impl Default for StampCache {
    fn default() -> Self {
        let mut cache = Self { second: 0, iso: [0; 19], common: [0; 26] };
        cache.turn_to(0);
        cache
    }
}

impl StampCache {
    /// `2026-11-23T12:04:31.207Z`
    pub fn rfc3339(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let millis = self.look(at);
        out.extend_from_slice(&self.iso);
        out.extend_from_slice(&millis);
        out.push(b'Z');
    }

    /// `12:04:31.207`
    pub fn time_of_day(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let millis = self.look(at);
        out.extend_from_slice(&self.iso[11..]);
        out.extend_from_slice(&millis);
    }

    /// `23/Nov/2026:12:04:31 +0000`, as the Common Log Format wants it.
    pub fn common(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        self.look(at);
        out.extend_from_slice(&self.common);
    }

    /// Turns to the second of `at` and gives the rest as `.207`. Before 1970 is 1970.
    fn look(&mut self, at: SystemTime) -> [u8; 4] {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if since.as_secs() != self.second {
            self.turn_to(since.as_secs());
        }
        let millis = since.subsec_millis();
        [b'.', digit(millis / 100), digit(millis / 10), digit(millis)]
    }

    fn turn_to(&mut self, second: u64) {
        let (year, month, day) = civil(second / 86_400);
        let (hour, minute, rest) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let name = MONTHS[month as usize - 1];
        write!(&mut self.iso[..], "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}")
            .expect("the date fits");
        write!(&mut self.common[..], "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{rest:02} +0000")
            .expect("the date fits");
        self.second = second;
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

/// Year, month and day of a day counted from 1970: Howard Hinnant's `civil_from_days`, whose years
/// begin in March so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year % 10_000, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn each_form_is_spelled_as_its_readers_expect() {
        let (mut cache, mut out) = (StampCache::default(), Vec::new());
        cache.rfc3339(at(1_795_435_471_207), &mut out);
        out.push(b' ');
        cache.time_of_day(at(1_795_435_471_007), &mut out);
        out.push(b' ');
        cache.common(at(1_795_435_471_999), &mut out);
        out.push(b' ');
        cache.rfc3339(UNIX_EPOCH - Duration::from_secs(1), &mut out);
        assert_eq!(
            String::from_utf8(out).expect("ASCII"),
            "2026-11-23T12:04:31.207Z 12:04:31.007 23/Nov/2026:12:04:31 +0000 1970-01-01T00:00:00.000Z"
        );
    }

    proptest! {
        #[test]
        fn any_time_is_what_humantime_makes_of_it(millis in 0u64..253_402_300_800_000) {
            let mut out = Vec::new();
            StampCache::default().rfc3339(at(millis), &mut out);
            let expected = humantime::format_rfc3339_millis(at(millis)).to_string();
            prop_assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
        }
    }
}
