//! The brake of a connection to a backend: while the client of its answer takes nothing, nothing
//! more of that answer is read.
//!
//! Without it the codec reads one more piece than anybody asks for, and each stalled client holds two.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Shared by who holds it down and by the connection's own task. One thread only.
#[derive(Clone, Default)]
pub struct Brake(Rc<State>);

#[derive(Default)]
struct State {
    on: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Brake {
    /// On or off; off lets the connection's task go on.
    pub fn set(&self, on: bool) {
        if self.0.on.replace(on)
            && !on
            && let Some(waker) = self.0.waker.take()
        {
            waker.wake();
        }
    }

    /// Whether the connection has to wait. If so, its task is woken when it may go on.
    pub fn holds(&self, cx: &Context<'_>) -> bool {
        let on = self.0.on.get();
        if on {
            self.0.waker.replace(Some(cx.waker().clone()));
        }
        on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_that_it_held_is_woken_once_when_it_is_let_go() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let (cx, brake) = (Context::from_waker(&waker), Brake::default());
        assert!(!brake.holds(&cx));
        brake.set(true);
        brake.set(true);
        assert!(brake.holds(&cx) && brake.holds(&cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        brake.set(false);
        brake.set(false);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(!brake.holds(&cx));
    }
}
