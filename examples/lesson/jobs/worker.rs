//! The queue in the store, and a worker that takes from it.
//!
//! Start at [`Worker::turn`]. An order is a word and a job: `encode video_7`, then `call video_7`,
//! which tells the client. While somebody works on it, it lies in that worker's own list, so that
//! it is never nowhere; when the worker is silent for longer than [`LEASE`], anybody puts its list
//! back. Work may thus be done twice, and its result still counts once.

use std::time::Duration;

use axum::http::Request;
use redis::{Cmd, cmd, pipe};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::http::Http;
use crate::harness::{Boxed, Outcome, Setup};
use crate::store::{Client, Link};

/// A worker that is silent for this long is taken for dead.
pub const LEASE: Duration = Duration::from_millis(250);
/// How many parts a video has.
pub const STEPS: u32 = 10;
/// How long a worker waits for an order before it looks around for dead colleagues.
const LOOK: Duration = Duration::from_millis(50);
/// Between two calls to a client who did not take the first. A real service waits longer each time.
const AGAIN: Duration = Duration::from_millis(15);

#[derive(Serialize, Deserialize)]
pub struct Order {
    pub store: String,
    /// How long a part takes: a pause instead of work.
    pub step: Duration,
    /// Falls silent in the middle of its first job, and goes on as if nothing had been.
    pub stalls: bool,
}

/// Takes orders until it is ended.
pub fn role(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async move {
        let order: Order = setup.order()?;
        let store = Client::connect(&order.store, Link::Multiplexed).await?;
        // Nobody calls a worker; its address only says that it is there.
        let _listener = setup.listen().await?;
        let mut worker = Worker { name: setup.name, store, order, http: Http::default() };
        worker.store.run::<()>(cmd("SADD").arg("workers").arg(&worker.name)).await?;
        loop {
            // Whatever went wrong, the order still lies in its list, and the next turn puts it back.
            if worker.turn().await.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    })
}

struct Worker {
    name: String,
    store: Client,
    order: Order,
    http: Http,
}

impl Worker {
    async fn turn(&mut self) -> Outcome<()> {
        self.say_alive().await?;
        self.put_back_what_is_left().await?;
        let mut take = cmd("BLMOVE");
        take.arg("orders").arg(self.list()).arg("RIGHT").arg("LEFT").arg(LOOK.as_secs_f64());
        let Some(order) = self.store.wait::<Option<String>>(&take, LOOK).await? else { return Ok(()) };
        match order.split_once(' ') {
            Some(("encode", job)) => self.encode(&order, job).await,
            Some(("call", job)) => self.call(&order, job).await,
            _ => self.done_with(&order).await,
        }
    }

    fn list(&self) -> String {
        format!("doing:{}", self.name)
    }

    async fn say_alive(&self) -> Outcome<()> {
        let key = format!("alive:{}", self.name);
        self.store.run(cmd("SET").arg(key).arg(1).arg("PX").arg(LEASE.as_millis() as u64)).await
    }

    /// The orders of workers that died, and one of our own that an error interrupted.
    async fn put_back_what_is_left(&self) -> Outcome<()> {
        let workers: Vec<String> = self.store.run(cmd("SMEMBERS").arg("workers")).await?;
        for worker in workers {
            let alive: bool = self.store.run(cmd("EXISTS").arg(format!("alive:{worker}"))).await?;
            if !alive || worker == self.name {
                let mut back = cmd("LMOVE");
                back.arg(format!("doing:{worker}")).arg("orders").arg("LEFT").arg("RIGHT");
                while self.store.run::<Option<String>>(&back).await?.is_some() {}
            }
        }
        Ok(())
    }

    async fn encode(&mut self, order: &str, job: &str) -> Outcome<()> {
        let key = format!("job:{job}");
        let run: u64 = self.store.run(cmd("HINCRBY").arg(&key).arg("begun").arg(1)).await?;
        for step in 1..=STEPS {
            tokio::time::sleep(self.order.step).await;
            self.say_alive().await?;
            let percent = step * 100 / STEPS;
            let mut progress = cmd("HSET");
            progress.arg(&key).arg(&["percent", &percent.to_string(), "by", &self.name]);
            self.store.run::<()>(&progress).await?;
            if step == STEPS / 2 && std::mem::take(&mut self.order.stalls) {
                tokio::time::sleep(2 * LEASE).await;
            }
        }
        // The first to come writes the result, and whoever did it again comes too late.
        let result = format!("run {run} by {}", self.name);
        let first: Option<String> =
            self.store.run(cmd("SET").arg(format!("result:{job}")).arg(&result).arg("NX")).await?;
        if first.is_some() {
            self.store.run::<()>(cmd("HINCRBY").arg(&key).arg("results").arg(1)).await?;
        }
        self.store.run::<()>(cmd("HINCRBY").arg(&key).arg("finished").arg(1)).await?;
        // Also by the one who came too late: had the first died here, nobody would call.
        let mut next = pipe();
        next.atomic().cmd("LREM").arg(self.list()).arg(1).arg(order).ignore();
        next.cmd("RPUSH").arg("orders").arg(format!("call {job}")).ignore();
        self.store.pipeline(&next).await
    }

    /// Tells the client. When it does not take the call, the order goes to the end of the queue,
    /// for whichever worker comes next.
    async fn call(&self, order: &str, job: &str) -> Outcome<()> {
        let url: Option<String> =
            self.store.run(cmd("HGET").arg(format!("job:{job}")).arg("callback")).await?;
        let Some(url) = url else { return self.done_with(order).await };
        let request = Request::post(url).header("x-worker", &self.name);
        let sent =
            self.http.send(request.body(json!({ "job": job, "state": "done" }).to_string().into())?).await;
        if sent.is_ok_and(|(status, _)| status.is_success()) {
            return self.done_with(order).await;
        }
        tokio::time::sleep(AGAIN).await;
        let mut again = pipe();
        again.atomic().cmd("LREM").arg(self.list()).arg(1).arg(order).ignore();
        again.cmd("LPUSH").arg("orders").arg(order).ignore();
        self.store.pipeline(&again).await
    }

    async fn done_with(&self, order: &str) -> Outcome<()> {
        self.store.run(&remove(&self.list(), order)).await
    }
}

fn remove(list: &str, order: &str) -> Cmd {
    let mut remove = cmd("LREM");
    remove.arg(list).arg(1).arg(order);
    remove
}
