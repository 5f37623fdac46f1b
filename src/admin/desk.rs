//! The desk: where the operator's side asks the process, and whoever runs it answers.
//!
//! Start at [`Ask`]. The admin server and the library handle hold a [`Desk`]; the control thread
//! holds the receiving end. What an answer says is not decided here.

use tokio::sync::{mpsc, oneshot};

use super::events::Events;
use super::view::{
    CheckReport, DrainView, Fault, ReloadOrder, ReloadReport, RouteView, ShutdownOrder, StateAnswer,
    StateOrder, Status, UpgradeOrder, UpgradeReport,
};

/// Questions that may wait for the control thread; who comes next waits to ask.
pub const MAX_WAITING_ASKS: usize = 64;

/// A question or an order, each with the place where its answer goes.
#[derive(Debug)]
pub enum Ask {
    Status {
        reply: oneshot::Sender<Status>,
    },
    Routes {
        reply: oneshot::Sender<Vec<RouteView>>,
    },
    Config {
        reply: oneshot::Sender<Document>,
    },
    /// The Prometheus text.
    Metrics {
        reply: oneshot::Sender<String>,
    },
    /// Whether the process wants traffic, or why not.
    Readiness {
        reply: oneshot::Sender<Result<(), Vec<String>>>,
    },
    Reload {
        order: ReloadOrder,
        reply: oneshot::Sender<Result<ReloadReport, Fault>>,
    },
    Check {
        text: String,
        reply: oneshot::Sender<CheckReport>,
    },
    SetState {
        pool: String,
        backend: String,
        order: StateOrder,
        reply: oneshot::Sender<Result<StateAnswer, Fault>>,
    },
    Drain {
        id: u64,
        reply: oneshot::Sender<Option<DrainView>>,
    },
    Upgrade {
        order: UpgradeOrder,
        reply: oneshot::Sender<Result<UpgradeReport, Fault>>,
    },
    Shutdown {
        order: ShutdownOrder,
        reply: oneshot::Sender<()>,
    },
}

/// A text and what it is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub content_type: &'static str,
    pub text: String,
}

/// The process is ending and answers nobody any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this Pintle is ending and takes no more orders")]
pub struct Gone;

/// Asks the process, from any thread.
#[derive(Clone, Debug)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    events: Events,
}

impl Desk {
    /// A desk and the end at which its questions arrive.
    pub fn new(events: Events) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, inbox) = mpsc::channel(MAX_WAITING_ASKS);
        (Self { asks, events }, inbox)
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    pub async fn status(&self) -> Result<Status, Gone> {
        self.ask(|reply| Ask::Status { reply }).await
    }

    pub async fn routes(&self) -> Result<Vec<RouteView>, Gone> {
        self.ask(|reply| Ask::Routes { reply }).await
    }

    pub async fn config(&self) -> Result<Document, Gone> {
        self.ask(|reply| Ask::Config { reply }).await
    }

    pub async fn metrics(&self) -> Result<String, Gone> {
        self.ask(|reply| Ask::Metrics { reply }).await
    }

    pub async fn readiness(&self) -> Result<Result<(), Vec<String>>, Gone> {
        self.ask(|reply| Ask::Readiness { reply }).await
    }

    pub async fn reload(&self, order: ReloadOrder) -> Result<Result<ReloadReport, Fault>, Gone> {
        self.ask(|reply| Ask::Reload { order, reply }).await
    }

    pub async fn check(&self, text: String) -> Result<CheckReport, Gone> {
        self.ask(|reply| Ask::Check { text, reply }).await
    }

    pub async fn set_state(
        &self,
        pool: String,
        backend: String,
        order: StateOrder,
    ) -> Result<Result<StateAnswer, Fault>, Gone> {
        self.ask(|reply| Ask::SetState { pool, backend, order, reply }).await
    }

    pub async fn drain(&self, id: u64) -> Result<Option<DrainView>, Gone> {
        self.ask(|reply| Ask::Drain { id, reply }).await
    }

    pub async fn upgrade(&self, order: UpgradeOrder) -> Result<Result<UpgradeReport, Fault>, Gone> {
        self.ask(|reply| Ask::Upgrade { order, reply }).await
    }

    pub async fn shutdown(&self, order: ShutdownOrder) -> Result<(), Gone> {
        self.ask(|reply| Ask::Shutdown { order, reply }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
