//! Where pasted lines arrive, and where a browser sees who sits where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::harness::{Boxed, Frame, Outcome, Seat, SeatMap, SeatRow};
use crate::report;
use crate::shop::crowd::{Crowd, Log};

/// What somebody asks for.
#[derive(Clone, Debug)]
pub enum Order {
    Kill(String),
    Restart(String),
    Add,
    /// Name, and the deadline in seconds.
    Drain(String, u64),
    Ready(String),
    StopStore,
    StartStore,
}

/// With whom to tell what was done.
pub type Orders = mpsc::Sender<(Order, oneshot::Sender<String>)>;

/// Frames that the page shows: this round and the ones before.
const FRAMES: usize = 4;

/// What the page shows.
#[derive(Clone, Default)]
pub struct View(Arc<Mutex<Vec<Frame>>>);

impl View {
    /// Seats everybody at the replica that answered them last.
    pub fn show(&self, crowd: &Crowd, log: &Log) {
        let mut last: BTreeMap<usize, (&str, bool)> = BTreeMap::new();
        for moment in &log.moments {
            let kept = moment.visit.notice.is_none() && last.get(&moment.user).is_none_or(|(_, kept)| *kept);
            last.insert(moment.user, (&moment.visit.replica, kept));
        }
        let names: BTreeSet<_> =
            last.values().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        let replicas: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = frames.last().cloned().unwrap_or_default();
        let seat = |user: usize| {
            let (name, kept) = last.get(&user).copied().unwrap_or_default();
            let replica = replicas.iter().position(|replica| replica == name).unwrap_or(replicas.len());
            let was = before.seats.get(user).and_then(|seat| before.replicas.get(seat.replica));
            let moved = was.is_some_and(|was| was != name);
            Seat { replica, moved, kept }
        };
        let seats = (0..crowd.shoppers.len()).map(seat).collect();
        frames.push(Frame { caption: "a second".into(), replicas: replicas.clone(), seats });
        let surplus = frames.len().saturating_sub(FRAMES);
        frames.drain(..surplus);
        let count = frames.len();
        for (age, frame) in frames.iter_mut().enumerate() {
            frame.caption =
                if age + 1 == count { "now".into() } else { format!("{} s ago", count - 1 - age) };
        }
    }

    fn map(&self) -> SeatMap {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SeatMap {
            title: "Who sits where".into(),
            note: "A dot per user, at the replica that answered last. Hollow: the session or the cart was lost, \
                   or a request failed, in that second. A diamond has moved."
                .into(),
            rows: vec![SeatRow { name: "now and before".into(), frames }],
        }
    }
}

struct Desk {
    orders: Orders,
    view: View,
}

type Door = State<Arc<Desk>>;

/// Serves until the end of the program.
pub fn open(door: Option<TcpListener>, orders: Orders, view: View) -> Outcome<Boxed<'static, Outcome<()>>> {
    let door = door.ok_or("the door is open already")?;
    door.set_nonblocking(true)?;
    let door = tokio::net::TcpListener::from_std(door)?;
    let named = |order: fn(String) -> Order| {
        post(async move |State(desk): Door, Path(name): Path<String>| ask(&desk, order(name)).await)
    };
    let plain = |order: Order| post(async move |State(desk): Door| ask(&desk, order.clone()).await);
    let app = Router::new()
        .route("/", get(page))
        .route("/kill/{name}", named(Order::Kill))
        .route("/restart/{name}", named(Order::Restart))
        .route("/ready/{name}", named(Order::Ready))
        .route("/drain/{name}", post(drain))
        .route("/add", plain(Order::Add))
        .route("/store/stop", plain(Order::StopStore))
        .route("/store/start", plain(Order::StartStore))
        .with_state(Arc::new(Desk { orders, view }));
    Ok(Box::pin(async move { Ok(axum::serve(door, app).await?) }))
}

#[derive(Deserialize)]
struct Deadline {
    seconds: Option<u64>,
}

async fn drain(
    State(desk): Door,
    Path(name): Path<String>,
    Query(deadline): Query<Deadline>,
) -> Result<String, StatusCode> {
    ask(&desk, Order::Drain(name, deadline.seconds.unwrap_or(10).min(600))).await
}

async fn ask(desk: &Desk, order: Order) -> Result<String, StatusCode> {
    let (answer, said) = oneshot::channel();
    desk.orders.try_send((order, answer)).map_err(|_| StatusCode::TOO_MANY_REQUESTS)?;
    said.await.map(|said| said + "\n").map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn page(State(desk): Door) -> Html<String> {
    Html(report::live(&desk.view.map()))
}
