//! The old process's dialogue with the new one, on a thread of its own: it may take as long as the
//! limit allows, and nobody waits for it but who asked.
//!
//! Start at [`Attempt::start`]. What follows from the outcome is the control thread's.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::heir::FROM;
use crate::admin::handover::{self, Offer, Reply};
use crate::listen::pass;

/// What the new process says on stderr before it is ready and that is told to who asked.
const LAST_LINES: usize = 20;

/// Bytes of one such line; what is longer counts as several.
const MAX_LINE: u64 = 1024;

/// How long a process that has closed its line may take to exit.
const EXIT_WITHIN: Duration = Duration::from_secs(1);

/// Between looks at whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Variables that were meant for this process alone: sockets that it has taken, a watchdog that
/// knows it by its number.
const OURS: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

pub struct Attempt {
    pub command: Command,
    pub offer: Offer,
    pub descriptors: Vec<OwnedFd>,
    pub limit: Duration,
}

/// How it went; the reason in a person's words.
pub type Outcome = Result<Successor, String>;

/// A new process that is ready and waits for the last word.
pub struct Successor {
    pub pid: u32,
    pub version: String,
    /// It ends with this process, which is how the new one knows.
    pub line: UnixStream,
    child: Child,
}

impl Successor {
    pub fn give_up(mut self) {
        end(&mut self.child);
    }
}

impl Attempt {
    pub fn start(self, outcomes: mpsc::Sender<Outcome>) -> io::Result<()> {
        let thread = thread::Builder::new().name("pintle-upgrade".into());
        thread.spawn(move || {
            let outcome = self.run();
            if let Err(unheard) = outcomes.blocking_send(outcome)
                && let Ok(successor) = unheard.0
            {
                successor.give_up();
            }
        })?;
        Ok(())
    }

    fn run(mut self) -> Outcome {
        let deadline = Instant::now() + self.limit;
        let binary = self.command.get_program().to_string_lossy().into_owned();
        let (line, mut child) = self.spawn().map_err(|error| format!("cannot start `{binary}`: {error}"))?;
        let last_words = LastWords::follow(&mut child);
        match self.speak(&line, deadline) {
            Ok(Reply::Ready { version }) => Ok(Successor { pid: child.id(), version, line, child }),
            Ok(Reply::Refused { why }) => {
                end(&mut child);
                Err(format!("`{binary}` refused: {}", why.trim_end()))
            }
            Err(error) => {
                let timed_out = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
                let exited = if timed_out { None } else { exit_of(&mut child) };
                end(&mut child);
                let what = match exited {
                    Some(status) => format!("`{binary}` ended before it was ready ({status})"),
                    None if timed_out => {
                        let limit = humantime::format_duration(self.limit);
                        format!("`{binary}` was not ready within {limit}")
                    }
                    None => format!("`{binary}` was not understood: {error}"),
                };
                Err(what + &last_words.told())
            }
        }
    }

    fn spawn(&mut self) -> io::Result<(UnixStream, Child)> {
        let (ours, theirs) = UnixStream::pair()?;
        for name in OURS {
            self.command.env_remove(name);
        }
        self.command.env(FROM, std::process::id().to_string());
        self.command.stdin(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::piped());
        let child = self.command.spawn();
        // The command keeps its own handle on the line, which would hide that the process is gone.
        self.command.stdin(Stdio::null());
        Ok((ours, child?))
    }

    fn speak(&self, line: &UnixStream, deadline: Instant) -> io::Result<Reply> {
        handover::write(line, &self.offer, deadline)?;
        pass::send(line, &self.descriptors.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        handover::read(line, deadline)
    }
}

/// What a process says on stderr before it has another one: repeated here, the last of it kept.
struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl LastWords {
    fn follow(child: &mut Child) -> Self {
        let lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (stderr, kept) = (child.stderr.take(), lines.clone());
        let reader = stderr.and_then(|stderr| {
            let thread = thread::Builder::new().name("pintle-stderr".into());
            thread.spawn(move || repeat(BufReader::new(stderr), &kept)).ok()
        });
        Self { lines, reader }
    }

    /// After the process has ended; nothing where it said nothing.
    fn told(self) -> String {
        let deadline = Instant::now() + EXIT_WITHIN;
        // A grandchild may hold stderr for ever.
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| text + "\n  " + line)
    }
}

fn repeat(mut from: impl BufRead, lines: &Mutex<VecDeque<String>>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // Without a stderr there is nobody to tell.
        let _ = io::stderr().lock().write_all(&line);
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

/// How it ended, if it does so soon.
fn exit_of(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + EXIT_WITHIN;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(LOOK);
    }
    None
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}
