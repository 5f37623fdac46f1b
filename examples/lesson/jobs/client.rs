//! Whoever wants videos encoded: asks for their status, and has an address to be called at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{Browser, Outcome};

use super::REPLICAS;
use super::api::Progress;

/// How many calls about each job are refused, to see that they are made again.
const REFUSED_FIRST: usize = 2;

/// Somebody at the balancer, and what was asked for.
pub struct Client {
    browser: Browser,
    pub jobs: Vec<String>,
    /// Which replica took each job.
    pub taken_by: BTreeMap<String, String>,
}

/// What came of asking about every job at every replica.
#[derive(Debug, Default)]
pub struct Asked {
    /// At the replica that took the job, and elsewhere.
    pub here: usize,
    pub known_here: usize,
    pub elsewhere: usize,
    pub known_elsewhere: usize,
    /// Jobs that nobody knows.
    pub forgotten: usize,
    /// How far each job is that somebody knows.
    pub progress: BTreeMap<String, Progress>,
}

impl Client {
    /// Starts jobs, one request after the other, so that round_robin spreads them evenly.
    pub async fn order(at: SocketAddr, jobs: usize, callback: Option<SocketAddr>) -> Outcome<Self> {
        let browser = Browser::new(at, Ipv4Addr::new(10, 1, 0, 1));
        let mut client = Self { browser, jobs: Vec::new(), taken_by: BTreeMap::new() };
        for number in 1..=jobs {
            let job = format!("video_{number}");
            let callback = callback.map(|at| format!("?callback=http://{at}/done/{job}"));
            let path = format!("/jobs/{job}{}", callback.unwrap_or_default());
            let answer = client.browser.post(&path, &()).await;
            if !answer.is(202) {
                return Err(format!("{job} was answered {:?}", answer.status).into());
            }
            client.taken_by.insert(job.clone(), answer.replica().into());
            client.jobs.push(job);
        }
        Ok(client)
    }

    /// As many questions as there are replicas: round_robin gives one to each.
    pub async fn ask_everywhere(&mut self) -> Outcome<Asked> {
        let mut asked = Asked::default();
        for job in &self.jobs {
            let mut known = false;
            for _ in 0..REPLICAS {
                let answer = self.browser.get(&format!("/jobs/{job}")).await;
                let (all, knowing) = match answer.replica() == self.taken_by[job] {
                    true => (&mut asked.here, &mut asked.known_here),
                    false => (&mut asked.elsewhere, &mut asked.known_elsewhere),
                };
                *all += 1;
                if answer.ok() {
                    *knowing += 1;
                    known = true;
                    asked.progress.insert(job.clone(), answer.body()?);
                }
            }
            asked.forgotten += usize::from(!known);
        }
        Ok(asked)
    }

    /// One question about one job, to whoever's turn it is.
    pub async fn ask(&mut self, job: &str) -> Outcome<Progress> {
        self.browser.get(&format!("/jobs/{job}")).await.body()
    }
}

/// What a client's address heard about one job.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    pub made: usize,
    pub refused: usize,
    known: bool,
    /// How often the client's user was told: once, however often the call comes.
    pub visible: usize,
    pub by: BTreeSet<String>,
}

/// The client's own server, to which workers call.
pub struct Phone {
    pub address: SocketAddr,
    calls: Heard,
    serving: JoinHandle<()>,
}

type Heard = Arc<Mutex<BTreeMap<String, Calls>>>;

impl Phone {
    pub async fn listen() -> Outcome<Self> {
        let calls = Heard::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let app = Router::new().route("/done/{job}", post(hear)).with_state(calls.clone());
        let serving = tokio::spawn(async move { drop(axum::serve(listener, app).await) });
        Ok(Self { address, calls, serving })
    }

    pub fn calls(&self) -> BTreeMap<String, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn hear(State(heard): State<Heard>, Path(job): Path<String>, headers: HeaderMap) -> StatusCode {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = heard.entry(job).or_default();
    calls.made += 1;
    if let Some(worker) = headers.get("x-worker").and_then(|name| name.to_str().ok()) {
        calls.by.insert(worker.into());
    }
    if calls.made <= REFUSED_FIRST {
        calls.refused += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    // The job's id is what makes a repeated call harmless.
    let known = std::mem::replace(&mut calls.known, true);
    if !known {
        calls.visible += 1;
    }
    StatusCode::NO_CONTENT
}
