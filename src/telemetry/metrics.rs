//! The catalogue: every metric's name, kind, help text and labels. Names are a stable interface.
//!
//! To add one, write its [`Family`] here, then the call site. Counters and histograms are kept by
//! the series; gauges are read from live state at scrape and handed in as [`Gauge`].

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All samples of one name.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

/// A value read from live state at scrape. Not for what the process series keep themselves
/// (generation, last reload).
#[derive(Debug)]
pub struct Gauge {
    pub family: &'static Family,
    /// One for each of the family's labels, in their order.
    pub labels: Vec<String>,
    pub value: f64,
}

impl Gauge {
    pub fn new<const N: usize>(family: &'static Family, labels: [&str; N], value: f64) -> Self {
        Self { family, labels: labels.map(str::to_owned).to_vec(), value }
    }
}

macro_rules! catalogue {
    ($($id:ident $name:literal $kind:ident [$($label:literal)*] $help:literal)+) => {
        $(pub static $id: Family =
            Family { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] };)+

        /// Every family there is.
        pub static ALL: &[&Family] = &[$(&$id),+];
    };
}

catalogue! {
    // The process and its configuration.
    BUILD_INFO "pintle_build_info" Gauge ["version"] "Always 1; the label tells the version."
    START_TIME "pintle_start_time_seconds" Gauge [] "When Pintle started, in seconds since the epoch."
    CONFIG_GENERATION "pintle_config_generation" Gauge [] "Number of the configuration in force."
    CONFIG_LAST_RELOAD_OK "pintle_config_last_reload_successful" Gauge [] "1 if the last reload was applied, 0 if it was rejected."
    CONFIG_LAST_RELOAD_TIME "pintle_config_last_reload_timestamp_seconds" Gauge [] "When the configuration was last loaded or rejected, in seconds since the epoch."
    CONFIG_RELOADS "pintle_config_reloads_total" Counter ["result"] "Reloads by result."
    CONFIG_DRIFT "pintle_config_drift" Gauge [] "Backends whose state differs from the file's."
    LOG_LINES_DROPPED "pintle_log_lines_dropped_total" Counter [] "Access log lines lost because the queue was full or the output failed."
    TASKS "pintle_tasks" Gauge ["thread"] "Tasks that have not ended: of all data threads, and of the control thread."
    PANICS "pintle_panics_total" Counter [] "Requests that ended in a panic, each a defect."

    // Listeners.
    LISTENER_CONNECTIONS "pintle_listener_connections" Gauge ["listener"] "Open client connections."
    LISTENER_CONNECTIONS_TOTAL "pintle_listener_connections_total" Counter ["listener"] "Client connections accepted."
    LISTENER_REJECTED "pintle_listener_rejected_total" Counter ["listener" "reason"] "Connections and request heads turned away before any route saw them."
    HEAD_BYTES "pintle_partial_head_bytes" Gauge [] "Bytes of request heads that have not come whole."
    CERTIFICATE_EXPIRY "pintle_certificate_expiry_timestamp_seconds" Gauge ["listener" "name" "file"] "When a certificate expires, in seconds since the epoch."
    PROXY_OVERHEAD "pintle_proxy_overhead_seconds" Histogram ["listener"] "Pintle's own share of a request: its duration without the wait for clients and backends."

    // Routes.
    REQUESTS "pintle_requests_total" Counter ["route" "pool" "method" "code"] "Requests by the status that the client got; code other is none or not 1xx to 5xx."
    REQUEST_DURATION "pintle_request_duration_seconds" Histogram ["route" "pool"] "From a request's first byte to the last byte of its response."
    REQUEST_BYTES "pintle_request_bytes_total" Counter ["route"] "Bytes of request bodies."
    RESPONSE_BYTES "pintle_response_bytes_total" Counter ["route"] "Bytes of response bodies."
    RATE_LIMITED "pintle_rate_limited_total" Counter ["route"] "Requests refused because their client was over the route's limit."
    RATE_DISPLACED "pintle_rate_limit_displaced_total" Counter ["route"] "Clients forgotten before their time because too many were known to the route's limit."

    // Pools.
    REQUEST_ENDS "pintle_request_ends_total" Counter ["pool" "end"] "Exchanges by how they ended."
    STICKY "pintle_sticky_total" Counter ["pool" "verdict"] "Requests by what their sticky token was worth."
    RETRIES "pintle_retries_total" Counter ["pool" "reason"] "Requests sent again, by what the failed attempt met."
    RETRIES_REFUSED "pintle_retries_refused_total" Counter ["pool"] "Requests not sent again because the route's retry budget was spent."
    POOL_BACKENDS "pintle_pool_backends" Gauge ["pool" "state"] "Backends of the pool by state."
    POOL_PANIC "pintle_pool_panic" Gauge ["pool"] "1 while so few backends are healthy that health is ignored, else 0."
    POOL_HELD "pintle_pool_held_requests" Gauge ["pool"] "Requests waiting because no backend can take them."
    DRAINS "pintle_drains_total" Counter ["pool" "outcome"] "Finished drains of backends."
    DRAIN_SESSIONS "pintle_drain_sessions" Gauge ["pool" "backend"] "Sessions seen of late on a backend that is draining."
    WEBSOCKETS "pintle_websockets" Gauge ["pool"] "Open tunnels."
    WEBSOCKETS_CLOSED "pintle_websockets_closed_total" Counter ["pool" "reason"] "Tunnels that have closed; reason drained is by a Close frame of ours, cut without one."

    // Backends.
    BACKEND_UP "pintle_backend_up" Gauge ["pool" "backend"] "1 if the backend's health is up, else 0."
    BACKEND_STATE "pintle_backend_state" Gauge ["pool" "backend" "state"] "1 for the state that the backend is in, 0 for the others."
    BACKEND_WEIGHT "pintle_backend_weight" Gauge ["pool" "backend"] "Weight of the backend as set, without slow start."
    BACKEND_IN_FLIGHT "pintle_backend_in_flight" Gauge ["pool" "backend"] "Requests and tunnels that the backend has."
    BACKEND_REQUESTS "pintle_backend_requests_total" Counter ["pool" "backend" "code_class"] "Attempts by the class of the backend's answer; none is no answer."
    BACKEND_RESPONSE "pintle_backend_response_seconds" Histogram ["pool" "backend"] "From sending an attempt to the head of the backend's response."
    BACKEND_CONNECTS "pintle_backend_connects_total" Counter ["pool" "backend" "result"] "Connects to the backend by result."
    BACKEND_REUSE "pintle_backend_connection_reuse_total" Counter ["pool" "backend"] "Attempts sent on a connection that was already open."
    BACKEND_EJECTED "pintle_backend_ejected" Gauge ["pool" "backend"] "1 while the backend sits out for what failed in its traffic, else 0."
    EJECTIONS "pintle_ejections_total" Counter ["pool" "backend" "reason"] "Ejections of the backend."
    HEALTH_CHECKS "pintle_health_checks_total" Counter ["pool" "backend" "result"] "Probes by result."
    HEALTH_CHECK_DURATION "pintle_health_check_duration_seconds" Histogram ["pool" "backend"] "How long probes took."

    // The standard ones of every exporter.
    PROCESS_CPU "process_cpu_seconds_total" Counter [] "User and system CPU time spent, in seconds."
    PROCESS_RESIDENT "process_resident_memory_bytes" Gauge [] "Resident memory size in bytes."
    PROCESS_VIRTUAL "process_virtual_memory_bytes" Gauge [] "Virtual memory size in bytes."
    PROCESS_OPEN_FDS "process_open_fds" Gauge [] "Number of open file descriptors."
    PROCESS_MAX_FDS "process_max_fds" Gauge [] "Maximum number of open file descriptors."
    PROCESS_START_TIME "process_start_time_seconds" Gauge [] "Start time of the process since the epoch in seconds."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_follows_the_naming_rules() {
        let mut seen = std::collections::HashSet::new();
        for family in ALL {
            let name = family.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("pintle_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            assert!(family.help.ends_with('.') && !family.help.contains(['\\', '\n']), "{name}");
        }
    }
}
