//! Time limits that cost next to nothing: one coarse wheel per thread.
//!
//! Start at [`Timer`]. Setting a limit is a store into a cell; only when none of an entry's
//! earlier places in the wheel would wake it in time is it queued again. The wheel turns in
//! steps of [`STEP`], sleeps while it is empty, is never early and at most a step late.
//! A timer also carries what else ends a wait: a cut by whoever owns it, and, for a tunnel, the word
//! that it should come to an end by itself.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub const STEP: Duration = Duration::from_millis(100);

/// No entry is queued further ahead than this many steps: an entry whose owner is gone leaves
/// the wheel after two seconds, so short-lived connections cannot pile up in it.
const HORIZON: u64 = 20;

const NEVER: u64 = u64::MAX;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The deadline has passed.
    Due,
    /// Somebody asked for it: a drain's deadline, a shutdown.
    Cut,
}

/// One thread's wheel. Clones share it.
#[derive(Clone)]
pub struct Wheel(Rc<Inner>);

struct Inner {
    start: Instant,
    slots: RefCell<BTreeMap<u64, Vec<Rc<Entry>>>>,
    /// The step the driver sleeps until.
    next: Cell<u64>,
    sooner: Notify,
}

struct Entry {
    due: Cell<u64>,
    /// The earliest slot that holds this entry.
    queued: Cell<u64>,
    fired: Cell<Option<Wake>>,
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Wheel {
    pub fn new(start: Instant) -> Self {
        let inner = Inner { start, slots: RefCell::default(), next: Cell::new(NEVER), sooner: Notify::new() };
        Self(Rc::new(inner))
    }

    /// Turns the wheel for ever; one task per thread.
    pub async fn run(&self) {
        loop {
            let next = self.0.slots.borrow().first_key_value().map_or(NEVER, |(slot, _)| *slot);
            self.0.next.set(next);
            let sooner = self.0.sooner.notified();
            if next == NEVER {
                sooner.await;
                continue;
            }
            let at = self.0.start + STEP * u32::try_from(next).unwrap_or(u32::MAX);
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => self.turn(self.step_of(Instant::now())),
                () = sooner => {}
            }
        }
    }

    /// Fires what is due at `now` and queues again what was moved to later.
    fn turn(&self, now: u64) {
        loop {
            let entries = {
                let mut slots = self.0.slots.borrow_mut();
                match slots.first_entry() {
                    Some(slot) if *slot.key() <= now => slot.remove_entry(),
                    _ => return,
                }
            };
            let (slot, entries) = entries;
            for entry in entries.into_iter().filter(|entry| entry.queued.get() == slot) {
                entry.queued.set(NEVER);
                if entry.due.get() <= now {
                    entry.due.set(NEVER);
                    entry.fire(Wake::Due);
                } else if Rc::strong_count(&entry) > 1 {
                    self.queue(&entry, now);
                }
            }
        }
    }

    fn queue(&self, entry: &Rc<Entry>, now: u64) {
        let slot = entry.due.get().min(now + HORIZON);
        if entry.due.get() == NEVER || slot >= entry.queued.get() {
            return;
        }
        entry.queued.set(slot);
        self.0.slots.borrow_mut().entry(slot).or_default().push(entry.clone());
        if slot < self.0.next.get() {
            self.0.sooner.notify_one();
        }
    }

    /// The last step that began at or before `at`.
    fn step_of(&self, at: Instant) -> u64 {
        let nanos = u64::try_from(at.saturating_duration_since(self.0.start).as_nanos()).unwrap_or(NEVER);
        nanos / STEP.as_nanos() as u64
    }
}

impl Entry {
    fn fire(&self, why: Wake) {
        self.fired.set(Some(why));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// One limit at a time for one task. Clones are the same timer.
#[derive(Clone)]
pub struct Timer {
    entry: Rc<Entry>,
    wheel: Wheel,
}

impl Timer {
    pub fn new(wheel: &Wheel) -> Self {
        let entry = Entry {
            due: Cell::new(NEVER),
            queued: Cell::new(NEVER),
            fired: Cell::new(None),
            told: Cell::new(false),
            waker: RefCell::default(),
        };
        Self { entry: Rc::new(entry), wheel: wheel.clone() }
    }

    /// From now on the timer is due `after` from `now`. Replaces an earlier limit, not a cut.
    pub fn set(&self, now: Instant, after: Duration) {
        let due = now.checked_add(after).map_or(NEVER, |at| self.wheel.step_of(at).saturating_add(1));
        self.entry.due.set(due);
        if self.entry.fired.get() == Some(Wake::Due) {
            self.entry.fired.set(None);
        }
        if self.entry.queued.get() > due {
            self.wheel.queue(&self.entry, self.wheel.step_of(now));
        }
    }

    /// No limit any more; a cut stays.
    pub fn disarm(&self) {
        self.entry.due.set(NEVER);
        if self.entry.fired.get() == Some(Wake::Due) {
            self.entry.fired.set(None);
        }
    }

    /// No limit any more; forgets a cut as well.
    pub fn clear(&self) {
        self.entry.due.set(NEVER);
        self.entry.fired.set(None);
    }

    /// Ends the wait of whoever polls this timer, now or next.
    pub fn cut(&self) {
        self.entry.fire(Wake::Cut);
    }

    /// Whoever polls this timer should come to an end when it suits; no wait is over for that.
    pub fn tell(&self) {
        self.entry.told.set(true);
        self.entry.wake();
    }

    pub fn is_told(&self) -> bool {
        self.entry.told.get()
    }

    pub fn is_cut(&self) -> bool {
        self.entry.fired.get() == Some(Wake::Cut)
    }

    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Some(why) = self.entry.fired.get() {
            return Poll::Ready(why);
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for `future` no longer than the limit that is set.
    pub async fn limit<F: Future>(&self, future: F) -> Result<F::Output, Wake> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }
}

/// How long something is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At most so long without a sign of life.
    pub pause: Duration,
    /// However lively it is, no longer than this.
    pub until: Option<Instant>,
}

impl Patience {
    /// How long to wait after a sign of life.
    pub fn after(&self, sign: Instant) -> Duration {
        self.until.map_or(self.pause, |until| self.pause.min(until.saturating_duration_since(sign)))
    }

    pub fn is_over(&self, now: impl FnOnce() -> Instant) -> bool {
        self.until.is_some_and(|until| until <= now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn on_a_wheel<F: Future<Output = ()>>(test: impl FnOnce(Wheel) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wheel = Wheel::new(Instant::now());
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let turning = wheel.clone();
            tokio::task::spawn_local(async move { turning.run().await });
            test(wheel).await;
        });
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_two_steps_late() {
        on_a_wheel(|wheel| async move {
            for millis in [30, 100, 250] {
                let timer = Timer::new(&wheel);
                let (start, limit) = (Instant::now(), Duration::from_millis(millis));
                timer.set(start, limit);
                assert_eq!(timer.limit(pending::<()>()).await, Err(Wake::Due));
                let took = start.elapsed();
                assert!(took >= limit, "early: {took:?} for {limit:?}");
                assert!(took < limit + 10 * STEP, "late: {took:?} for {limit:?}");
            }
        });
    }

    #[test]
    fn a_limit_moved_earlier_fires_earlier_and_one_moved_later_fires_later() {
        on_a_wheel(|wheel| async move {
            let timer = Timer::new(&wheel);
            let start = Instant::now();
            timer.set(start, Duration::from_secs(60));
            timer.set(start, Duration::from_millis(150));
            assert_eq!(timer.limit(pending::<()>()).await, Err(Wake::Due));
            assert!(start.elapsed() < Duration::from_secs(10));

            let start = Instant::now();
            timer.set(start, Duration::from_millis(50));
            timer.set(start, Duration::from_millis(400));
            assert_eq!(timer.limit(pending::<()>()).await, Err(Wake::Due));
            assert!(start.elapsed() >= Duration::from_millis(400));
        });
    }

    #[test]
    fn a_cut_ends_the_wait_and_survives_a_new_limit() {
        on_a_wheel(|wheel| async move {
            let timer = Timer::new(&wheel);
            timer.cut();
            timer.set(Instant::now(), Duration::from_secs(60));
            assert_eq!(timer.limit(pending::<()>()).await, Err(Wake::Cut));
            timer.disarm();
            assert!(timer.is_cut());
            timer.clear();
            assert_eq!(timer.limit(std::future::ready(7)).await, Ok(7));
        });
    }

    #[test]
    fn a_limit_beyond_all_time_is_none() {
        let wheel = Wheel::new(Instant::now());
        Timer::new(&wheel).set(Instant::now(), Duration::MAX);
        assert!(wheel.0.slots.borrow().is_empty());
    }

    #[test]
    fn entries_whose_owner_is_gone_leave_the_wheel() {
        let wheel = Wheel::new(Instant::now());
        for _ in 0..1000 {
            Timer::new(&wheel).set(Instant::now(), Duration::from_secs(75));
        }
        wheel.turn(HORIZON + 1);
        assert!(wheel.0.slots.borrow().is_empty());
    }

    #[test]
    fn signs_of_life_prolong_a_pause_and_not_the_whole() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let patience = Patience { pause: 10 * second, until: Some(now + 15 * second) };
        assert_eq!(patience.after(now), 10 * second);
        assert_eq!(patience.after(now + 9 * second), 6 * second);
        assert_eq!(patience.after(now + 20 * second), Duration::ZERO);
        assert!(!patience.is_over(|| now + 14 * second) && patience.is_over(|| now + 15 * second));
        let endless = Patience { until: None, ..patience };
        assert_eq!(endless.after(now + 20 * second), 10 * second);
        assert!(!endless.is_over(|| now + 20 * second));
    }
}
