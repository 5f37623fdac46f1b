//! What a file means that leaves things out.

use std::time::Duration;

use http::{Method, StatusCode};

use super::*;
use crate::plan::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_lines_are_a_whole_configuration() {
    let plan = plan("[pool.app]\nbackends = [\"127.0.0.1:9001\", \"[::1]:9002\"]\n");
    assert_eq!(
        plan.server,
        ServerPlan {
            state_dir: None,
            workers: 0,
            max_connections: 0,
            max_head_memory: 64 * 1024 * 1024,
            watch: true,
            trusted_proxies: vec![],
            client_ip_from: ClientIpFrom::XForwardedFor,
            drain_grace: None,
            drain_timeout: 30 * SECOND,
        }
    );
    assert_eq!(
        plan.log,
        LogPlan {
            level: "info".into(),
            format: EventFormat::Auto,
            access: AccessLogPlan {
                enabled: true,
                format: AccessFormat::Auto,
                output: LogOutput::Stdout,
                on_full: OnFull::Drop,
            },
        }
    );
    assert_eq!(plan.admin, AdminPlan { socket: None, bind: AdminBind::Default, token: None, hosts: vec![] });
    let limits = ListenerLimits {
        first_byte_timeout: 10 * SECOND,
        header_timeout: 10 * SECOND,
        idle_timeout: 75 * SECOND,
        max_header_size: 32 * 1024,
        max_headers: 100,
        max_body: 0,
        min_body_rate: 240,
        max_streams: 128,
        max_resets_per_second: 100,
        max_connections_per_client: 0,
    };
    let bind = vec!["127.0.0.1:8080".parse().unwrap()];
    let protocols = Protocols { http1: true, http2: false };
    assert_eq!(
        plan.listeners,
        [ListenerPlan {
            name: "default".into(),
            bind,
            proxy_protocol: ProxyProtocol::Off,
            tls: None,
            protocols,
            limits
        }]
    );
    assert_eq!(
        plan.routes,
        [RoutePlan {
            name: "default".into(),
            scheme: None,
            hosts: vec![],
            path: PathPattern::Prefix("/".into()),
            methods: vec![],
            action: Action::Forward("app".into()),
            limit: None,
            timeout: None,
            retry: RetryPlan {
                attempts: 2,
                connect: true,
                reset_before_response: true,
                response_timeout: false,
                statuses: vec![],
                budget: 0.2,
            },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            tunnel_idle_timeout: 3600 * SECOND,
        }]
    );
}

#[test]
fn a_pool_needs_only_its_backends() {
    let mut plan = plan(
        "[pool.app]\nbackends = [\"127.0.0.1:9001\", { address = \"[::1]\" }]\n[pool.app.health]\ntcp = true",
    );
    let backend = |name: &str| BackendPlan {
        name: name.into(),
        address: BackendAddress::Ip(name.parse().unwrap()),
        weight: 1,
        backup: false,
        state: FileState::Active,
    };
    let expected = PoolPlan {
        name: "app".into(),
        policy: PolicyPlan::RoundRobin,
        sticky: false,
        cookie: StickyPlan {
            cookie: "pintle_app".into(),
            keys: vec![],
            max_idle: Duration::ZERO,
            max_life: Duration::ZERO,
            path: "/".into(),
            domain: String::new(),
            secure: Secure::Auto,
            http_only: true,
            same_site: SameSite::Lax,
            on_down: OnDown::Repick,
            on_drain: OnDrain::Keep,
        },
        backends: vec![backend("127.0.0.1:9001"), backend("[::1]:80")],
        protocol: PoolProtocol::Http1,
        tls: None,
        proxy_protocol: SendProxy::Off,
        host: HostHeader::Preserve,
        slow_start: Duration::ZERO,
        via: false,
        max_in_flight: 0,
        panic_threshold: 0.0,
        outlier: None,
        hold: HoldPlan { max: 256, timeout: 2 * SECOND },
        health: Some(HealthPlan {
            probe: Probe::Tcp,
            port: 0,
            host: String::new(),
            interval: 2 * SECOND,
            jitter: 0.1,
            timeout: SECOND,
            rise: 2,
            fall: 3,
            init: HealthInit::Probe,
            expect: StatusSet(vec![(200, 299)]),
            drain_on: None,
        }),
        timeouts: TimeoutsPlan { connect: 2 * SECOND, response: 60 * SECOND, idle: 60 * SECOND },
        connections: ConnectionsPlan { max_idle: 256, idle: 4 * SECOND, max_age: Duration::ZERO },
    };
    assert_eq!(plan.pools.remove(0), expected);
}

#[test]
fn the_daily_edit_is_one_line() {
    let policy =
        |word: &str| plan(&format!("[pool.app]\npolicy = \"{word}\"\nbackends = [\"a:1\"]")).pools.remove(0);
    let prefix = IpPrefix { v4: 32, v6: 64 };
    let hash = HashPlan { on: HashOn::ClientIp, prefix, key: None };
    for (word, expected, sticky) in [
        ("round_robin", PolicyPlan::RoundRobin, false),
        ("least_conn", PolicyPlan::LeastConn, false),
        ("least_time", PolicyPlan::LeastTime, false),
        ("random_two", PolicyPlan::RandomTwo, false),
        ("ip_hash", PolicyPlan::IpHash(hash.clone()), false),
        ("consistent_hash", PolicyPlan::ConsistentHash(hash), false),
        ("sticky_cookie", PolicyPlan::LeastConn, true),
    ] {
        let pool = policy(word);
        assert_eq!((pool.policy_name(), &pool.policy, pool.sticky), (word, &expected, sticky));
    }
}

#[test]
fn every_setting_arrives_in_the_plan() {
    let plan = plan(
        r#"
[server]
state_dir = "state"
trusted_proxies = ["10.0.0.0/8", "::1"]
drain_grace = "5s"
[log.access]
output = "access.log"
[admin]
bind = "off"
token = { file = "token" }
hosts = ["Admin.internal"]
[listener.b]
bind = ["127.0.0.1:0", "[::1]:8080"]
max_body = "1MB"
min_body_rate = "0B/s"
max_connections_per_client = 20
[listener.a]
bind = "127.0.0.1:0"
[pool.z]
policy = "sticky_cookie"
backends = [{ name = "a1", address = "App.internal:9001", weight = 256, backup = true, state = "stopped" }]
host = "app.internal"
hash_on = "cookie:sid"
hash_key = { file = "raw.key" }
ip_prefix = { v4 = 24 }
[pool.z.sticky]
cookie = "__Host-sid"
secure = true
keys = [{ id = "k2", file = "raw.key" }, { id = "k1", file = "hex.key" }]
max_idle = "1h"
fallback = "consistent_hash"
[pool.z.health]
path = "/healthz?full=1"
drain_on = "503"
[pool.z.outlier]
eject = "10s"
[pool.a]
backends = ["b:1"]
[[route]]
hosts = ["Shop.example.com", "*.example.com"]
path = "=/Cart"
methods = ["GET", "PURGE"]
split = { z = 95, a = 5 }
timeout = "3s"
limit = { rate = "600/m", key = "header:X-Api-Key" }
retry = { attempts = 1, on = ["504", "502"], budget = 0.5 }
request_headers = { set = { X-Tenant = "shop" }, remove = ["x-internal"] }
[[route]]
respond = { status = 410, body = "gone", headers = { content-type = "text/plain" } }
[[route]]
path = "/old"
redirect = { to = "/new{path_and_query}" }
"#,
    );
    let base = origin().base;
    assert_eq!(plan.server.state_dir, Some(base.join("state")));
    assert_eq!(plan.server.trusted_proxies.len(), 2);
    assert_eq!(plan.server.drain_grace, Some(5 * SECOND));
    assert_eq!(plan.log.access.output, LogOutput::File(base.join("access.log")));
    assert_eq!(plan.admin.bind, AdminBind::Off);
    assert_eq!(plan.admin.token, Some(Secret(b"token-for-tests".to_vec())));
    assert_eq!(plan.admin.hosts, ["admin.internal"]);

    let names: Vec<&str> = plan.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "in the order of the file");
    let limits = &plan.listeners[0].limits;
    assert_eq!((plan.listeners[0].bind.len(), limits.max_body, limits.min_body_rate), (2, 1_000_000, 0));
    assert_eq!(limits.max_connections_per_client, 20);

    let pool = plan.pool("z").unwrap();
    let address = BackendAddress::Name { host: "app.internal".into(), port: 9001 };
    assert_eq!(
        pool.backends,
        [BackendPlan { name: "a1".into(), address, weight: 256, backup: true, state: FileState::Stopped }]
    );
    let PolicyPlan::ConsistentHash(hash) = &pool.policy else { panic!("{:?}", pool.policy) };
    assert_eq!((&hash.on, hash.prefix), (&HashOn::Cookie("sid".into()), IpPrefix { v4: 24, v6: 64 }));
    assert_eq!(hash.key.as_ref().unwrap().0.len(), 32);
    assert_eq!((pool.cookie.keys[0].id.as_str(), pool.cookie.keys[1].secret.0[1]), ("k2", 0x11));
    assert_eq!((pool.cookie.secure, pool.cookie.max_idle), (Secure::Always, 3600 * SECOND));
    let outlier =
        OutlierPlan { consecutive_errors: 3, consecutive_5xx: 0, eject: 10 * SECOND, max_ejected: 0.5 };
    assert_eq!(pool.outlier, Some(outlier));
    let health = pool.health.as_ref().unwrap();
    assert_eq!(health.probe, Probe::Http { path: "/healthz?full=1".into() });
    assert_eq!(health.drain_on, Some(StatusSet(vec![(503, 503)])));

    let [split, respond, redirect] = plan.routes.as_slice() else { panic!("{:?}", plan.routes) };
    assert_eq!(split.name, "GET,PURGE shop.example.com+1=/Cart");
    let hosts = [HostPattern::Exact("shop.example.com".into()), HostPattern::Suffix("example.com".into())];
    assert_eq!(
        (split.hosts.as_slice(), &split.path),
        (hosts.as_slice(), &PathPattern::Exact("/Cart".into()))
    );
    assert_eq!(split.methods, [Method::GET, Method::from_bytes(b"PURGE").unwrap()]);
    assert_eq!(split.action, Action::Split(vec![("a".into(), 5), ("z".into(), 95)]));
    assert_eq!((split.timeout, split.retry.attempts, split.retry.connect), (Some(3 * SECOND), 1, false));
    let key = HashOn::Header("x-api-key".parse().unwrap());
    assert_eq!(split.limit, Some(LimitPlan { requests: 600, per: 60 * SECOND, burst: 600, key }));
    assert_eq!(split.retry.statuses, [502, 504]);
    assert_eq!(split.retry.budget, 0.5);
    assert_eq!(split.request_headers.set[0].0, "x-tenant");
    assert_eq!(split.request_headers.remove, ["x-internal"]);
    let Action::Respond { status, body, headers } = &respond.action else { panic!("{respond:?}") };
    assert_eq!((*status, body.as_str(), headers.len()), (StatusCode::GONE, "gone", 1));
    let to = vec![TemplatePart::Text("/new".into()), TemplatePart::PathAndQuery];
    assert_eq!(redirect.action, Action::Redirect { to, status: StatusCode::PERMANENT_REDIRECT });
    assert_eq!((respond.name.as_str(), redirect.name.as_str()), ("/", "/old"));
}

#[test]
fn a_made_name_gives_way_to_a_written_one() {
    let text =
        "[pool.app]\nbackends = [\"a:1\"]\n[[route]]\npool = \"app\"\nhosts = [\"a.b\"]\npath = \"/\"\n";
    let names = |text: &str| plan(text).routes.into_iter().map(|route| route.name).collect::<Vec<_>>();
    assert_eq!(names(text), ["a.b/"]);
    let more = format!(
        "{text}[[route]]\npool = \"app\"\nhosts = [\"c.d\", \"e.f\"]\n[[route]]\npool = \"app\"\nhosts = [\"c.d\", \"g.h\"]\nmethods = [\"GET\"]\npath = \"/x\"\n"
    );
    assert_eq!(names(&more), ["a.b/", "c.d+1/", "GET c.d+1/x"]);
}
