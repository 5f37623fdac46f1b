//! The JSON shapes of the admin API, in and out: the one definition that the server fills, the
//! command line reads and the library returns. Nothing inner derives serde instead.
//!
//! Durations are numbers of seconds with a `_seconds` suffix; times are RFC 3339.

use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// Where the configuration came from: a path, `--to` or `text`.
    pub source: String,
    pub uptime_seconds: f64,
    pub generation: u64,
    pub last_reload: Option<LastReload>,
    /// `active` or `draining`.
    pub state: String,
    pub listeners: Vec<ListenerView>,
    pub certificates: Vec<CertificateView>,
    pub pools: Vec<PoolView>,
    pub totals: Totals,
    /// The processes that this one took over from and that still finish what they had.
    #[serde(default)]
    pub predecessors: Vec<u32>,
    /// Backends whose state differs from the file's, one sentence each.
    pub drift: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastReload {
    pub at: String,
    pub ok: bool,
    /// The first problem, where it failed.
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub connections: u64,
    pub requests_in_flight: u64,
    pub tunnels: u64,
    pub requests: u64,
    pub server_errors: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerView {
    pub name: String,
    pub addresses: Vec<String>,
    pub connections: u64,
}

/// What a listener shows to clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateView {
    pub listener: String,
    pub file: String,
    pub names: Vec<String>,
    pub issuer: String,
    pub not_after: String,
    /// Negative once it has expired.
    pub days_left: i64,
    /// SHA-256, in hexadecimal.
    pub fingerprint: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    pub name: String,
    /// `http` or `https`; nothing for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    pub hosts: Vec<String>,
    pub path: String,
    pub methods: Vec<String>,
    /// `pool app`, `split app 95 app-next 5`, `respond 410` or `redirect 308`.
    pub action: String,
    /// `50/s, burst 100, by client_ip`; nothing where any number may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    pub name: String,
    pub policy: String,
    /// Requests waiting for a backend.
    pub held: u64,
    /// So few backends are healthy that health is ignored.
    pub panic: bool,
    pub backends: Vec<BackendView>,
}

/// `GET /v1/pools/{p}/backends/{b}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    pub pool: String,
    pub name: String,
    pub address: String,
    /// What the address resolves to, where it is a name.
    pub resolved: Vec<String>,
    pub weight: u32,
    pub backup: bool,
    /// `active`, `draining`, `drained` or `stopped`.
    pub state: String,
    /// `file`, `operator` or `health`; where several hold it, the first of operator, file, health.
    pub state_source: String,
    pub state_since: String,
    pub reason: Option<String>,
    /// No longer in the file; finishing what it has.
    pub removed: bool,
    pub health: HealthView,
    /// 1 to 9 while in slow start, else 10.
    pub slow_start_step: u32,
    pub in_flight: u64,
    pub tunnels: u64,
    pub idle_connections: u64,
    /// Sessions seen within `max_idle`, or 5 minutes where that is 0.
    pub sessions: u64,
    pub requests: u64,
    pub errors: u64,
    pub drain: Option<DrainView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthView {
    /// `up`, `down`, `ejected` (up, and sits out for what failed in traffic), `unknown` (no verdict
    /// yet) or `unresolved`.
    pub status: String,
    /// What the last probe or connect saw, such as `200`, `SERVING`, `connection refused` or `no answer in 1s`.
    pub detail: String,
    pub since: String,
    /// Probes in a row that agree with the status.
    pub streak: u32,
    pub last_seconds: Option<f64>,
}

/// `GET /v1/drains/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainView {
    pub id: u64,
    pub pool: String,
    pub backend: String,
    /// `draining`, `drained` or `ended` (by `ready` or a later order).
    pub state: String,
    pub elapsed_seconds: f64,
    pub deadline_seconds: Option<f64>,
    pub in_flight: u64,
    pub tunnels: u64,
    pub sessions: u64,
    /// What the window of `sessions` is.
    pub session_window_seconds: f64,
    /// Clients that hold this backend's token stay until closing time.
    pub keeps_sessions: bool,
    /// Sessions that were there when the drain began and then fell silent.
    pub sessions_ended: u64,
    /// Sessions that were still alive when it ended, and are dealt anew.
    pub sessions_moved: u64,
    pub tunnels_cut: u64,
    pub requests_cut: u64,
}

/// The body of `PATCH /v1/pools/{p}/backends/{b}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateOrder {
    /// `active` (ready), `draining` or `stopped`.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Obey even when no backend would be left.
    #[serde(default)]
    pub force: bool,
}

/// The answer to a `StateOrder`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateAnswer {
    pub backend: BackendView,
    /// The drain that the order began, to be followed at `/v1/drains/{id}`.
    pub drain: Option<u64>,
    /// What the operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// The body of `POST /v1/reload`: nothing, to read the file again, or a text to apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadOrder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReloadReport {
    pub source: String,
    pub from_generation: u64,
    pub generation: u64,
    pub seconds: f64,
    pub kept: Vec<String>,
    pub changed: Vec<String>,
    pub added: Vec<String>,
    pub draining: Vec<String>,
    /// Whom a change of policy moves.
    pub moves: Vec<String>,
    /// Settings that wait for a restart.
    pub restart_only: Vec<String>,
    pub warnings: Vec<ProblemView>,
}

/// One problem of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProblemView {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// The line as it stands in the file.
    pub source_line: String,
    /// The reason or the choices, under the caret.
    pub label: String,
    /// The corrected line, or what to do.
    pub help: Option<String>,
}

/// The answer to `POST /v1/check`, and the `errors` of a refused reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    pub ok: bool,
    pub problems: Vec<ProblemView>,
    /// The same, as printed for a person.
    pub text: String,
}

/// `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub title: String,
    pub status: u16,
    /// A word for programs: `unknown_backend`, `config_invalid`, `would_leave_none` …
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemView>,
    /// The problems as printed for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Fault {
    /// A fault without hint or problems; its title is the status code's own name.
    pub fn new(status: http::StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            hint: None,
            errors: Vec::new(),
            text: None,
        }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `POST /v1/shutdown`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownOrder {
    /// Overrides `drain_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<f64>,
}

/// `POST /v1/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeOrder {
    /// The program to start, instead of what stands where this one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// How long it may take to be ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
}

/// The new process serves; what the old one had to finish then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpgradeReport {
    pub from_pid: u32,
    pub pid: u32,
    pub from_version: String,
    pub version: String,
    /// From the order to the change.
    pub seconds: f64,
    pub connections: u64,
    pub requests_in_flight: u64,
    pub tunnels: u64,
    /// How long they have at most.
    pub drain_seconds: f64,
}

/// One line of `GET /v1/events`: what changed, in a word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    pub id: u64,
    pub at: String,
    /// `health`, `state`, `drain`, `reload`, `listener` or `process`.
    pub kind: String,
    pub pool: Option<String>,
    pub backend: Option<String>,
    pub message: String,
}
