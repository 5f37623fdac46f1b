//! `check`: everything about a file that can be known without running it. Asks no Pintle.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::discover;
use super::outcome::{Exit, Failure};
use super::output::{Output, count};
use crate::admin::view::{CheckReport, ProblemView};
use crate::config::{self, Compiled, Origin, Problem, Problems};
use crate::plan::Plan;

#[derive(clap::Args)]
pub struct CheckArgs {
    /// The file, or `-` for stdin [default: the one that `serve` would read]
    file: Option<PathBuf>,
}

pub fn run(args: CheckArgs, output: &Output) -> Result<Exit, Failure> {
    let path = args.file.or_else(discover::file).ok_or_else(nothing_to_read)?;
    let checked = if path == Path::new("-") { stdin()? } else { config::load(&path) };
    let problems = match &checked {
        Ok(compiled) => &compiled.warnings,
        Err(problems) => problems,
    };
    if output.json {
        output.print_json(&report(checked.is_ok(), problems))?;
    } else if !problems.is_empty() {
        output.aside(problems.render(output.paint_notes.0).trim_end());
    }
    match &checked {
        Ok(compiled) => output.say(&format!("{}: ok, {}", path.display(), summary(&compiled.plan)))?,
        Err(problems) if !output.json => output.aside(&problems.summary()),
        Err(_) => {}
    }
    Ok(if checked.is_ok() { Exit::Done } else { Exit::ConfigInvalid })
}

/// Neither of the usual files is there.
pub fn nothing_to_read() -> Failure {
    let [here, there] = discover::FILES;
    Failure::usage(format!("there is no `./{here}` and no `{there}`"))
        .help("`pintle serve --to 127.0.0.1:9001,127.0.0.1:9002` needs no file; `pintle init` writes one")
}

fn stdin() -> Result<Result<Compiled, Problems>, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(config::MAX_TEXT as u64).read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
    Ok(config::compile(&text, &Origin { name: "stdin".into(), base: PathBuf::from(".") }))
}

fn report(ok: bool, problems: &Problems) -> CheckReport {
    let view = |problem: &Problem| ProblemView {
        severity: problem.severity.name().to_owned(),
        code: problem.code.to_owned(),
        message: problem.message.clone(),
        file: problems.name().to_owned(),
        line: problem.line,
        column: problem.column,
        source_line: problem.source_line.clone(),
        label: problem.label.clone(),
        help: problem.help.clone(),
    };
    CheckReport { ok, problems: problems.iter().map(view).collect(), text: problems.render(false) }
}

fn summary(plan: &Plan) -> String {
    let backends = plan.pools.iter().map(|pool| pool.backends.len()).sum::<usize>();
    let counts = [
        (plan.listeners.len(), "listener"),
        (plan.routes.len(), "route"),
        (plan.pools.len(), "pool"),
        (backends, "backend"),
    ];
    counts.map(|(number, thing)| count(number as u64, thing)).join(", ")
}
