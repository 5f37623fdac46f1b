//! What `src/sync.rs` is, made of loom's parts, which try every order of events.

pub use loom::sync::{Mutex, MutexGuard, atomic};

use loom::sync::Condvar;

/// One call is kept for who waits later, as tokio's is. Who waits blocks its thread: where nobody
/// calls, loom tells of a deadlock.
#[derive(Default)]
pub struct Notify {
    called: Mutex<bool>,
    calls: Condvar,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_one(&self) {
        *self.called.lock().expect("nobody panics with it") = true;
        self.calls.notify_one();
    }

    pub fn notified(&self) -> std::future::Ready<()> {
        let mut called = self.called.lock().expect("nobody panics with it");
        while !*called {
            called = self.calls.wait(called).expect("nobody panics with it");
        }
        *called = false;
        std::future::ready(())
    }
}
