//! The real Pintle as a process: its file, its commands, what it tells and what it logs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::keeper::Keeper;

/// How long anything that it is asked may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition that nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(25);

pub struct Balancer {
    program: PathBuf,
    /// The first one: after an upgrade it is gone.
    process: Option<Child>,
    pub folder: PathBuf,
    /// Of the listener.
    pub address: SocketAddr,
}

/// What a command left behind.
pub struct Ended {
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Something that Pintle told.
pub struct Event {
    pub at: SystemTime,
    pub kind: String,
    pub backend: String,
    pub message: String,
}

impl Balancer {
    /// Starts it with this file, which [`Balancer::edit`] completes, and waits until it is ready.
    pub async fn start(keeper: &Keeper, program: &Path, name: &str, text: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pintle-chaos-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the run");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut balancer = Self { program: program.to_owned(), process: None, folder, address };
        balancer.edit(text);
        let mut command = balancer.command(&["serve", "-c", "pintle.toml"]);
        command.stdout(balancer.create("access.log")).stderr(balancer.create("events.log"));
        keeper.keep(&mut command);
        balancer.process = Some(command.spawn().expect("Pintle can be started"));
        balancer.eventually("it is ready", async |this| this.ask("GET", "/readyz", "").await.0 == 200).await;
        let status = balancer.status().await;
        let listeners = status["listeners"].as_array().expect("listeners");
        let web = listeners.iter().find(|listener| listener["name"] == "web").expect("the listener");
        balancer.address =
            web["addresses"][0].as_str().and_then(|text| text.parse().ok()).expect("an address");
        balancer
    }

    fn create(&self, name: &str) -> Stdio {
        File::create(self.folder.join(name)).expect("a file of the run").into()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PINTLE_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Runs a command about this Pintle to its end, while everything else goes on.
    pub fn run(&self, keeper: Rc<Keeper>, arguments: Vec<String>) -> impl Future<Output = Ended> + use<> {
        let mut command = self.command(&["--admin", "admin.sock"]);
        command.args(arguments);
        keeper.keep(&mut command);
        async {
            let output = tokio::task::spawn_blocking(move || command.output());
            let output = output.await.expect("it is waited for").expect("Pintle can be started");
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ended { exit: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
        }
    }

    /// Writes the file anew, in one step as an editor does.
    pub fn edit(&self, text: &str) {
        let text = format!(
            "[admin]\nsocket = {:?}\nbind = \"off\"\n[server]\nworkers = 2\ndrain_timeout = \"60s\"\n\
             trusted_proxies = [\"127.0.0.0/8\"]\n[listener.web]\nbind = \"127.0.0.1:0\"\n{text}",
            self.folder.join("admin.sock")
        );
        self.write(&text);
    }

    /// Writes the file as it is given.
    pub fn write(&self, text: &str) {
        let new = self.folder.join("pintle.toml.new");
        std::fs::write(&new, text).expect("a file of the run");
        std::fs::rename(&new, self.folder.join("pintle.toml")).expect("a file of the run");
    }

    /// Asks the admin socket: the status, and the body. 0 while nobody answers.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let ask = async {
            let mut stream = UnixStream::connect(self.folder.join("admin.sock")).await?;
            let length = body.len();
            let text = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, ask).await;
        let answer = answer.ok().and_then(Result::ok).unwrap_or_default();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.ask("GET", "/v1/status", "").await.1).unwrap_or_default()
    }

    pub async fn generation(&self) -> u64 {
        self.status().await["generation"].as_u64().unwrap_or(0)
    }

    /// The process that answers now.
    pub async fn pid(&self) -> u64 {
        self.status().await["pid"].as_u64().expect("a process id")
    }

    /// Reads the file again: the status, and what it says.
    pub async fn reload(&self) -> (u16, String) {
        self.ask("POST", "/v1/reload", "").await
    }

    /// Waits until `condition` holds.
    pub async fn eventually(&self, what: &str, mut condition: impl AsyncFnMut(&Self) -> bool) {
        let wait = async {
            while !condition(self).await {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("waited {PATIENCE:?} in vain: {what}\n{}", self.told());
        }
    }

    /// Waits until every backend is active and up.
    pub async fn well(&self) {
        self.eventually("every backend is up", async |this| {
            let status = this.status().await;
            let pools = status["pools"].as_array().into_iter().flatten();
            let mut backends = pools.flat_map(|pool| pool["backends"].as_array().into_iter().flatten());
            status["pid"].is_u64()
                && backends.all(|one| one["state"] == "active" && one["health"]["status"] == "up")
        })
        .await;
    }

    /// All that it has told so far.
    pub fn told(&self) -> String {
        std::fs::read_to_string(self.folder.join("events.log")).unwrap_or_default()
    }

    pub fn events(&self) -> Vec<Event> {
        let text = self.told();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let word = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let event = |line: Value| {
            let at = humantime::parse_rfc3339(line["ts"].as_str()?).ok()?;
            let (kind, backend) = (word(&line, "event"), word(&line, "backend"));
            Some(Event { at, kind, backend, message: word(&line, "message") })
        };
        lines.filter_map(event).collect()
    }

    /// Where the access log ends now.
    pub fn log_mark(&self) -> u64 {
        std::fs::metadata(self.folder.join("access.log")).map_or(0, |file| file.len())
    }

    /// The lines of the access log since then.
    pub fn log_since(&self, mark: u64) -> Vec<Value> {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.folder.join("access.log")) {
            let _ = file.seek(SeekFrom::Start(mark)).and_then(|_| file.read_to_string(&mut text));
        }
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
