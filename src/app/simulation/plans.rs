//! Configurations, drawn: a first one, and what an operator might make of it.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use fastrand::Rng;

use crate::config::{self, Compiled, Origin, Problems};
use crate::plan::{
    Action, BackendAddress, BackendPlan, FileState, HealthInit, OnDown, OnDrain, Plan, PolicyPlan, PoolPlan,
};

/// Those that a plan may have.
const POOLS: [&str; 2] = ["app", "web"];

/// The most backends of a pool.
const BACKENDS: usize = 4;

/// Everything that a pool can have, to take from.
const FULL: &str = r#"
[server]
workers = 2
watch = false
[log.access]
enabled = false
[admin]
bind = "off"
[[route]]
name = "app"
path = "/app"
pool = "app"
retry = { attempts = 3, on = ["connect", "reset_before_response", "response_timeout", "503"] }
[[route]]
name = "web"
path = "/web"
pool = "web"
[pool.app]
policy = "sticky_cookie"
backends = ["127.0.0.1:9001"]
[pool.app.sticky]
max_idle = "60s"
[pool.app.health]
path = "/healthz"
drain_on = "503"
[pool.app.outlier]
consecutive_errors = 2
consecutive_5xx = 2
eject = "10s"
[pool.web]
policy = "ip_hash"
backends = ["127.0.0.1:9101"]
"#;

static TEMPLATE: LazyLock<Plan> = LazyLock::new(|| {
    let origin = Origin { name: "simulation".into(), base: PathBuf::from(".") };
    let compiled = config::compile(FULL, &origin);
    compiled.unwrap_or_else(|problems| panic!("{}", problems.render(false))).plan
});

/// What `change_to` takes.
pub fn compiled(plan: Plan) -> Compiled {
    Compiled { plan, warnings: Problems::default(), files: Vec::new() }
}

pub fn first(rng: &mut Rng) -> Plan {
    let mut plan = TEMPLATE.clone();
    plan.pools.retain(|_| false);
    for name in &POOLS[..rng.usize(1..=2)] {
        plan.pools.push(pool(name, rng));
    }
    routed(plan)
}

/// One edit, as an operator makes it.
pub fn edited(mut plan: Plan, rng: &mut Rng) -> Plan {
    if rng.u8(..) < 40 {
        let name = POOLS[rng.usize(..2)];
        match plan.pools.iter().position(|pool| pool.name == name) {
            Some(at) if plan.pools.len() > 1 => drop(plan.pools.remove(at)),
            Some(_) => {}
            None => plan.pools.push(pool(name, rng)),
        }
        return routed(plan);
    }
    let pool = rng.usize(..plan.pools.len());
    edit(&mut plan.pools[pool], rng);
    plan
}

fn edit(pool: &mut PoolPlan, rng: &mut Rng) {
    let at = rng.usize(..pool.backends.len());
    let health = &TEMPLATE.pools[0].health;
    match rng.u8(..16) {
        0 | 1 if pool.backends.len() < BACKENDS => {
            let free = (0..BACKENDS).find(|n| pool.backends.iter().all(|known| known.name != name(*n)));
            pool.backends.push(backend(free.expect("there are fewer"), rng));
        }
        2 if pool.backends.len() > 1 => drop(pool.backends.remove(at)),
        3 => pool.backends[at].address = address(rng),
        4 => pool.backends[at].weight = rng.u32(1..=5),
        5 => pool.backends[at].backup ^= true,
        6 => pool.backends[at].state = state(rng),
        7 | 8 => (pool.policy, pool.sticky) = policy(rng),
        9 => pool.max_in_flight = rng.u32(..=2),
        10 => pool.panic_threshold = *rng.choice(&[0.0, 0.3, 0.6, 1.0]).expect("there are some"),
        11 => pool.slow_start = Duration::from_secs(rng.u64(..2) * 20),
        12 => pool.health = if pool.health.is_some() { None } else { health.clone() },
        13 => pool.outlier = if pool.outlier.is_some() { None } else { TEMPLATE.pools[0].outlier.clone() },
        14 => pool.hold.max = *rng.choice(&[0, 2, 256]).expect("there are some"),
        15 => pool.backends.reverse(),
        _ => pool.cookie.on_drain = *rng.choice(&[OnDrain::Keep, OnDrain::Move]).expect("there are some"),
    }
}

fn pool(name: &str, rng: &mut Rng) -> PoolPlan {
    let mut pool = TEMPLATE.pools[0].clone();
    pool.name = name.to_owned();
    (pool.policy, pool.sticky) = policy(rng);
    pool.backends = (0..rng.usize(1..=BACKENDS)).map(|at| backend(at, rng)).collect();
    // Here nearly all backends are as they are mostly.
    pool.backends.iter_mut().skip(1).for_each(|backend| backend.state = FileState::Active);
    pool.max_in_flight = if rng.bool() { 0 } else { rng.u32(1..=2) };
    pool.hold.max = if rng.u8(..) < 200 { 256 } else { rng.usize(..3) };
    pool.cookie.on_down = *rng.choice(&[OnDown::Repick, OnDown::Fail]).expect("there are some");
    pool.cookie.on_drain = if rng.u8(..) < 200 { OnDrain::Keep } else { OnDrain::Move };
    pool.panic_threshold = if rng.u8(..) < 200 { 0.0 } else { 0.5 };
    pool.slow_start = if rng.u8(..) < 200 { Duration::ZERO } else { Duration::from_secs(20) };
    if rng.bool() {
        pool.outlier = None;
    }
    match &mut pool.health {
        Some(_) if rng.bool() => pool.health = None,
        Some(health) => health.init = if rng.bool() { HealthInit::Up } else { HealthInit::Probe },
        None => {}
    }
    pool
}

fn backend(at: usize, rng: &mut Rng) -> BackendPlan {
    BackendPlan {
        name: name(at),
        address: address(rng),
        weight: if rng.bool() { 1 } else { rng.u32(1..=4) },
        backup: rng.u8(..) < 30,
        state: if rng.u8(..) < 230 { FileState::Active } else { state(rng) },
    }
}

fn name(at: usize) -> String {
    format!("a{at}")
}

fn address(rng: &mut Rng) -> BackendAddress {
    match rng.u16(..8) {
        0 => BackendAddress::Name { host: "a.example".into(), port: 80 },
        port => BackendAddress::Ip(([127, 0, 0, 1], 9000 + port).into()),
    }
}

fn state(rng: &mut Rng) -> FileState {
    *rng.choice(&[FileState::Active, FileState::Draining, FileState::Stopped]).expect("there are some")
}

/// A policy, and whether tokens are honoured before it is asked.
fn policy(rng: &mut Rng) -> (PolicyPlan, bool) {
    let PolicyPlan::IpHash(hash) = &TEMPLATE.pools[1].policy else { panic!("web hashes addresses") };
    let policies = [
        PolicyPlan::RoundRobin,
        PolicyPlan::RoundRobin,
        PolicyPlan::LeastConn,
        PolicyPlan::LeastTime,
        PolicyPlan::RandomTwo,
        PolicyPlan::IpHash(hash.clone()),
    ];
    (rng.choice(&policies).expect("there are some").clone(), rng.bool())
}

/// With a route to each pool.
fn routed(mut plan: Plan) -> Plan {
    plan.routes.clone_from(&TEMPLATE.routes);
    let pools = &plan.pools;
    plan.routes.retain(|route| pools.iter().any(|pool| route.action == Action::Forward(pool.name.clone())));
    plan
}
