//! Folders and children of one test's own. Start at [`Running`].

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Backend, Client, eventually, within};

/// A folder that goes with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pintle-bin-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A file with an admin socket in this folder and a listener on a free port.
    pub fn config(&self, text: &str) -> String {
        let socket = self.path("admin.sock");
        format!(
            "[admin]\nsocket = {socket:?}\nbind = \"off\"\n[listener.web]\nbind = \"127.0.0.1:0\"\n\
             [server]\nworkers = 2\n{text}\n"
        )
    }

    /// The program, in this folder and with nothing of ours in its environment.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PINTLE_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.0).env("XDG_RUNTIME_DIR", &self.0).env("TMPDIR", &self.0);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        end(self.command(arguments)).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command to its end while everything else goes on.
pub async fn end(mut command: Command) -> Ended {
    let output = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = within("a command ends", output).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { exit: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// An address that nobody listens on at this moment.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A running Pintle. It dies with this value, and so do those that have taken over from it.
pub struct Running {
    child: Child,
    pub folder: Folder,
    /// As `--admin` takes it.
    pub admin: String,
}

impl Running {
    /// Runs a file over these backends, in a pool named `app`, with further lines of the pool.
    pub async fn over(backends: &[&Backend], lines: &str) -> Self {
        Self::file(&pool(backends, lines)).await
    }

    /// Runs a file, completed by [`Folder::config`].
    pub async fn file(text: &str) -> Self {
        let folder = Folder::new();
        folder.write("pintle.toml", &folder.config(text));
        let socket = folder.path("admin.sock").display().to_string();
        Self::start(folder, &["serve", "-c", "pintle.toml"], &socket).await
    }

    /// Starts the program and waits until it is ready.
    pub async fn start(folder: Folder, arguments: &[&str], admin: &str) -> Self {
        let command = folder.command(arguments);
        Self::spawn(folder, command, admin).await
    }

    pub async fn spawn(folder: Folder, command: Command, admin: &str) -> Self {
        let stdout = File::create(folder.path("stdout")).unwrap();
        Self::spawn_to(folder, command, admin, stdout.into()).await
    }

    /// As [`Running::spawn`], with another place for the access log.
    pub async fn spawn_to(folder: Folder, mut command: Command, admin: &str, stdout: Stdio) -> Self {
        command.stdout(stdout);
        command.stderr(File::create(folder.path("stderr")).unwrap());
        let child = command.process_group(0).spawn().unwrap();
        let mut running = Self { child, folder, admin: admin.to_owned() };
        let ready = async || {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", running.folder.read("stderr"));
            }
            get(&running.admin, "/readyz").await.starts_with("HTTP/1.1 200")
        };
        eventually("it is ready", ready).await;
        running
    }

    /// A command about this Pintle, run to its end.
    pub async fn command(&self, arguments: &[&str]) -> Ended {
        let arguments = [&["--admin", &self.admin][..], arguments].concat();
        self.folder.run(&arguments).await
    }

    pub async fn status(&self) -> serde_json::Value {
        self.command(&["status", "--json"]).await.json()
    }

    /// The process that answers now.
    pub async fn pid(&self) -> u64 {
        self.status().await["pid"].as_u64().unwrap()
    }

    /// Replaces the process by another, which has to succeed.
    pub async fn upgrade(&self) {
        let before = self.pid().await;
        let upgraded = self.command(&["upgrade"]).await;
        assert_eq!(upgraded.exit, Some(0), "{upgraded:?}\n{}", self.told());
        assert_ne!(self.pid().await, before);
    }

    pub async fn generation(&self) -> u64 {
        let answer = get(&self.admin, "/v1/status").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        status["generation"].as_u64().unwrap()
    }

    pub async fn client(&self) -> Client {
        let status = self.status().await;
        Client::new(status["listeners"][0]["addresses"][0].as_str().unwrap().parse().unwrap())
    }

    /// Where each listener listens, the one of [`Folder::config`] first.
    pub async fn addresses<const N: usize>(&self) -> [SocketAddr; N] {
        let status = self.status().await;
        let mut listeners = status["listeners"].as_array().unwrap().clone();
        listeners.sort_by_key(|listener| listener["name"] != "web");
        let address = |listener: &serde_json::Value| listener["addresses"][0].as_str().unwrap().parse();
        let found: Vec<_> = listeners.iter().map(|listener| address(listener).unwrap()).collect();
        found.try_into().unwrap()
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    /// Memory of its own, in KiB.
    pub fn anonymous_kib(&self) -> usize {
        let text = std::fs::read_to_string(self.proc("smaps_rollup")).unwrap();
        let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Time on a CPU so far, counted in hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(10 * ticks)
    }

    /// Writes the file anew.
    pub fn edit(&self, text: &str) {
        self.folder.write("pintle.toml", &self.folder.config(text));
    }

    /// What it has told so far.
    pub fn told(&self) -> String {
        self.folder.read("stderr")
    }

    /// Waits for a line on stderr.
    pub async fn tells(&self, what: &str) -> String {
        let find = || self.told().lines().find(|line| line.contains(what)).map(str::to_owned);
        eventually(&format!("it tells {what:?}"), async || find().is_some()).await;
        find().expect("found just now")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// `[pool.app]` over these backends.
pub fn pool(backends: &[&Backend], lines: &str) -> String {
    let backends: Vec<_> = backends.iter().map(|backend| backend.toml("")).collect();
    format!("[pool.app]\nbackends = [{}]\n{lines}", backends.join(", "))
}

/// A GET to an admin address or socket: head and body; nothing while nobody answers.
pub async fn get(admin: &str, path: &str) -> String {
    async fn ask(
        mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
        path: &str,
    ) -> std::io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
    let answer = async {
        match Path::new(admin).is_absolute() {
            true => ask(UnixStream::connect(admin).await?, path).await,
            false => ask(TcpStream::connect(admin).await?, path).await,
        }
    };
    within("an admin answer", answer).await.unwrap_or_default()
}
