//! The backends as the run sees them: started, killed, stopped, and heard.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::backend;
use crate::keeper::Keeper;

/// How long a backend may take to do what it is told.
const OBEYS: Duration = Duration::from_secs(20);

/// Everything that backends have said about requests.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<HashMap<String, Seen>>>);

/// What is known of one request.
#[derive(Clone, Default)]
pub struct Seen {
    /// The backends that it came to, in order.
    pub begun: Vec<Arc<str>>,
    /// How often its body arrived whole.
    pub whole: usize,
}

impl Ledger {
    fn hear(&self, backend: &Arc<str>, line: &str) -> bool {
        let mut words = line.split(' ');
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (words.next(), words.next()) {
            (Some("begun"), Some(id)) => ledger.entry(id.into()).or_default().begun.push(backend.clone()),
            (Some("done"), Some(id)) => ledger.entry(id.into()).or_default().whole += 1,
            _ => return false,
        }
        true
    }

    pub fn seen(&self, id: &str) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    /// Forgets what nobody will ask for any more.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub struct Backend {
    pub name: Arc<str>,
    pub address: SocketAddr,
    running: Option<Running>,
    ledger: Ledger,
}

struct Running {
    process: Child,
    orders: ChildStdin,
    /// What it has said that is not about requests.
    says: mpsc::UnboundedReceiver<String>,
    reader: JoinHandle<()>,
}

impl Backend {
    pub async fn start(keeper: &Keeper, name: &str, address: SocketAddr, ledger: &Ledger) -> Self {
        let mut backend = Self { name: name.into(), address, running: None, ledger: ledger.clone() };
        backend.begin(keeper).await;
        backend
    }

    /// Starts it at its address, with nothing remembered.
    pub async fn begin(&mut self, keeper: &Keeper) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args([backend::ROLE, &self.name, &self.address.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        keeper.keep(&mut command);
        let mut process = command.spawn().expect("another process can be started");
        let orders = process.stdin.take().expect("it is piped");
        let out = process.stdout.take().expect("it is piped");
        let (say, says) = mpsc::unbounded_channel();
        let (name, ledger) = (self.name.clone(), self.ledger.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if !ledger.hear(&name, &line) {
                    let _ = say.send(line);
                }
            }
        });
        self.running = Some(Running { process, orders, says, reader });
        self.hear("listening").await;
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    async fn hear(&mut self, what: &str) {
        let said = tokio::time::timeout(OBEYS, self.running().says.recv()).await;
        assert_eq!(said.ok().flatten().as_deref(), Some(what), "{} does not obey", self.name);
    }

    fn tell(&mut self, order: &str) {
        self.running().orders.write_all(format!("{order}\n").as_bytes()).expect("it reads its orders");
    }

    /// Breaks all of its HTTP connections off.
    pub async fn reset(&mut self) {
        self.tell("reset");
        self.hear("reset").await;
    }

    /// All that it has said until now is in the ledger when this returns.
    pub async fn sync(&mut self) {
        self.tell("sync");
        self.hear("synced").await;
    }

    pub async fn refuse(&mut self) {
        self.tell("refuse");
        self.hear("refuses").await;
    }

    pub async fn listen(&mut self) {
        self.tell("listen");
        self.hear("listening").await;
    }

    /// Lets it finish and end. What is left of its work is done when this returns.
    pub async fn leave(&mut self) {
        self.tell("leave");
        let running = self.running.take().expect("told just now");
        let ended = tokio::task::spawn_blocking(move || running.end());
        ended.await.expect("it is waited for");
    }

    /// SIGKILL. All that it has said is in the ledger when this returns.
    pub async fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let _ = running.process.kill();
        let ended = tokio::task::spawn_blocking(move || running.end());
        ended.await.expect("it is waited for");
    }

    /// SIGSTOP: it is there, and does nothing.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_child(&self.running().process);
        kill_process(pid, signal).expect("it runs");
    }
}

impl Running {
    fn end(mut self) {
        let _ = self.process.wait();
        let _ = self.reader.join();
    }
}
