//! Requests that wait for a backend: one queue per pool, for all threads, first come first served.
//!
//! Only waiting requests touch the mutex. Waking the head is enough: a [`Ticket`] that is
//! dropped, because its request went on or its client went away, wakes the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub struct Hold {
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Arc<Notify>>>,
}

/// A place in the queue.
pub struct Ticket {
    hold: Arc<Hold>,
    called: Arc<Notify>,
}

impl Hold {
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes the last place, unless `max` requests wait already.
    pub fn join(self: &Arc<Self>, max: usize) -> Option<Ticket> {
        self.with(|queue| {
            if queue.len() >= max {
                return None;
            }
            let called = Arc::new(Notify::new());
            queue.push_back(called.clone());
            Some(Ticket { hold: self.clone(), called })
        })
    }

    /// Lets the first in line try again.
    pub fn wake(&self) {
        self.with(|queue| queue.front().inspect(|head| head.notify_one()).is_some());
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Arc<Notify>>) -> T) -> T {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut queue);
        self.waiting.store(queue.len(), Ordering::Release);
        result
    }
}

impl Ticket {
    pub fn is_for(&self, hold: &Arc<Hold>) -> bool {
        Arc::ptr_eq(&self.hold, hold)
    }

    /// Waits until this place is the first and somebody called it. May be waited for again.
    pub async fn called(&self) {
        self.called.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hold.with(|queue| queue.retain(|other| !Arc::ptr_eq(other, &self.called)));
        self.hold.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_in_line_goes_first_and_wakes_the_next() {
        let hold = Arc::new(Hold::default());
        let (first, second) = (hold.join(2).unwrap(), hold.join(2).unwrap());
        assert!(hold.join(2).is_none(), "two is the limit");
        hold.wake();
        first.called().await;
        let waits = tokio_test_pending(second.called());
        assert!(waits.await, "the second is not called while the first stands before it");
        drop(first);
        second.called().await;
        drop(second);
        assert_eq!(hold.waiting(), 0);
    }

    #[tokio::test]
    async fn a_head_that_goes_away_passes_its_call_on() {
        let hold = Arc::new(Hold::default());
        let (first, second) = (hold.join(9).unwrap(), hold.join(9).unwrap());
        hold.wake();
        drop(first);
        second.called().await;
    }

    /// Whether `future` is still pending when polled once.
    async fn tokio_test_pending(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
