//! `reload` and `shutdown`: orders to the whole process.

use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::duration;
use super::outcome::{Exit, Failure};
use super::output::{Cell, Output, Paint, Style, span, table};
use crate::admin::view::{ReloadOrder, ReloadReport, ShutdownOrder};

#[derive(clap::Args)]
pub struct ShutdownArgs {
    /// How long what is in flight may take, instead of the file's `drain_timeout`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    drain: Option<Duration>,
}

pub async fn run(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let answer = client.post::<ReloadReport>("/v1/reload", &ReloadOrder::default()).await;
    let report = answer.map_err(|failure| match failure.exit {
        Exit::ConfigInvalid => Failure { message: format!("not reloaded: {}", failure.message), ..failure },
        _ => failure,
    })?;
    if output.json {
        output.print_json(&report)?;
    } else if !output.silent() {
        output.print(&describe(&report, output.paint))?;
    }
    Ok(Exit::Done)
}

pub async fn shutdown(args: ShutdownArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let order = ShutdownOrder { drain_seconds: args.drain.map(|drain| drain.as_secs_f64()) };
    let answer: Value = client.post("/v1/shutdown", &order).await?;
    if output.json {
        output.print_json(&answer)?;
    } else {
        let limit = args.drain.map(|drain| format!(", for {} at most", span(drain.as_secs_f64())));
        output.say(&format!("shutting down; what is in flight is finished{}", limit.unwrap_or_default()))?;
    }
    Ok(Exit::Done)
}

/// What a reload did: the generations, then a line for each thing.
fn describe(report: &ReloadReport, paint: Paint) -> String {
    let ReloadReport { source, from_generation, generation, seconds, .. } = report;
    let mut text = match from_generation == generation {
        true => format!("{source} is what runs already: generation {generation} stays\n"),
        false => {
            format!("reloaded {source}  generation {from_generation} → {generation}  in {}\n", span(*seconds))
        }
    };
    let kept = if report.kept.is_empty() { Vec::new() } else { vec![report.kept.join(", ")] };
    let groups: [(&str, &[String], Style); 6] = [
        ("kept", &kept, Style::Good),
        ("changed", &report.changed, Style::Plain),
        ("added", &report.added, Style::Plain),
        ("draining", &report.draining, Style::Warn),
        ("moves", &report.moves, Style::Warn),
        ("waits for a restart", &report.restart_only, Style::Warn),
    ];
    let rows: Vec<Vec<Cell>> = groups
        .into_iter()
        .flat_map(|(label, lines, style)| {
            let label = move |first| Cell::new(if first { label } else { "" }, style);
            lines.iter().enumerate().map(move |(index, line)| vec![label(index == 0), Cell::plain(line)])
        })
        .collect();
    text += &table(&rows, paint);
    for warning in &report.warnings {
        let mark = paint.with(Style::Warn, &format!("warning[{}]", warning.code));
        text +=
            &format!("{mark}: {}:{}:{}: {}\n", warning.file, warning.line, warning.column, warning.message);
        if let Some(help) = &warning.help {
            text += &format!("  help: {help}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::ProblemView;

    fn lines(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn a_report_lists_what_was_kept_and_what_changed() {
        let report = ReloadReport {
            source: "pintle.toml".into(),
            from_generation: 7,
            generation: 8,
            seconds: 0.006,
            kept: lines(&["2 listeners", "14 backends"]),
            changed: lines(&["pool app: policy round_robin → sticky_cookie", "pool app: weight of a2 1 → 2"]),
            moves: lines(&["nobody"]),
            restart_only: lines(&["server.workers"]),
            warnings: vec![ProblemView {
                severity: "warning".into(),
                code: "trust".into(),
                message: "`trusted_proxies` is empty".into(),
                file: "pintle.toml".into(),
                line: 12,
                column: 10,
                source_line: String::new(),
                label: String::new(),
                help: Some("write it".into()),
            }],
            ..ReloadReport::default()
        };
        let expected = "\
reloaded pintle.toml  generation 7 → 8  in 6ms
  kept                 2 listeners, 14 backends
  changed              pool app: policy round_robin → sticky_cookie
                       pool app: weight of a2 1 → 2
  moves                nobody
  waits for a restart  server.workers
warning[trust]: pintle.toml:12:10: `trusted_proxies` is empty
  help: write it
";
        assert_eq!(describe(&report, Paint(false)), expected);
    }

    #[test]
    fn a_reload_of_the_same_file_says_that_nothing_changed() {
        let report = ReloadReport {
            source: "pintle.toml".into(),
            from_generation: 8,
            generation: 8,
            ..ReloadReport::default()
        };
        assert_eq!(describe(&report, Paint(false)), "pintle.toml is what runs already: generation 8 stays\n");
    }
}
