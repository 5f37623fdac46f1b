//! The Prometheus text format 0.0.4: headers, labels, escaping, histograms.
//!
//! Start at [`Page`]. Which families there are is the catalogue's business (`metrics`).

use std::fmt::Write;

use super::counter::{BOUNDS, Distribution};
use super::metrics::Family;

/// A page of metrics as it is written.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Writes one family: its head, then what `write` adds. A family without samples is left out.
    pub(crate) fn family(&mut self, family: &'static Family, write: impl FnOnce(&mut Samples<'_>)) {
        let start = self.0.len();
        let Family { name, help, kind, .. } = family;
        put(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
        let head = self.0.len();
        write(&mut Samples { family, out: &mut self.0 });
        if self.0.len() == head {
            self.0.truncate(start);
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Adds samples to the family that is being written. Label values come in the family's order.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    family: &'static Family,
    out: &'a mut String,
}

impl Samples<'_> {
    pub(crate) fn count(&mut self, labels: &[&str], value: u64) {
        self.line("", labels, None, format_args!("{value}"));
    }

    pub(crate) fn number(&mut self, labels: &[&str], value: f64) {
        if value.is_infinite() {
            let sign = if value > 0.0 { '+' } else { '-' };
            self.line("", labels, None, format_args!("{sign}Inf"));
        } else {
            self.line("", labels, None, format_args!("{value}"));
        }
    }

    /// `_count` is the sum of the buckets as they were read, so it always equals `+Inf`.
    pub(crate) fn distribution(&mut self, labels: &[&str], all: &Distribution) {
        let mut below = 0;
        let bounds = BOUNDS.iter().map(|(_, le)| *le).chain(["+Inf"]);
        for (le, bucket) in bounds.zip(all.buckets) {
            below += bucket;
            self.line("_bucket", labels, Some(le), format_args!("{below}"));
        }
        self.line("_sum", labels, None, format_args!("{}", all.seconds));
        self.line("_count", labels, None, format_args!("{below}"));
    }

    fn line(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: std::fmt::Arguments<'_>) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "labels of {}", self.family.name);
        put(self.out, format_args!("{}{suffix}", self.family.name));
        let names = self.family.labels.iter().copied().chain(["le"]);
        let mut before = '{';
        for (name, text) in names.zip(labels.iter().copied().chain(le)) {
            put(self.out, format_args!("{before}{name}=\""));
            escape(self.out, text);
            self.out.push('"');
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        put(self.out, format_args!(" {value}\n"));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

fn escape(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics;
    use super::*;

    #[test]
    fn label_values_are_escaped_and_infinity_is_spelled_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.family(&metrics::BACKEND_WEIGHT, |samples| {
            samples.number(&["a\"b", "c\\d\ne"], f64::INFINITY);
            samples.number(&["", "é"], 0.5);
        });
        assert_eq!(
            page.finish(),
            "# HELP pintle_backend_weight Weight of the backend as set, without slow start.\n\
             # TYPE pintle_backend_weight gauge\n\
             pintle_backend_weight{pool=\"a\\\"b\",backend=\"c\\\\d\\ne\"} +Inf\n\
             pintle_backend_weight{pool=\"\",backend=\"é\"} 0.5\n"
        );
    }

    #[test]
    fn a_family_without_samples_leaves_no_trace() {
        let mut page = Page::default();
        page.family(&metrics::BACKEND_WEIGHT, |_| {});
        assert_eq!(page.finish(), "");
    }
}
