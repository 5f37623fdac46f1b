//! The status for people: as text for curl, as a plain table for a browser.
//!
//! Start at [`text`]. Both are pure and show the same cells.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, StatusCode};

use super::reply::{Reply, whole};
use super::view::{BackendView, PoolView, Status};

const COLUMNS: [&str; 9] =
    ["backend", "address", "weight", "state", "health", "in flight", "tunnels", "sessions", "requests"];

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}
body{margin:2rem auto;max-width:72rem;padding:0 1rem}
h2 small,p{font-weight:400;opacity:.75}
table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .8rem .3rem 0;text-align:left;border-bottom:1px solid #8884}
td{font-variant-numeric:tabular-nums}
";

/// What `curl` shows of `/`.
pub fn text(status: &Status) -> String {
    let mut out = headline(status) + "\n";
    for listener in &status.listeners {
        out += &format!(
            "listener {}  {}  {} connections\n",
            listener.name,
            listener.addresses.join(" "),
            listener.connections
        );
    }
    for pool in &status.pools {
        out += &format!("\npool {}  {}\n", pool.name, pool_line(pool));
        out += &aligned(&rows(pool));
    }
    for sentence in notes(status) {
        out += &format!("\n{sentence}");
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// What a browser shows of `/`, without a script.
pub fn html(status: &Status) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Pintle</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>Pintle</h1>\n<p data-testid=\"headline\">{}</p>\n",
        escape(&headline(status))
    );
    for sentence in notes(status) {
        out += &format!("<p role=\"status\">{}</p>\n", escape(&sentence));
    }
    for pool in &status.pools {
        out += &format!(
            "<h2>{} <small>{}</small></h2>\n<table>\n",
            escape(&pool.name),
            escape(&pool_line(pool))
        );
        for (at, row) in rows(pool).iter().enumerate() {
            let tag = if at == 0 { "th" } else { "td" };
            let cells: String = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
            out += &format!("<tr>{cells}</tr>\n");
        }
        out += "</table>\n";
    }
    out + "<p><a href=\"/\">Look again</a> · <a href=\"/v1/status\">as JSON</a> · <a href=\"/metrics\">metrics</a></p>\n</body></html>\n"
}

/// The page with a policy under which only its own style sheet counts.
pub(super) fn reply(status: &Status) -> Reply {
    let mut reply = whole(StatusCode::OK, "text/html; charset=utf-8", html(status));
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("base64 is a header value");
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply
}

/// Text made safe for HTML, between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

fn headline(status: &Status) -> String {
    let uptime = std::time::Duration::try_from_secs_f64(status.uptime_seconds.trunc()).unwrap_or_default();
    format!(
        "pintle {}  pid {}  {}  up {}  generation {}  {}  {} connections  {} in flight  {} tunnels",
        status.version,
        status.pid,
        status.state,
        humantime::format_duration(uptime),
        status.generation,
        status.source,
        status.totals.connections,
        status.totals.requests_in_flight,
        status.totals.tunnels,
    )
}

/// What is not as it should be: a refused reload, and drift.
fn notes(status: &Status) -> Vec<String> {
    let refused = status.last_reload.as_ref().filter(|reload| !reload.ok).map(|reload| {
        format!("the last reload was refused at {}: {}", reload.at, reload.detail.as_deref().unwrap_or("?"))
    });
    refused.into_iter().chain(status.drift.iter().map(|drift| format!("drift: {drift}"))).collect()
}

fn pool_line(pool: &PoolView) -> String {
    let held = if pool.held == 0 { String::new() } else { format!("  {} held", pool.held) };
    let panic = if pool.panic { "  health is ignored" } else { "" };
    format!("{}{panic}{held}", pool.policy)
}

/// The header row and one row for each backend.
fn rows(pool: &PoolView) -> Vec<[String; 9]> {
    let header = COLUMNS.map(str::to_owned);
    std::iter::once(header).chain(pool.backends.iter().map(row)).collect()
}

fn row(backend: &BackendView) -> [String; 9] {
    let mut state = backend.state.clone();
    if backend.removed {
        state += ", removed";
    } else if backend.state != "active" {
        state += &format!(" by {}", backend.state_source);
    }
    [
        backend.name.clone(),
        backend.address.clone(),
        if backend.backup { format!("{} backup", backend.weight) } else { backend.weight.to_string() },
        state,
        format!("{} {}", backend.health.status, backend.health.detail).trim_end().to_owned(),
        backend.in_flight.to_string(),
        backend.tunnels.to_string(),
        backend.sessions.to_string(),
        backend.requests.to_string(),
    ]
}

/// Columns as wide as their widest cell.
fn aligned(rows: &[[String; 9]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let line = |row: &[String; 9]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
