//! `demo`: Pintle, three backends of its own, and what to try with them.
//!
//! Start at [`run`]. `ports` and `folder` are where it lives, `stage` runs the backends, `screen`
//! says what can be done, and here is told what then happens. The balancer is the library's, from
//! a file like any other.

mod folder;
mod ports;
mod screen;
pub mod shop;
mod stage;

use std::fs;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::folder::Folder;
use self::ports::Ports;
use self::screen::{Places, quoted, screen};
use super::outcome::{Exit, Failure};
use super::output::{Output, Style};
use crate::admin::events::Subscription;
use crate::admin::view::EventView;
use crate::app::{Options, Pintle, Source};

/// The first probes pass long before; without them the screen comes all the same.
const UP_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct DemoArgs {
    /// Take free ports instead of 8080, 9900 and 9000 to 9004
    #[arg(long)]
    free_ports: bool,
}

pub async fn run(args: DemoArgs, output: &Output) -> Result<Exit, Failure> {
    let mut end = End::listen().map_err(cannot("listen for signals"))?;
    let folder = Folder::make(&std::env::temp_dir()).map_err(cannot("make a temporary folder"))?;
    let (said_tx, said) = mpsc::channel(stage::MAX_SAID);
    let places = set_up(&folder, args.free_ports, said_tx).map_err(cannot("set up the demo"))?;
    let pintle = Pintle::start(Source::File(places.file.clone()), Options::default())
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    tokio::select! {
        () = all_up(&pintle) => {}
        () = end.asked() => return Ok(Exit::Done),
    }
    let events = pintle.events().subscribe(None);

    if output.json {
        print_line(output, &places.json())?;
    } else if !output.silent() {
        output.print(&screen(&places, output.paint))?;
    }
    for warning in pintle.warnings() {
        output.note(&format!("{} {warning}", output.paint_notes.with(Style::Warn, "warning:")));
    }
    tokio::select! {
        // Ctrl-C and SIGTERM end Pintle, and so does `pintle shutdown`.
        _ = pintle.run() => {}
        // The terminal is closed: nobody is left to wait for.
        _ = end.hangup.recv() => return Ok(Exit::Done),
        told = tell(events, said, &places, output) => told?,
    }
    output.say(&format!("ended; {} is gone", folder.path().display()))?;
    Ok(Exit::Done)
}

/// Chooses the ports, writes the file, starts the backends.
fn set_up(folder: &Folder, free_ports: bool, said: mpsc::Sender<String>) -> io::Result<Places> {
    let Ports { listener, admin, stage, shops, spare, moved } = Ports::take(free_ports)?;
    let addresses: io::Result<Vec<_>> = shops.iter().map(|shop| shop.local_addr()).collect();
    let spare_address = spare.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let places = Places {
        listener,
        admin,
        stage: stage.local_addr()?,
        shops: addresses?,
        spare: spare_address,
        folder: folder.path().to_owned(),
        file: folder.path().join("pintle.toml"),
        socket: folder.path().join("admin.sock"),
        program: std::env::current_exe()?,
        moved,
    };
    fs::write(&places.file, folder::file(listener, admin, &places.shops, spare_address))?;
    stage::start(stage, shops, spare, said)?;
    Ok(places)
}

/// What ends the demo while Pintle does not listen for signals yet.
struct End {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl End {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// So that the first line pasted finds every backend.
async fn all_up(pintle: &Pintle) {
    let until = Instant::now() + UP_WITHIN;
    while Instant::now() < until {
        let Ok(status) = pintle.status().await else { return };
        let mut backends = status.pools.iter().flat_map(|pool| &pool.backends);
        if backends.all(|backend| backend.health.status == "up") {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Says in one line each what happens to Pintle and to the backends. Ends only with an error.
async fn tell(
    mut events: Subscription,
    mut said: mpsc::Receiver<String>,
    places: &Places,
    output: &Output,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            event = events.coming.recv() => match event {
                Ok(event) if output.json => print_line(output, &*event)?,
                Ok(event) => output.say(&sentence(&event, places))?,
                Err(RecvError::Lagged(missed)) => output.say(&format!("({missed} more)"))?,
                // The control thread has ended, and `run` with it.
                Err(RecvError::Closed) => std::future::pending().await,
            },
            Some(sentence) = said.recv() => output.say(&sentence)?,
        }
    }
}

/// There is one pool and one file here, so neither needs to be named in full.
fn sentence(event: &EventView, places: &Places) -> String {
    let message = event.message.replace(&places.file.display().to_string(), "pintle.toml");
    let message = message.replace("pool app: ", "");
    let message = message.strip_prefix("app/").unwrap_or(&message);
    if message.starts_with("not reloaded") {
        let check = format!("{} check {}", quoted(&places.program), quoted(&places.file));
        return format!("{message}; `{check}` shows where");
    }
    message.to_owned()
}

/// One line for a program.
fn print_line(output: &Output, value: &impl serde::Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
    output.print(&(line + "\n"))
}

fn cannot(what: &str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::failed(format!("cannot {what}: {error}"))
}
