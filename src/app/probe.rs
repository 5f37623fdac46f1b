//! The probe thread: asks backends how they are and looks their names up, and tells the control
//! thread. What an answer means for traffic is not decided here; how gRPC is asked is in `grpc`.

mod grpc;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::http::headers::to_http2;
use crate::plan::{BackendAddress, HealthPlan, Probe};
use crate::pool::Shared;
use crate::pool::backend::Vitals;
use crate::pool::health::{Found, Verdict, next_probe, second_probe};
use crate::upstream::tls::Version;
use crate::upstream::{Way, is_nonsense};

/// How often a name is looked up again.
const LOOK_UP: Duration = Duration::from_secs(10);

/// How often a backend without probes is tried after it refused a connection.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The same while a request waits for it.
const HURRY: Duration = Duration::from_millis(100);

/// The longest a name server may take.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Who asks.
const USER: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"), " (health)");

/// What is asked about one backend.
#[derive(Clone)]
pub struct Target {
    pub vitals: Arc<Vitals>,
    pub shared: Arc<Shared>,
    pub address: BackendAddress,
    pub way: Way,
    pub asks: Asks,
    /// Somebody waiting for it makes the probes hurry.
    pub down: bool,
}

#[derive(Clone, PartialEq)]
pub enum Asks {
    Probe(HealthPlan),
    /// A pool without probes: whether it takes connections again.
    Connect {
        timeout: Duration,
    },
    /// Only what its name resolves to.
    Name,
}

/// What was found out.
pub enum News {
    Verdict(Arc<Vitals>, Verdict),
    Resolved(Arc<Vitals>, Result<Vec<SocketAddr>, String>),
}

/// Runs until nobody gives it targets any more.
pub fn start(targets: mpsc::Receiver<Vec<Target>>, news: mpsc::Sender<News>) -> std::io::Result<()> {
    std::thread::Builder::new().name("pintle-probe".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .expect("a runtime needs three descriptors, and the limit was raised at start");
        runtime.block_on(run(targets, news));
    })?;
    Ok(())
}

async fn run(mut targets: mpsc::Receiver<Vec<Target>>, news: mpsc::Sender<News>) {
    let mut running: HashMap<*const Vitals, (Target, Vec<AbortHandle>)> = HashMap::new();
    while let Some(wanted) = targets.recv().await {
        let mut next = HashMap::new();
        for target in wanted {
            let id = Arc::as_ptr(&target.vitals);
            let kept = running.remove(&id).map(|(old, tasks)| {
                let same = old.asks == target.asks && old.down == target.down;
                if same && old.address == target.address && old.way == target.way {
                    return (old, tasks);
                }
                tasks.iter().for_each(AbortHandle::abort);
                // What was asked before goes on in its rhythm: only a new backend is asked at once.
                let first = old.asks != target.asks;
                (target.clone(), begin(&target, first, &news))
            });
            next.insert(id, kept.unwrap_or_else(|| (target.clone(), begin(&target, true, &news))));
        }
        running.values().flat_map(|(_, tasks)| tasks).for_each(AbortHandle::abort);
        running = next;
    }
}

fn begin(target: &Target, first: bool, news: &mpsc::Sender<News>) -> Vec<AbortHandle> {
    let mut tasks = Vec::new();
    if let BackendAddress::Name { host, port } = &target.address {
        let resolving = resolve(target.vitals.clone(), host.clone(), *port, news.clone());
        tasks.push(tokio::task::spawn_local(resolving).abort_handle());
    }
    if target.asks != Asks::Name {
        tasks.push(tokio::task::spawn_local(ask(target.clone(), first, news.clone())).abort_handle());
    }
    tasks
}

/// Looks a name up for ever. The last good answer is kept: a failed look-up says so and no more.
async fn resolve(vitals: Arc<Vitals>, host: String, port: u16, news: mpsc::Sender<News>) {
    loop {
        let answer = match timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((host.as_str(), port))).await {
            Ok(Ok(addresses)) => {
                let mut addresses: Vec<_> = addresses.collect();
                addresses.sort_unstable();
                addresses.dedup();
                if addresses.is_empty() { Err(format!("`{host}` has no address")) } else { Ok(addresses) }
            }
            Ok(Err(error)) => Err(format!("`{host}` does not resolve: {error}")),
            Err(_) => Err(format!("no name server answered for `{host}` in {LOOK_UP_TIMEOUT:?}")),
        };
        if news.send(News::Resolved(vitals.clone(), answer)).await.is_err() {
            return;
        }
        sleep(LOOK_UP).await;
    }
}

/// Asks one backend for ever: the first time at once, later spread over the interval.
async fn ask(target: Target, mut first: bool, news: mpsc::Sender<News>) {
    let interval = match &target.asks {
        Asks::Probe(plan) => plan.interval,
        _ => TRY_AGAIN,
    };
    let jitter = match &target.asks {
        Asks::Probe(plan) => plan.jitter,
        _ => 0.0,
    };
    if !first {
        pause(&target, next_probe(interval, jitter, random())).await;
    }
    loop {
        let verdict = probe(&target).await;
        if let Some(verdict) = verdict
            && news.send(News::Verdict(target.vitals.clone(), verdict)).await.is_err()
        {
            return;
        }
        let rest =
            if first { second_probe(interval, random()) } else { next_probe(interval, jitter, random()) };
        first = false;
        pause(&target, rest).await;
    }
}

/// Waits for the next probe, or, while a request waits for a backend that is down, less.
async fn pause(target: &Target, rest: Duration) {
    if !target.down {
        return sleep(rest).await;
    }
    let hurry = target.shared.hurry.notified();
    if target.shared.hold.waiting() > 0 {
        return sleep(rest.min(HURRY)).await;
    }
    tokio::select! {
        () = sleep(rest) => {}
        () = hurry => sleep(rest.min(HURRY)).await,
    }
}

/// One probe. `None` while there is no address to ask.
async fn probe(target: &Target) -> Option<Verdict> {
    let mut addresses = target.vitals.addresses().to_vec();
    if addresses.is_empty() {
        return None;
    }
    let begun = Instant::now();
    let (limit, answer) = match &target.asks {
        Asks::Probe(plan) => {
            if plan.port != 0 {
                addresses.iter_mut().for_each(|address| address.set_port(plan.port));
            }
            (plan.timeout, timeout(plan.timeout, look(plan, target, &addresses)).await)
        }
        Asks::Connect { timeout: limit } => (*limit, timeout(*limit, touch(&target.way, &addresses)).await),
        Asks::Name => return None,
    };
    let took = begun.elapsed();
    Some(match (answer, &target.asks) {
        (Err(_), _) => {
            Verdict::Fail { why: format!("no answer in {}", humantime::format_duration(limit)).into() }
        }
        (Ok(Err(why)), _) => Verdict::Fail { why },
        (Ok(Ok(Found::Status(status))), Asks::Probe(plan)) => judge(plan, status, took),
        (Ok(Ok(found)), _) => Verdict::Pass { found, took },
    })
}

fn judge(plan: &HealthPlan, status: StatusCode, took: Duration) -> Verdict {
    if plan.drain_on.as_ref().is_some_and(|drain_on| drain_on.contains(status)) {
        Verdict::DrainAnswer { status, took }
    } else if plan.expect.contains(status) {
        Verdict::Pass { found: Found::Status(status), took }
    } else {
        Verdict::Fail { why: status.as_u16().to_string().into() }
    }
}

async fn touch(way: &Way, addresses: &[SocketAddr]) -> Result<Found, Cow<'static, str>> {
    way.open(addresses, way.offer(), None)
        .await
        .map(|_| Found::Connected)
        .map_err(|error| error.to_string().into())
}

/// Asks over HTTP or gRPC, or only connects where that is all the plan wants.
async fn look(
    plan: &HealthPlan,
    target: &Target,
    addresses: &[SocketAddr],
) -> Result<Found, Cow<'static, str>> {
    let way = &target.way;
    let (stream, version) =
        way.open(addresses, way.offer(), None).await.map_err(|error| error.to_string())?;
    let host = if plan.host.is_empty() { target.address.to_string() } else { plan.host.clone() };
    let path = match &plan.probe {
        Probe::Http { path } => path,
        Probe::Tcp => return Ok(Found::Connected),
        Probe::Grpc { .. } if version == Version::Http1 => return Err("it chose HTTP/1.1, not HTTP/2".into()),
        Probe::Grpc { service } => {
            let asked = grpc::check(stream, way.scheme(), &host, service, plan.timeout);
            return asked.await.map(|()| Found::Serving);
        }
    };
    let request = Request::get(path.as_str())
        .header(HOST, host)
        .header(USER_AGENT, USER)
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = match version {
        Version::Http1 => {
            let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            let _driven = Driven(tokio::task::spawn_local(connection).abort_handle());
            sender.send_request(request).await
        }
        Version::Http2 => {
            let (mut sender, connection) =
                http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .map_err(|error| error.to_string())?;
            let _driven = Driven(tokio::task::spawn_local(connection).abort_handle());
            let (mut parts, body) = request.into_parts();
            to_http2(&mut parts, way.scheme());
            sender.send_request(Request::from_parts(parts, body)).await
        }
    };
    match answer {
        Ok(response) => Ok(Found::Status(response.status())),
        Err(error) if is_nonsense(&error) => Err("an answer that is no HTTP".into()),
        Err(_) => Err("closed before it answered".into()),
    }
}

/// A connection that ends with its probe.
struct Driven(AbortHandle);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Between 0 and 1. Spreads probes; nothing depends on its quality.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(Instant::now());
    bits as f64 / u64::MAX as f64
}
