//! Requests that wait for a backend: one queue per pool, for all threads, first come first served
//! among those who could use the same backend.
//!
//! Only waiting requests touch the mutex, and whoever frees a slot while somebody waits. There are
//! two ways out. A change of how backends stand calls the first who waits for anybody; a [`Ticket`]
//! that is dropped, because its request went on or its client went away, calls the next. Where
//! backends take a limited number, a slot that comes free is handed over under the mutex, and is
//! never seen free by others: nobody overtakes, and the limit holds.
//!
//! What may concern others than the first, such as a reload, makes a round: one after the other is
//! called, the next when the one before has gone or stays.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::backend::Vitals;
use super::status::{Standing, admits};
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, Notify};

#[derive(Default)]
pub struct Hold {
    waiting: AtomicUsize,
    /// Those of them whom any backend could serve.
    unbound: AtomicUsize,
    queue: Mutex<VecDeque<Waiter>>,
}

struct Waiter {
    called: Arc<Notify>,
    /// Waits for this backend alone.
    wants: Option<Arc<Vitals>>,
    /// Has a slot of this backend, and has not taken it yet.
    slot: Option<Arc<Vitals>>,
    /// Has yet to look, in the round that is being made.
    due: bool,
}

impl Waiter {
    fn could_use(&self, vitals: &Arc<Vitals>) -> bool {
        match &self.wants {
            None => vitals.is_seated() && vitals.standing() == Standing::Open,
            Some(wants) => Arc::ptr_eq(wants, vitals) && admits(vitals.standing(), true),
        }
    }
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The place of the backend that it is bound to, where only that one will do.
    pub wants: Option<usize>,
    /// For a slot, not for somebody to come up.
    pub full: bool,
    /// Because others stood there before. Whether anybody could be picked was not asked.
    pub behind: bool,
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

    /// Whether somebody waits whom any backend could serve.
    pub fn has_unbound(&self) -> bool {
        self.unbound.load(Ordering::Acquire) > 0
    }

    /// Takes the last place, unless `max` requests wait already. `wants`: only this backend will do.
    pub fn join(self: &Arc<Self>, max: usize, wants: Option<&Arc<Vitals>>) -> Option<Ticket> {
        self.with(|queue| {
            if queue.len() >= max {
                return None;
            }
            let called = Arc::new(Notify::new());
            queue.push_back(Waiter { called: called.clone(), wants: wants.cloned(), slot: None, due: false });
            Some(Ticket { hold: self.clone(), called })
        })
    }

    /// Lets the first who waits for anybody try again.
    pub fn wake(&self) {
        self.with(|queue| {
            let head = queue.iter().find(|waiter| waiter.wants.is_none());
            head.inspect(|head| head.called.notify_one()).is_some()
        });
    }

    /// Lets those who wait for one backend look how it stands, one after the other.
    pub fn wake_bound(&self) {
        self.go_round(|waiter| waiter.wants.is_some());
    }

    /// Lets everybody look where they belong now, one after the other.
    pub fn wake_all(&self) {
        self.go_round(|_| true);
    }

    fn go_round(&self, concerns: impl Fn(&Waiter) -> bool) {
        if self.waiting() > 0 {
            self.with(|queue| {
                queue.iter_mut().filter(|waiter| concerns(waiter)).for_each(|waiter| waiter.due = true);
                call_due(queue);
            });
        }
    }

    /// Whether somebody waits who could use this backend.
    pub fn is_awaited(&self, vitals: &Arc<Vitals>) -> bool {
        self.waiting() > 0 && self.with(|queue| queue.iter().any(|waiter| waiter.could_use(vitals)))
    }

    /// A slot of the backend comes free: the first who could use it gets it.
    pub fn release(&self, vitals: &Arc<Vitals>) {
        if self.waiting() > 0 {
            self.with(|queue| {
                let over = vitals.load.is_over();
                if over || !hand_over(queue, vitals) {
                    vitals.load.end();
                }
            });
            return;
        }
        vitals.load.end();
        // Who joins now sees the slot, or is seen here.
        fence(Ordering::SeqCst);
        if self.waiting() > 0 {
            self.offer(vitals);
        }
    }

    /// Hands out the slots that the backend has free, where it counts them.
    pub fn offer(&self, vitals: &Arc<Vitals>) {
        if !vitals.load.is_limited() {
            return;
        }
        fence(Ordering::SeqCst);
        self.with(|queue| {
            while queue.iter().any(|waiter| waiter.slot.is_none() && waiter.could_use(vitals))
                && vitals.load.take(true).is_some()
            {
                hand_over(queue, vitals);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Waiter>) -> T) -> T {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut queue);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        let unbound = queue.iter().filter(|waiter| waiter.wants.is_none()).count();
        self.unbound.store(unbound, Ordering::Release);
        result
    }
}

/// Calls the first who has yet to look.
fn call_due(queue: &VecDeque<Waiter>) {
    if let Some(next) = queue.iter().find(|waiter| waiter.due) {
        next.called.notify_one();
    }
}

/// Gives a slot that is counted already to the first who could use it.
fn hand_over(queue: &mut VecDeque<Waiter>, vitals: &Arc<Vitals>) -> bool {
    let first = queue.iter_mut().find(|waiter| waiter.slot.is_none() && waiter.could_use(vitals));
    let Some(first) = first else { return false };
    first.slot = Some(vitals.clone());
    first.called.notify_one();
    true
}

impl Ticket {
    pub fn is_for(&self, hold: &Arc<Hold>) -> bool {
        Arc::ptr_eq(&self.hold, hold)
    }

    /// From now on only this backend will do, or any.
    pub fn wants(&self, wants: Option<&Arc<Vitals>>) {
        self.own(|waiter| waiter.wants = wants.cloned());
    }

    /// Takes the slot that was handed over, if it is one of this backend: it is counted.
    pub fn take(&self, vitals: &Arc<Vitals>) -> bool {
        self.own(|waiter| waiter.slot.take_if(|slot| Arc::ptr_eq(slot, vitals)).is_some()).unwrap_or(false)
    }

    /// Passes a slot on that was handed over and is of no use.
    pub fn give_up_slot(&self) {
        if let Some(slot) = self.own(|waiter| waiter.slot.take()).flatten() {
            self.hold.release(&slot);
        }
    }

    /// It has looked, and goes on waiting: in a round the next is called.
    pub fn stays(&self) {
        self.hold.with(|queue| {
            let own = queue.iter_mut().find(|waiter| Arc::ptr_eq(&waiter.called, &self.called));
            if own.is_some_and(|own| std::mem::take(&mut own.due)) {
                call_due(queue);
            }
        });
    }

    /// Lets it try at once if nobody stands before it: who was seen there has left and called nobody.
    pub fn call_if_first(&self) {
        self.hold.with(|queue| {
            let first = queue.iter().find(|waiter| waiter.wants.is_none());
            first
                .filter(|first| Arc::ptr_eq(&first.called, &self.called))
                .inspect(|own| own.called.notify_one());
        });
    }

    /// Waits until somebody called it. May be waited for again.
    pub async fn called(&self) {
        self.called.notified().await;
    }

    fn own<T>(&self, act: impl FnOnce(&mut Waiter) -> T) -> Option<T> {
        self.hold.with(|queue| {
            let own = queue.iter_mut().find(|waiter| Arc::ptr_eq(&waiter.called, &self.called));
            own.map(act)
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Out of the line first: or else the slot would be handed to the one who leaves.
        let slot = self.hold.with(|queue| {
            let own = queue.iter().position(|waiter| Arc::ptr_eq(&waiter.called, &self.called))?;
            let own = queue.remove(own)?;
            if own.due {
                call_due(queue);
            }
            own.slot
        });
        if let Some(slot) = slot {
            self.hold.release(&slot);
        }
        self.hold.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_in_line_goes_first_and_wakes_the_next() {
        let hold = Arc::new(Hold::default());
        let (first, second) = (hold.join(2, None).unwrap(), hold.join(2, None).unwrap());
        assert!(hold.join(2, None).is_none(), "two is the limit");
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
        let (first, second) = (hold.join(9, None).unwrap(), hold.join(9, None).unwrap());
        hold.wake();
        drop(first);
        second.called().await;
    }

    #[tokio::test]
    async fn in_a_round_each_is_called_when_the_one_before_has_looked() {
        let hold = Arc::new(Hold::default());
        let [first, second, third] = [(); 3].map(|()| hold.join(9, None).unwrap());
        hold.wake_all();
        first.called().await;
        assert!(tokio_test_pending(second.called()).await, "the first has yet to decide");
        first.stays();
        second.called().await;
        assert!(tokio_test_pending(third.called()).await);
        drop(second);
        third.called().await;
        third.stays();
        first.called().await;
        assert!(tokio_test_pending(first.called()).await, "who leaves calls the first, and that is all");
        drop(third);
        assert!(!tokio_test_pending(first.called()).await);
    }

    /// A backend that takes one request, which is in flight.
    fn busy() -> Arc<Vitals> {
        let telemetry = crate::telemetry::Telemetry::new(1);
        let vitals =
            Vitals::new("app", "a", Vec::new(), telemetry.backend("app", "a"), 1, std::time::Instant::now());
        vitals.set_standing(Standing::Open, false);
        vitals.set_seated(true);
        vitals.load.limit(1);
        assert_eq!(vitals.load.take(true), Some(true));
        Arc::new(vitals)
    }

    #[test]
    fn a_slot_of_one_who_leaves_goes_to_the_next_and_in_the_end_is_free() {
        let (hold, backend) = (Arc::new(Hold::default()), busy());
        let (first, second) = (hold.join(9, None).unwrap(), hold.join(9, None).unwrap());
        hold.release(&backend);
        drop(first);
        assert!(second.take(&backend), "it is handed on");
        drop(second);
        hold.release(&backend);
        assert_eq!(backend.load.in_flight(), 0);
        let (last, busy) = (hold.join(9, Some(&backend)).unwrap(), backend.load.take(true));
        assert_eq!(busy, Some(true));
        hold.release(&backend);
        drop(last);
        assert_eq!(backend.load.in_flight(), 0, "nobody is left to have it");
    }

    /// Whether `future` is still pending when polled once.
    async fn tokio_test_pending(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
