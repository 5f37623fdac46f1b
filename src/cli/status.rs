//! `status`: the running Pintle on one screen.
//!
//! Start at [`screen`], a pure function of what `/v1/status` says.

use std::time::Duration;

use super::client::Client;
use super::names;
use super::outcome::{Exit, Failure};
use super::output::{Cell, Output, Paint, Style, count, span, table};
use crate::admin::view::{BackendView, CertificateView, PoolView, Status};

const WATCH: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct StatusArgs {
    /// Only this pool
    pool: Option<String>,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Only the backends whose state differs from the file's
    #[arg(long)]
    drift: bool,
}

pub async fn run(args: StatusArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    loop {
        let mut status: Status = client.get("/v1/status").await?;
        if let Some(typed) = &args.pool {
            status.pools = vec![names::pool(&status, typed)?.clone()];
        }
        match (output.json, args.drift) {
            (true, true) => output.print_json(&status.drift)?,
            (true, false) => output.print_json(&status)?,
            (false, true) => output.print(&drift(&status))?,
            (false, false) if args.watch => {
                output.print(&repeated(&screen(&status, output.paint), output.width))?
            }
            (false, false) => output.print(&screen(&status, output.paint))?,
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// On a terminal over what stood there, line by line so that nothing flickers; else one below
/// the other.
fn repeated(screen: &str, width: Option<usize>) -> String {
    match width {
        Some(_) => format!("\x1b[H{}\x1b[J", screen.replace('\n', "\x1b[K\n")),
        None => format!("{screen}\n"),
    }
}

fn drift(status: &Status) -> String {
    match &status.drift[..] {
        [] => format!("no drift from {}\n", status.source),
        drift => drift.iter().map(|sentence| format!("{sentence}\n")).collect(),
    }
}

/// Everything worth a look, in the order in which it is worth it.
fn screen(status: &Status, paint: Paint) -> String {
    let mut text = head(status, paint);
    for pool in &status.pools {
        text += &format!("\n{}\n", pool_line(pool, paint));
        let rows: Vec<_> = std::iter::once(header()).chain(pool.backends.iter().map(row)).collect();
        text += &table(&rows, paint);
    }
    if !status.certificates.is_empty() {
        text.push('\n');
    }
    for certificate in &status.certificates {
        text += &format!("{}\n", certificate_line(certificate, paint));
    }
    if !status.drift.is_empty() {
        text += &format!("\n{}\n", paint.with(Style::Warn, &format!("drift from {}", status.source)));
        text += &status.drift.iter().map(|sentence| format!("  {sentence}\n")).collect::<String>();
    }
    text
}

fn head(status: &Status, paint: Paint) -> String {
    let Status { version, pid, source, generation, totals, .. } = status;
    let title = paint.with(Style::Title, &format!("pintle {version}"));
    let up = span(status.uptime_seconds);
    let mut text = format!("{title}  pid {pid}  up {up}  generation {generation} of {source}");
    if status.state != "active" {
        text += &format!("  {}", paint.with(Style::Warn, &status.state));
    }
    text += &format!(
        "\n{}, {} in flight, {}, {} so far, {} answered 5xx\n",
        count(totals.connections, "connection"),
        count(totals.requests_in_flight, "request"),
        count(totals.tunnels, "tunnel"),
        count(totals.requests, "request"),
        totals.server_errors
    );
    match &status.last_reload {
        Some(last) if last.ok => text += &format!("last reload {}, ok\n", last.at),
        Some(last) => {
            let detail = last.detail.as_deref().unwrap_or("the file has problems");
            let failed = format!("last reload {}, refused: {detail}", last.at);
            text += &format!("{}\n", paint.with(Style::Bad, &failed));
        }
        None => {}
    }
    text
}

fn pool_line(pool: &PoolView, paint: Paint) -> String {
    let up = pool.backends.iter().filter(|backend| backend.health.status == "up").count();
    let style = if up == pool.backends.len() { Style::Good } else { Style::Warn };
    let title = paint.with(Style::Title, &format!("pool {}", pool.name));
    let up = paint.with(style, &format!("{up} of {} up", pool.backends.len()));
    let held = if pool.held > 0 {
        format!("   {} waiting for a backend", count(pool.held, "request"))
    } else {
        String::new()
    };
    let panic = if pool.panic { paint.with(Style::Bad, "   health is ignored") } else { String::new() };
    format!("{title}   {}   {up}{panic}{held}", pool.policy)
}

fn certificate_line(certificate: &CertificateView, paint: Paint) -> String {
    let title = paint.with(Style::Title, &format!("certificate {}", certificate.names.join(" ")));
    let (left, style) = match certificate.days_left {
        ..0 => ("expired".to_owned(), Style::Bad),
        0 => ("less than a day left".to_owned(), Style::Bad),
        1 => ("1 day left".to_owned(), Style::Warn),
        days => (format!("{days} days left"), if days < 14 { Style::Warn } else { Style::Plain }),
    };
    format!("{title}  {}  listener {}", paint.with(style, &left), certificate.listener)
}

fn header() -> Vec<Cell> {
    let names =
        ["BACKEND", "STATE", "WEIGHT", "IN-FLIGHT", "TUNNELS", "SESSIONS", "REQUESTS", "ERRORS", "HEALTH"];
    names.map(|name| Cell::new(name, Style::Faint)).into()
}

fn row(backend: &BackendView) -> Vec<Cell> {
    let number = |number: u64| Cell::plain(number.to_string());
    vec![
        Cell::plain(&backend.name),
        Cell::new(state(backend), if backend.state == "active" { Style::Plain } else { Style::Warn }),
        number(backend.weight.into()),
        number(backend.in_flight),
        number(backend.tunnels),
        number(backend.sessions),
        number(backend.requests),
        number(backend.errors),
        health(backend),
    ]
}

/// The state, who wants it where that is not the file, and what else limits the backend.
fn state(backend: &BackendView) -> String {
    let mut text = backend.state.clone();
    if let Some(drain) = backend.drain.as_ref().filter(|_| backend.state == "draining") {
        let left = drain.deadline_seconds.map(|deadline| span((deadline - drain.elapsed_seconds).max(0.0)));
        text += &left
            .map_or_else(|| format!(" for {}", span(drain.elapsed_seconds)), |left| format!(", {left} left"));
    }
    let mut remarks = Vec::new();
    if backend.state_source != "file" && backend.state != "active" {
        remarks.push(match &backend.reason {
            Some(reason) => format!("{}: {reason}", backend.state_source),
            None => backend.state_source.clone(),
        });
    }
    if backend.removed {
        remarks.push("not in the file".into());
    }
    if backend.backup {
        remarks.push("backup".into());
    }
    if backend.slow_start_step < 10 && backend.state == "active" {
        remarks.push(format!("slow start {}/10", backend.slow_start_step));
    }
    if remarks.is_empty() { text } else { format!("{text} ({})", remarks.join(", ")) }
}

fn health(backend: &BackendView) -> Cell {
    let health = &backend.health;
    let style = match health.status.as_str() {
        "up" => Style::Good,
        "unknown" => Style::Warn,
        _ => Style::Bad,
    };
    let mut text = health.status.clone();
    if !health.detail.is_empty() {
        text += &format!(", {}", health.detail);
    }
    if let Some(seconds) = health.last_seconds {
        text += &format!(" in {:.1}ms", seconds * 1e3);
    }
    Cell::new(text, style)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::admin::view::LastReload;

    fn busy() -> Status {
        let mut status = samples::status(&[("app", &["a1", "a2", "a3", "a4"]), ("chat", &["10.0.0.7:7000"])]);
        status.last_reload = Some(LastReload { at: "2026-05-04T12:04:31Z".into(), ok: true, detail: None });
        status.drift = vec!["app/a1 is draining, the file says active".into()];
        let app = &mut status.pools[0];
        app.policy = "sticky_cookie".into();
        app.held = 2;
        let [a1, a2, a3, a4] = &mut app.backends[..] else { panic!("four backends") };
        a1.state = "draining".into();
        a1.state_source = "operator".into();
        a1.reason = Some("deploy 42".into());
        a1.drain = Some(crate::admin::view::DrainView { elapsed_seconds: 19.0, ..samples::drain() });
        (a2.weight, a2.in_flight, a2.sessions, a2.requests) = (2, 18, 8112, 120_934);
        a3.backup = true;
        a3.health.status = "down".into();
        a3.health.detail = "connection refused".into();
        a3.health.last_seconds = None;
        a4.slow_start_step = 3;
        status
    }

    #[test]
    fn the_screen_shows_pools_states_and_drift() {
        let expected = "\
pintle 0.1.0  pid 4121  up 3d 4h  generation 8 of pintle.toml
5 connections, 2 requests in flight, 1 tunnel, 9480 requests so far, 3 answered 5xx
last reload 2026-05-04T12:04:31Z, ok

pool app   sticky_cookie   3 of 4 up   2 requests waiting for a backend
  BACKEND  STATE                                     WEIGHT  IN-FLIGHT  TUNNELS  SESSIONS  REQUESTS  ERRORS  HEALTH
  a1       draining, 41s left (operator: deploy 42)  1       0          0        0         0         0       up, 200 in 0.4ms
  a2       active                                    2       18         0        8112      120934    0       up, 200 in 0.4ms
  a3       active (backup)                           1       0          0        0         0         0       down, connection refused
  a4       active (slow start 3/10)                  1       0          0        0         0         0       up, 200 in 0.4ms

pool chat   round_robin   1 of 1 up
  BACKEND        STATE   WEIGHT  IN-FLIGHT  TUNNELS  SESSIONS  REQUESTS  ERRORS  HEALTH
  10.0.0.7:7000  active  1       0          0        0         0         0       up, 200 in 0.4ms

drift from pintle.toml
  app/a1 is draining, the file says active
";
        assert_eq!(screen(&busy(), Paint(false)), expected);
    }

    #[test]
    fn painting_changes_no_word() {
        let painted = screen(&busy(), Paint(true));
        let mut plain = String::new();
        for piece in painted.split('\x1b') {
            plain +=
                piece.strip_prefix('[').and_then(|code| code.split_once('m')).map_or(piece, |(_, rest)| rest);
        }
        assert_eq!(plain, screen(&busy(), Paint(false)));
        assert_ne!(painted, plain);
    }

    #[test]
    fn a_refused_reload_is_on_the_first_screen() {
        let mut status = busy();
        let detail = Some("pintle.toml:3:1: unknown key `polcy`".into());
        status.last_reload = Some(LastReload { at: "12:05".into(), ok: false, detail });
        let expected = "\nlast reload 12:05, refused: pintle.toml:3:1: unknown key `polcy`\n";
        assert!(screen(&status, Paint(false)).contains(expected));
    }

    #[test]
    fn without_drift_it_says_so() {
        assert_eq!(drift(&samples::status(&[])), "no drift from pintle.toml\n");
    }

    #[test]
    fn a_watched_screen_is_written_over_on_a_terminal_only() {
        assert_eq!(repeated("a\nb\n", Some(80)), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(repeated("a\n", None), "a\n\n");
    }
}
