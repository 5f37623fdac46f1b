//! Clients that ask and are answered: short GETs and POSTs, long downloads and uploads, sessions.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Kind, Shared};
use crate::client::{Ask, How, Told, Upload, Wire};

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(40);
/// Of a POST.
const SMALL: u64 = 300;

/// A client with a connection, when it has one.
struct Caller {
    shared: Rc<Shared>,
    wire: Option<Wire>,
    cookie: Option<String>,
}

impl Caller {
    fn new(shared: Rc<Shared>) -> Self {
        Self { shared, wire: None, cookie: None }
    }

    /// One exchange, on the connection of the last one if that is open still.
    async fn ask(
        &mut self,
        method: &'static str,
        target: &str,
        id: &str,
        upload: Upload,
        download: bool,
    ) -> Told {
        let wire = match self.wire.take() {
            Some(wire) => Ok(wire),
            None => Wire::open(self.shared.address).await,
        };
        let mut wire = match wire {
            Ok(wire) => wire,
            Err(how) => return Told { how: Some(how), ..Told::default() },
        };
        let ask = Ask { method, target, id, cookie: self.cookie.as_deref(), upload };
        let told = wire.ask(&ask, download).await;
        self.wire = Some(wire).filter(|wire| !wire.over);
        told
    }

    async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is wrong with an answer's text, if anything is.
fn wrong(told: &Told, expected: &str) -> Option<How> {
    let text = String::from_utf8_lossy(&told.body);
    told.how.clone().or_else(|| (text != expected).then(|| How::Wrong(text.chars().take(80).collect())))
}

pub async fn gets(shared: Rc<Shared>, kind: Kind) {
    let mut caller = Caller::new(shared.clone());
    let target = format!("{}/get", shared.diet.prefix);
    while shared.goes_on() {
        let (id, began) = (shared.id(), Instant::now());
        let told = caller.ask("GET", &target, &id, Upload::Nothing, false).await;
        let how = wrong(&told, &format!("get {id}"));
        shared.record(id, kind, began, told.backend, how);
        if kind == Kind::FreshGet {
            caller.wire = None;
        }
        caller.pause().await;
    }
}

pub async fn posts(shared: Rc<Shared>) {
    let mut caller = Caller::new(shared.clone());
    let target = format!("{}/take", shared.diet.prefix);
    let upload = Upload::Pattern { bytes: SMALL, over: Duration::ZERO };
    while shared.goes_on() {
        let (id, began) = (shared.id(), Instant::now());
        let told = caller.ask("POST", &target, &id, upload, false).await;
        let how = wrong(&told, &format!("took {id} {SMALL} right"));
        shared.record(id, Kind::Post, began, told.backend, how);
        caller.pause().await;
    }
}

pub async fn downloads(shared: Rc<Shared>, told_length: bool) {
    let mut caller = Caller::new(shared.clone());
    let (bytes, over) = (shared.diet.bytes, shared.diet.over.as_millis());
    let target = format!("/download?bytes={bytes}&ms={over}&told={}", u8::from(told_length));
    while shared.goes_on() {
        let (id, began) = (shared.id(), Instant::now());
        let told = caller.ask("GET", &target, &id, Upload::Nothing, true).await;
        let short = (told.bytes != bytes).then_some(How::Short);
        let how = told.how.or(short);
        shared.record(id, Kind::Download, began, told.backend, how);
        caller.pause().await;
    }
}

pub async fn uploads(shared: Rc<Shared>, kind: Kind) {
    let mut caller = Caller::new(shared.clone());
    // A quarter: this is for the time that it takes, and reading is cheaper than checking.
    let (bytes, over) = (shared.diet.bytes / 4, shared.diet.over);
    let method = if kind == Kind::Put { "PUT" } else { "POST" };
    while shared.goes_on() {
        let (id, began) = (shared.id(), Instant::now());
        let told = caller.ask(method, "/take", &id, Upload::Pattern { bytes, over }, false).await;
        let how = wrong(&told, &format!("took {id} {bytes} right"));
        shared.record(id, kind, began, told.backend, how);
        caller.pause().await;
    }
}

/// A session comes with its cookie, and expects the backend that it had.
pub async fn sessions(shared: Rc<Shared>) {
    let mut caller = Caller::new(shared.clone());
    let mut home: Option<String> = None;
    while shared.goes_on() {
        let (id, began) = (shared.id(), Instant::now());
        let told = caller.ask("GET", "/pinned/get", &id, Upload::Nothing, false).await;
        let how = wrong(&told, &format!("get {id}"));
        let answered = how.is_none();
        shared.record(id.clone(), Kind::Session, began, told.backend.clone().or_else(|| home.clone()), how);
        caller.cookie = told.cookie.or(caller.cookie);
        if answered {
            if home.is_some() && home != told.backend {
                shared.blame(id, Kind::Session, began, home.clone(), How::Moved);
            }
            home = told.backend;
        }
        caller.pause().await;
    }
}
