use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::Method;

use super::*;

fn finished(status: u16, duration: Duration) -> Finished<'static> {
    Finished { method: &Method::GET, status, duration, request_bytes: 10, response_bytes: 100 }
}

/// Something in every family that Pintle counts itself, in several threads.
fn busy() -> (Arc<Telemetry>, Vec<Arc<dyn std::any::Any>>) {
    let telemetry = Telemetry::new(3);
    let (shop, canary, none) =
        (telemetry.route("shop", "app"), telemetry.route("shop", "next"), telemetry.route("none", ""));
    let (backend, pool, listener) =
        (telemetry.backend("app", "a\"1\\\n"), telemetry.pool("app"), telemetry.listener("web"));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (shop, canary, none) = (&shop, &canary, &none);
            let (backend, pool, listener) = (&backend, &pool, &listener);
            scope.spawn(move || {
                for millis in 0..500 {
                    let duration = Duration::from_millis(millis);
                    shop.record(thread, finished(if millis % 100 == 0 { 502 } else { 200 }, duration));
                    backend.answered(thread, 200, duration);
                    pool.ended(thread, End::Ok);
                    pool.stuck(thread, Stick::Valid);
                }
                canary.record(thread, finished(200, Duration::from_secs(90)));
                none.record(thread, finished(404, Duration::ZERO));
                pool.retried(thread, RetryReason::Connect);
                pool.websocket_closed(thread, TunnelReason::Closed);
                backend.connected(thread, ConnectResult::Refused);
                backend.reused(thread);
                backend.unanswered(thread);
                listener.accepted(thread);
                listener.rejected(thread, Rejection::BadRequest);
                listener.overhead(thread, Duration::from_micros(140));
            });
        }
    });
    backend.probed(ProbeResult::Pass, Duration::from_millis(2));
    pool.drained(DrainOutcome::Forced);
    (telemetry, vec![shop, canary, none, backend, pool, listener])
}

#[test]
fn what_threads_count_is_summed_under_the_right_labels() {
    let (telemetry, _held) = busy();
    let page = telemetry.render(&[Gauge::new(&metrics::BACKEND_UP, ["app", "a1"], 1.0)]);
    for line in [
        r#"pintle_requests_total{route="shop",pool="app",method="GET",code="200"} 1485"#,
        r#"pintle_requests_total{route="shop",pool="app",method="GET",code="502"} 15"#,
        r#"pintle_requests_total{route="none",pool="",method="GET",code="404"} 3"#,
        r#"pintle_request_duration_seconds_bucket{route="shop",pool="app",le="0.1"} 303"#,
        r#"pintle_request_duration_seconds_bucket{route="shop",pool="next",le="30"} 0"#,
        r#"pintle_request_duration_seconds_bucket{route="shop",pool="next",le="+Inf"} 3"#,
        r#"pintle_request_duration_seconds_sum{route="shop",pool="next"} 270"#,
        r#"pintle_request_bytes_total{route="shop"} 15030"#,
        r#"pintle_request_ends_total{pool="app",end="ok"} 1500"#,
        r#"pintle_sticky_total{pool="app",verdict="forged"} 0"#,
        r#"pintle_retries_total{pool="app",reason="connect"} 3"#,
        r#"pintle_drains_total{pool="app",outcome="forced"} 1"#,
        r#"pintle_websockets_closed_total{pool="app",reason="closed"} 3"#,
        r#"pintle_backend_requests_total{pool="app",backend="a\"1\\\n",code_class="none"} 3"#,
        r#"pintle_backend_connects_total{pool="app",backend="a\"1\\\n",result="refused"} 3"#,
        r#"pintle_backend_connection_reuse_total{pool="app",backend="a\"1\\\n"} 3"#,
        r#"pintle_health_checks_total{pool="app",backend="a\"1\\\n",result="pass"} 1"#,
        r#"pintle_listener_connections_total{listener="web"} 3"#,
        r#"pintle_listener_rejected_total{listener="web",reason="bad_request"} 3"#,
        r#"pintle_proxy_overhead_seconds_bucket{listener="web",le="0.00025"} 3"#,
        r#"pintle_backend_up{pool="app",backend="a1"} 1"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert_eq!(telemetry.totals(), Totals { requests: 1506, server_errors: 15 });
}

/// Reads a page as strictly as Prometheus does.
#[test]
fn the_page_is_what_prometheus_reads() {
    let (telemetry, _held) = busy();
    let gauges = metrics::ALL.iter().filter(|family| family.kind == metrics::Kind::Gauge);
    let ours: HashSet<&str> = telemetry.render(&[]).lines().filter_map(name_of_type).map(intern).collect();
    let gauges: Vec<Gauge> = gauges
        .filter(|family| !ours.contains(family.name))
        .map(|family| Gauge { family, labels: vec!["x".to_owned(); family.labels.len()], value: 0.5 })
        .collect();
    let page = telemetry.render(&gauges);

    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let mut helped: HashSet<&str> = HashSet::new();
    let mut samples: HashMap<&str, f64> = HashMap::new();
    let mut open_bucket: Option<(String, f64)> = None;
    let mut current = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split_once(' ').expect("a help text").0;
            assert!(helped.insert(current), "{current} has two heads");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, current, "TYPE follows its HELP");
            kinds.insert(name, kind);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.replace("+Inf", "inf").parse().expect("a number");
            assert!(samples.insert(series, value).is_none(), "{series} is there twice");
            let name = series.split('{').next().expect("a name");
            assert!(name.starts_with(current), "{name} is not of {current}");
            if kinds[current] == "histogram" {
                check_bucket(name, series, value, &mut open_bucket);
            } else {
                assert_eq!(name, current);
            }
        }
    }
    assert!(page.ends_with('\n') && open_bucket.is_none());
    let missing: Vec<_> =
        metrics::ALL.iter().map(|family| family.name).filter(|name| !kinds.contains_key(name)).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    assert_eq!(page, page_again(&telemetry, &gauges, &page));
}

/// Buckets grow, `+Inf` comes last, and `_count` equals it.
fn check_bucket(name: &str, series: &str, value: f64, open: &mut Option<(String, f64)>) {
    if name.ends_with("_bucket") {
        let below = open.as_ref().map_or(0.0, |(_, below)| *below);
        assert!(value >= below, "{series} falls");
        *open = Some((series.to_owned(), value));
    } else if name.ends_with("_sum") {
        let (last, _) = open.as_ref().expect("buckets come before the sum");
        assert!(last.contains("le=\"+Inf\""), "{last} is not the last");
    } else {
        assert!(name.ends_with("_count"), "{name}");
        assert_eq!(open.take().expect("buckets come before the count").1, value);
    }
}

fn name_of_type(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")?.split(' ').next()
}

fn intern(name: &str) -> &'static str {
    metrics::ALL
        .iter()
        .map(|family| family.name)
        .find(|known| *known == name)
        .expect("it is in the catalogue")
}

/// The order is stable: only values that the kernel reports may have moved.
fn page_again(telemetry: &Telemetry, gauges: &[Gauge], before: &str) -> String {
    let again = telemetry.render(gauges);
    let moving = |line: &str| line.starts_with("process_");
    again
        .lines()
        .zip(before.lines())
        .map(|(new, old)| if moving(new) { old } else { new }.to_owned() + "\n")
        .collect()
}

#[test]
fn a_reload_finds_the_same_series_and_a_removed_name_stops_with_its_last_holder() {
    let telemetry = Telemetry::new(1);
    let old = telemetry.route("shop", "app");
    old.record(0, finished(500, Duration::ZERO));
    let new = telemetry.route("shop", "app");
    drop(old);
    new.record(0, finished(200, Duration::ZERO));
    assert_eq!(new.totals(), Totals { requests: 2, server_errors: 1 });
    assert!(telemetry.render(&[]).contains("route=\"shop\""));

    drop(new);
    assert!(!telemetry.render(&[]).contains("route=\"shop\""));
    assert_eq!(
        telemetry.totals(),
        Totals { requests: 2, server_errors: 1 },
        "what was counted stays counted"
    );
    assert_eq!(telemetry.route("shop", "app").totals(), Totals::default());
}
