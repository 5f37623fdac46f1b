//! Views for tests, as an idle Pintle would show them.

use crate::admin::view::*;

pub(super) fn backend(pool: &str, name: &str) -> BackendView {
    BackendView {
        pool: pool.into(),
        name: name.into(),
        address: name.into(),
        resolved: Vec::new(),
        weight: 1,
        backup: false,
        state: "active".into(),
        state_source: "file".into(),
        state_since: "2026-05-04T12:00:00Z".into(),
        reason: None,
        removed: false,
        health: HealthView {
            status: "up".into(),
            detail: "200".into(),
            since: "2026-05-04T12:00:00Z".into(),
            streak: 3,
            last_seconds: Some(0.0004),
        },
        slow_start_step: 10,
        in_flight: 0,
        tunnels: 0,
        idle_connections: 0,
        sessions: 0,
        requests: 0,
        errors: 0,
        drain: None,
    }
}

pub(super) fn drain() -> DrainView {
    DrainView {
        id: 7,
        pool: "app".into(),
        backend: "a2".into(),
        state: "draining".into(),
        elapsed_seconds: 0.0,
        deadline_seconds: Some(60.0),
        in_flight: 18,
        tunnels: 12,
        sessions: 812,
        session_window_seconds: 300.0,
        keeps_sessions: true,
        sessions_ended: 0,
        sessions_moved: 0,
        websockets_closed: 0,
        tunnels_cut: 0,
        requests_cut: 0,
    }
}

pub(super) fn status(pools: &[(&str, &[&str])]) -> Status {
    let pool = |(name, backends): &(&str, &[&str])| PoolView {
        name: (*name).into(),
        policy: "round_robin".into(),
        held: 0,
        panic: false,
        backends: backends.iter().map(|backend| self::backend(name, backend)).collect(),
    };
    Status {
        version: "0.1.0".into(),
        pid: 4121,
        source: "pintle.toml".into(),
        uptime_seconds: 273_600.0,
        generation: 8,
        last_reload: None,
        state: "active".into(),
        listeners: Vec::new(),
        certificates: Vec::new(),
        pools: pools.iter().map(pool).collect(),
        totals: Totals {
            connections: 5,
            requests_in_flight: 2,
            tunnels: 1,
            requests: 9480,
            server_errors: 3,
        },
        predecessors: Vec::new(),
        drift: Vec::new(),
    }
}
