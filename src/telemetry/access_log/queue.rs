//! What waits for the writer thread: [`Queue`], bounded in bytes, in order.
//!
//! Touched once per handed-over buffer, never per line, so a mutex is cheap enough.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::output::Output;
use crate::plan::OnFull;

/// Bytes that may wait before `on_full` decides.
pub(crate) const QUEUE_LIMIT: usize = 4 * 1024 * 1024;

/// Whole lines, and how many.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u64,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Message {
    Write(Lines),
    /// Everything that follows goes here.
    Switch(Output),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something came, or the end.
    arrived: Condvar,
    /// Something was finished, so there is room.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    /// Of the lines that wait or are being written.
    bytes: usize,
    /// The writer is at work on a message that is no longer in `messages`.
    busy: bool,
    closed: bool,
}

impl Queue {
    /// Hands lines to the writer. Gives them back where they find no room, or nobody writes any more.
    pub(crate) fn offer(&self, lines: Lines, on_full: OnFull) -> Result<(), Lines> {
        let mut state = self.lock();
        while state.bytes + lines.bytes.len() > QUEUE_LIMIT && on_full == OnFull::Block && !state.closed {
            state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.bytes + lines.bytes.len() > QUEUE_LIMIT {
            return Err(lines);
        }
        state.bytes += lines.bytes.len();
        state.messages.push_back(Message::Write(lines));
        self.arrived.notify_one();
        Ok(())
    }

    /// Not bounded: only an operator switches.
    pub(crate) fn switch(&self, output: Output) {
        self.lock().messages.push_back(Message::Switch(output));
        self.arrived.notify_one();
    }

    /// The writer's side: waits for the next message; `None` at the end.
    pub(crate) fn next(&self) -> Option<Message> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                state.busy = true;
                return Some(message);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The writer's side: the message it took, of so many bytes, is done with.
    pub(crate) fn done(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes -= bytes;
        state.busy = false;
        self.finished.notify_all();
    }

    /// Takes nothing new; what waits is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
        self.finished.notify_all();
    }

    /// Waits until everything is written, at most for `patience`. Whether it is.
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.busy || !state.messages.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.finished.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: usize) -> Lines {
        Lines { bytes: vec![b'x'; bytes], count: 1 }
    }

    /// Plays the writer for one message.
    fn write_one(queue: &Queue) {
        let Some(Message::Write(lines)) = queue.next() else { panic!("lines were queued") };
        queue.done(lines.bytes.len());
    }

    #[test]
    fn what_finds_no_room_is_given_back_and_room_returns_when_it_is_written() {
        let queue = Queue::default();
        queue.offer(lines(QUEUE_LIMIT), OnFull::Drop).expect("it is empty");
        assert!(queue.offer(lines(1), OnFull::Drop).is_err());
        let taken = queue.next();
        assert!(
            taken.is_some() && queue.offer(lines(1), OnFull::Drop).is_err(),
            "being written still counts"
        );
        queue.done(QUEUE_LIMIT);
        queue.offer(lines(1), OnFull::Drop).expect("there is room again");
    }

    #[test]
    fn a_blocking_offer_waits_for_room_and_gives_up_when_the_log_closes() {
        let queue = Queue::default();
        queue.offer(lines(QUEUE_LIMIT), OnFull::Block).expect("it is empty");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.offer(lines(QUEUE_LIMIT), OnFull::Block).is_ok());
            write_one(&queue);
            assert!(waiting.join().expect("no panic"));
            let late = scope.spawn(|| queue.offer(lines(1), OnFull::Block).is_err());
            queue.close();
            assert!(late.join().expect("no panic"));
        });
        write_one(&queue);
        assert!(queue.offer(lines(1), OnFull::Drop).is_err(), "there is room, but nobody to write");
        assert!(queue.next().is_none());
    }

    #[test]
    fn settling_gives_up_when_nobody_writes() {
        let queue = Queue::default();
        assert!(queue.settle(Duration::ZERO));
        queue.offer(lines(1), OnFull::Drop).expect("it is empty");
        assert!(!queue.settle(Duration::from_millis(1)));
    }
}
