//! A data thread's end of the access log: [`Sink`].

use std::cell::RefCell;
use std::sync::Arc;

use super::queue::Lines;
use super::record::{Record, write};
use super::{Shared, StampCache};

/// A buffer that is this full goes to the writer at once.
const HAND_OVER: usize = 32 * 1024;

/// Collects one thread's lines and hands them to the writer. A reload changes what it does
/// without its owner noticing.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    buffer: RefCell<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Lines,
    clock: StampCache,
}

impl Sink {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: RefCell::default() }
    }

    /// Whether a record would be written: look before gathering one.
    pub fn enabled(&self) -> bool {
        self.shared.format().is_some()
    }

    pub fn push(&self, record: &Record<'_>) {
        let Some(format) = self.shared.format() else { return };
        let full = {
            let Buffer { lines, clock } = &mut *self.buffer.borrow_mut();
            write(format, record, clock, &mut lines.bytes);
            lines.count += 1;
            lines.bytes.len() >= HAND_OVER
        };
        if full {
            self.flush();
        }
    }

    /// Whether lines wait here that the writer has not got yet.
    pub fn pending(&self) -> bool {
        self.buffer.borrow().lines.count > 0
    }

    /// Hands over what waits. With `on_full = "block"` this may block, as the operator wished.
    pub fn flush(&self) {
        let lines = std::mem::take(&mut self.buffer.borrow_mut().lines);
        if lines.count > 0 {
            self.shared.hand_over(lines);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}
