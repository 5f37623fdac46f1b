//! `serve`: runs a balancer from a file, or from flags that say the same.
//!
//! Start at [`run`]. The flags are `flags`, what runs is `app`; here is what a person sees of it.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::check::nothing_to_read;
use super::discover::{self, reachable};
use super::flags::Flags;
use super::outcome::{Exit, Failure};
use super::output::{self, Cell, Output, Paint, Style, count, table};
use super::self_signed::{self, SelfSigned};
use crate::admin::Gone;
use crate::admin::view::{BackendView, PoolView, Status};
use crate::app::{Heir, Inherited, Options, Pintle, Program, Source, StartError};
use crate::config::{self, Compiled, Origin, Problem, Problems};
use crate::plan::{EventFormat, LogPlan, Plan};
use crate::telemetry::events::{self, EventLog};

#[derive(clap::Args)]
pub struct ServeArgs {
    /// The configuration [default: ./pintle.toml, then /etc/pintle/pintle.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

pub async fn run(args: ServeArgs, output: &Output) -> Result<Exit, Failure> {
    let program = Program::this();
    let inherited = match Heir::called().map_err(Failure::failed)? {
        Some(handed_over) => handed_over,
        None => Inherited::activated()
            .map_err(|error| Failure::failed(format!("cannot use a socket that was passed: {error}")))?,
    };
    let refusal = inherited.refusal();
    let ended = serve(args, program, inherited, output).await;
    if let (Some(refusal), Err(failure)) = (refusal, &ended) {
        refusal.say(output::describe(failure, Paint(false)));
    }
    ended
}

async fn serve(
    args: ServeArgs,
    program: Program,
    inherited: Inherited,
    output: &Output,
) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let (print_only, self_signed) = (args.flags.print_config, args.flags.tls_self_signed);
    let (file, addresses) = (discover::file(), args.flags.addresses());
    let mut source = choose(args, file.clone())?;
    if let (Source::Text { text, .. }, true) = (&source, print_only) {
        output.print(text)?;
        if self_signed {
            output.note("note: its certificate has to be made first; the comment beside it says how");
        }
        return Ok(Exit::Done);
    }
    // Removed when this function ends.
    let made = self_signed.then(|| SelfSigned::make(&std::env::temp_dir(), &addresses)).transpose()?;
    if let (Source::Text { origin, .. }, Some(made)) = (&mut source, &made) {
        origin.base = made.folder().to_owned();
    }
    if let (Source::Text { .. }, Some(file)) = (&source, file) {
        output.note(&format!("note: with `--to`, `{}` is left alone", file.display()));
    }

    let Compiled { plan, warnings, .. } = compile(&source).map_err(|problems| invalid(&problems, output))?;
    let events = print_events(&plan.log)?;
    let options = Options { default_admin: true, event_log: Some(events), program: Some(program) };
    let pintle =
        Pintle::start_with(source, options, inherited).await.map_err(|error| not_started(error, output))?;

    if for_people(&plan) {
        if !warnings.is_empty() {
            output.note(warnings.render(output.paint_notes.0).trim_end());
        }
        for warning in pintle.warnings() {
            output.note(&format!("{} {warning}", output.paint_notes.with(Style::Warn, "warning:")));
        }
        if let Ok(started) = Started::look(&pintle, &plan, begun).await {
            output.note(screen(&started, output.paint_notes).trim_end());
        }
        if made.is_some() {
            output.note(&try_tls(&plan, &pintle).join("\n"));
        }
    } else {
        let place = |warning: &Problem| format!("{}:{}:{}", warnings.name(), warning.line, warning.column);
        let written = warnings.iter().map(|warning| format!("{}: {}", place(warning), warning.message));
        for warning in written.chain(pintle.warnings()) {
            tracing::warn!(event = "process", "{warning}");
        }
        tracing::info!(event = "process", "{}", doors(&pintle));
        if made.is_some() {
            try_tls(&plan, &pintle).iter().for_each(|line| tracing::info!(event = "process", "{line}"));
        }
    }

    pintle.run().await;
    Ok(Exit::Done)
}

/// Flags or a file, never both, and `file` where neither is named.
fn choose(args: ServeArgs, file: Option<PathBuf>) -> Result<Source, Failure> {
    if let Some(flag) = args.flags.stray() {
        return Err(Failure::usage(format!(
            "`{flag}` is part of a configuration by flags, which begins with `--to`"
        ))
        .help(format!("add `--to HOST:PORT`, or leave out `{flag}` and write it in the file")));
    }
    match (args.flags.given(), args.config) {
        (true, Some(path)) => {
            let path = path.display();
            Err(Failure::usage(format!("`--to` is a whole configuration, and so is `-c {path}`"))
                .help("keep one of the two; `--to … --print-config` shows the flags as a file"))
        }
        (true, None) => {
            let origin = Origin { name: "--to".into(), base: PathBuf::from(".") };
            Ok(Source::Text { text: args.flags.toml()?, origin })
        }
        (false, Some(path)) => Ok(Source::File(path)),
        (false, None) => file.map(Source::File).ok_or_else(nothing_to_read),
    }
}

/// Compiled here for what has to be known before anything runs: where events are printed.
fn compile(source: &Source) -> Result<Compiled, Problems> {
    match source {
        Source::File(path) => config::load(path),
        Source::Text { text, origin } => config::compile(text, origin),
    }
}

/// From here on events are printed, as `[log]` says.
pub fn print_events(log: &LogPlan) -> Result<EventLog, Failure> {
    let (subscriber, events) = events::subscriber(log).map_err(|error| Failure::failed(error.to_string()))?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| Failure::failed("events are printed by somebody else already"))?;
    Ok(events)
}

fn not_started(error: StartError, output: &Output) -> Failure {
    match error {
        StartError::Config(problems) => invalid(&problems, output),
        error => Failure::failed(error.to_string()),
    }
}

fn invalid(problems: &Problems, output: &Output) -> Failure {
    let mut failure = Failure::new(Exit::ConfigInvalid, problems.summary());
    failure.text = Some(problems.render(output.paint_notes.0));
    failure
}

/// Whether somebody reads along: a terminal that does not get JSON.
fn for_people(plan: &Plan) -> bool {
    std::io::stderr().is_terminal() && plan.log.format != EventFormat::Json
}

/// The first line of a log: where it can be reached.
fn doors(pintle: &Pintle) -> String {
    let listeners = pintle.listeners().into_iter().map(|(name, address)| format!("{name} at {address}"));
    let admin = pintle.admin_address().map(|address| format!("admin at {address}"));
    let socket = pintle.admin_socket().map(|path| format!("admin socket at {}", path.display()));
    let doors: Vec<_> = listeners.chain(admin).chain(socket).collect();
    format!("pintle {} listening: {}", env!("CARGO_PKG_VERSION"), doors.join(", "))
}

/// Of a certificate that was made for one run: whom it is for, how to know it, how to try it.
fn try_tls(plan: &Plan, pintle: &Pintle) -> Vec<String> {
    let shown = plan.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.certificates.first());
    let facts = shown.map(|certificate| &certificate.facts).next();
    let lines = facts.into_iter().flat_map(|facts| {
        let names = facts.names.join(", ");
        let fingerprint = self_signed::spaced(&facts.fingerprint);
        [format!("a certificate for this run: {names}"), format!("its SHA-256 fingerprint: {fingerprint}")]
    });
    let address = pintle.address().map(reachable);
    lines.chain(address.map(|address| format!("try it: curl -k https://{address}/"))).collect()
}

/// What the first screen tells.
struct Started {
    status: Status,
    listeners: Vec<(String, SocketAddr)>,
    /// Names of those that speak TLS.
    secure: Vec<String>,
    admin: Option<SocketAddr>,
    socket: Option<PathBuf>,
    workers: usize,
    /// Whether some pool has probes.
    probed: bool,
    took: Duration,
}

impl Started {
    async fn look(pintle: &Pintle, plan: &Plan, begun: Instant) -> Result<Self, Gone> {
        let secure = plan.listeners.iter().filter(|listener| listener.tls.is_some());
        let every_cpu = || available_parallelism().map_or(1, usize::from);
        Ok(Self {
            status: pintle.status().await?,
            listeners: pintle.listeners(),
            secure: secure.map(|listener| listener.name.clone()).collect(),
            admin: pintle.admin_address(),
            socket: pintle.admin_socket(),
            workers: Some(plan.server.workers).filter(|workers| *workers > 0).unwrap_or_else(every_cpu),
            probed: plan.pools.iter().any(|pool| pool.health.is_some()),
            took: begun.elapsed(),
        })
    }
}

/// The first screen: what listens where, who is behind it, and what can be done next.
fn screen(started: &Started, paint: Paint) -> String {
    let Status { version, pid, source, pools, .. } = &started.status;
    let flags = source == "--to";
    let row = |label: String, value: String, remark: &str| {
        vec![Cell::new(label, Style::Faint), Cell::plain(value), Cell::new(remark, Style::Faint)]
    };

    let mut rows = Vec::new();
    for (name, address) in &started.listeners {
        let scheme = if started.secure.contains(name) { "https" } else { "http" };
        let remark = match (address.ip().is_loopback(), flags) {
            (true, true) => "this machine only; --listen :8080 for all interfaces",
            (true, false) => "this machine only",
            (false, _) => "",
        };
        rows.push(row("listening".into(), format!("{scheme}://{address}"), remark));
    }
    for pool in pools {
        rows.push(row(format!("pool {}", pool.name), pool.policy.clone(), &addresses(pool)));
    }
    let control = pools.iter().flat_map(|pool| &pool.backends).next().map(drain_command).unwrap_or_default();
    if let Some(address) = started.admin {
        rows.push(row(
            "admin".into(),
            format!("http://{}", reachable(address)),
            "status and metrics to read",
        ));
    }
    if let Some(socket) = &started.socket {
        rows.push(row("control".into(), socket.display().to_string(), &control));
    }
    if flags {
        rows.push(row("keep it".into(), "add --print-config > pintle.toml".into(), ""));
    }

    let title = paint.with(Style::Title, &format!("pintle {version}"));
    let origin = if flags { String::new() } else { format!("  from {source}") };
    let ready = ready(started);
    format!(
        "{title}  pid {pid}  {}{origin}\n{}{ready}\n",
        count(started.workers as u64, "worker"),
        table(&rows, paint)
    )
}

/// The first few backends, and how many more.
fn addresses(pool: &PoolView) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<String> =
        pool.backends.iter().take(SHOWN).map(|backend| backend.address.clone()).collect();
    if pool.backends.len() > SHOWN {
        shown.push(format!("and {} more", pool.backends.len() - SHOWN));
    }
    shown.join("  ")
}

/// A command to paste, with the name as short as people type it.
fn drain_command(backend: &BackendView) -> String {
    let name = backend.name.rsplit_once(':').map_or(backend.name.as_str(), |(_, port)| port);
    format!("`pintle drain {}/{name}`", backend.pool)
}

/// Ready is what can be known: before the first verdicts only that it listens.
fn ready(started: &Started) -> String {
    let backends = || started.status.pools.iter().flat_map(|pool| &pool.backends);
    let up = backends().filter(|backend| backend.health.status == "up").count();
    let took = format!("{} ms", started.took.as_millis());
    match started.probed && backends().any(|backend| backend.health.status == "unknown") {
        true => format!("listening after {took}; the first probes are out"),
        false => format!("ready in {took}, {up} of {} up", count(backends().count() as u64, "backend")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn args(to: &[&str], config: Option<&str>) -> ServeArgs {
        let to = to.iter().map(|item| (*item).to_owned()).collect();
        ServeArgs { config: config.map(PathBuf::from), flags: Flags { to, ..Flags::default() } }
    }

    fn chosen(args: ServeArgs, file: Option<&str>) -> Result<String, Exit> {
        match choose(args, file.map(PathBuf::from)) {
            Ok(Source::File(path)) => Ok(path.display().to_string()),
            Ok(Source::Text { origin, .. }) => Ok(origin.name),
            Err(failure) => Err(failure.exit),
        }
    }

    #[test]
    fn flags_or_a_file_but_never_both() {
        assert_eq!(chosen(args(&[":9001"], None), Some("pintle.toml")), Ok("--to".into()));
        assert_eq!(chosen(args(&[], Some("a.toml")), Some("pintle.toml")), Ok("a.toml".into()));
        assert_eq!(chosen(args(&[], None), Some("pintle.toml")), Ok("pintle.toml".into()));
        assert_eq!(chosen(args(&[":9001"], Some("a.toml")), None), Err(Exit::Usage));
        assert_eq!(chosen(args(&[], None), None), Err(Exit::Usage));
        let sticky = ServeArgs { config: None, flags: Flags { sticky: true, ..Flags::default() } };
        assert_eq!(chosen(sticky, Some("pintle.toml")), Err(Exit::Usage));
    }

    fn started(source: &str) -> Started {
        let mut status = samples::status(&[("app", &["127.0.0.1:9001", "127.0.0.1:9002"])]);
        status.source = source.into();
        Started {
            status,
            listeners: vec![("web".into(), "127.0.0.1:8080".parse().unwrap())],
            secure: Vec::new(),
            admin: Some("0.0.0.0:9900".parse().unwrap()),
            socket: Some("/run/pintle/admin.sock".into()),
            workers: 2,
            probed: false,
            took: Duration::from_millis(14),
        }
    }

    #[test]
    fn the_first_screen_says_what_runs_and_what_to_do_next() {
        let expected = "\
pintle 0.1.0  pid 4121  2 workers
  listening  http://127.0.0.1:8080             this machine only; --listen :8080 for all interfaces
  pool app   round_robin                       127.0.0.1:9001  127.0.0.1:9002
  admin      http://127.0.0.1:9900             status and metrics to read
  control    /run/pintle/admin.sock            `pintle drain app/9001`
  keep it    add --print-config > pintle.toml
ready in 14 ms, 2 of 2 backends up
";
        assert_eq!(screen(&started("--to"), Paint(false)), expected);
    }

    #[test]
    fn a_file_is_named_and_flags_are_not_advertised() {
        let screen = screen(&started("pintle.toml"), Paint(false));
        assert!(screen.starts_with("pintle 0.1.0  pid 4121  2 workers  from pintle.toml\n"), "{screen}");
        assert!(!screen.contains("--"), "{screen}");
    }

    #[test]
    fn a_listener_that_speaks_tls_is_shown_with_https() {
        let mut started = started("--to");
        started.secure = vec!["web".into()];
        let screen = screen(&started, Paint(false));
        assert!(screen.contains("  listening  https://127.0.0.1:8080 "), "{screen}");
    }

    #[test]
    fn a_large_pool_takes_one_line() {
        let names: Vec<String> = (1..=100).map(|number| format!("b{number}")).collect();
        let status = samples::status(&[("app", &names.iter().map(String::as_str).collect::<Vec<_>>())]);
        assert_eq!(addresses(&status.pools[0]), "b1  b2  b3  b4  and 96 more");
    }

    #[test]
    fn it_is_not_called_ready_before_the_first_verdicts() {
        let mut started = started("--to");
        started.probed = true;
        started.status.pools[0].backends[0].health.status = "unknown".into();
        assert_eq!(ready(&started), "listening after 14 ms; the first probes are out");
    }
}
