//! `upgrade`: replaces the running process by a new one, and says how it went.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::Client;
use super::duration;
use super::outcome::{Exit, Failure};
use super::output::{Output, count, span};
use crate::admin::view::{UpgradeOrder, UpgradeReport};
use crate::app::READY_WITHIN;

/// What the answer may take beyond the time that the new process has.
const SLACK: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub struct UpgradeArgs {
    /// The program to start, instead of what stands where the running one was found
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long it may take to be ready [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

pub async fn run(args: UpgradeArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let limit = args.timeout.unwrap_or(READY_WITHIN);
    let order = UpgradeOrder {
        binary: args.binary.as_deref().map(absolute).transpose()?,
        timeout_seconds: args.timeout.map(|timeout| timeout.as_secs_f64()),
    };
    let report: UpgradeReport = client.post_within("/v1/upgrade", &order, limit + SLACK).await?;
    if output.json {
        output.print_json(&report)?;
    } else if !output.silent() {
        output.print(&describe(&report))?;
    }
    Ok(Exit::Done)
}

/// The running Pintle may be in another folder than we are.
fn absolute(binary: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(binary).map_err(|error| Failure::failed(error.to_string()))?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("`{}` is not UTF-8", binary.display())))
}

fn describe(report: &UpgradeReport) -> String {
    let UpgradeReport { from_pid, pid, from_version, version, .. } = report;
    let left: Vec<_> = [(report.requests_in_flight, "request"), (report.tunnels, "tunnel")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, thing)| count(number, thing))
        .collect();
    let with = if left.is_empty() { String::new() } else { format!(" with {}", left.join(" and ")) };
    format!(
        "upgraded {from_version} → {version}  pid {from_pid} → {pid}  in {}\n  {from_pid} finishes {}{with}, for at most {}\n",
        span(report.seconds),
        count(report.connections, "connection"),
        span(report.drain_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_who_serves_now_and_what_the_old_one_finishes() {
        let mut report = UpgradeReport {
            from_pid: 4121,
            pid: 5003,
            from_version: "0.1.0".into(),
            version: "0.2.0".into(),
            seconds: 0.084,
            connections: 3,
            requests_in_flight: 1,
            tunnels: 2,
            drain_seconds: 30.0,
        };
        let text = "upgraded 0.1.0 → 0.2.0  pid 4121 → 5003  in 84ms\n  4121 finishes 3 connections with 1 request and 2 tunnels, for at most 30s\n";
        assert_eq!(describe(&report), text);
        (report.connections, report.requests_in_flight, report.tunnels) = (0, 0, 0);
        assert!(describe(&report).ends_with("finishes 0 connections, for at most 30s\n"));
    }
}
