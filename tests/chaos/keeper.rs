//! One process that outlives the run by a moment, and ends all that the run has started.
//!
//! Everybody is in its process group. It reads from a pipe that only the run holds the other end of:
//! however the run ends (done, panic, SIGKILL), the pipe ends, and the group is killed, those that
//! are stopped included.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getpid, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

/// The first argument of the keeper.
pub const ROLE: &str = "--keeper";

/// What the keeper does.
pub fn run() -> ! {
    // A group that loses its parent while one of it is stopped gets a SIGHUP, from which the keeper
    // must not die: to Pintle it is an order to reload.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _caught = runtime.block_on(async { signal(SignalKind::hangup()).expect("signals can be caught") });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let _ = kill_process_group(getpid(), Signal::KILL);
    std::process::exit(0);
}

pub struct Keeper(Child);

impl Keeper {
    pub fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg(ROLE).stdin(Stdio::piped()).process_group(0);
        Self(command.spawn().expect("another process can be started"))
    }

    /// The command, to be ended with everybody else.
    pub fn keep(&self, command: &mut Command) {
        command.process_group(Pid::from_child(&self.0).as_raw_nonzero().get());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}
