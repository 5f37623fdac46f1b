//! The access log: one line per exchange, written when it ends.
//!
//! Start at [`AccessLog`]. Each data thread formats into the buffer of its own [`Sink`]; one
//! writer thread does the input and output, so that a slow disk never stops a request unless the
//! operator chose `on_full = "block"`. What a line looks like is in `record`.

mod output;
mod queue;
mod record;
mod sink;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::output::Output;
use self::queue::{Lines, Message, Queue};
use super::Telemetry;
use crate::plan::{AccessLogPlan, LogOutput, OnFull};

pub use self::record::{Format, Record, write};
pub use self::sink::Sink;
pub use super::stamp::StampCache;

/// The access log of the process: hands out sinks, follows reloads, owns the writer.
///
/// Sinks and the writer live as long as the process; a reload changes format, output and
/// `on_full` under them. When it is dropped the writer finishes what it has and ends.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    /// Where lines go now; `None` while the log has never been on.
    current: Mutex<Option<LogOutput>>,
}

/// A change that has been prepared; applying it cannot fail.
#[derive(Debug)]
pub struct Prepared {
    format: Option<Format>,
    on_full: OnFull,
    /// Opened, where lines are to go elsewhere than now.
    switch: Option<(LogOutput, Output)>,
}

impl AccessLog {
    /// Opens the output and starts the writer.
    pub fn start(plan: &AccessLogPlan, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let log = Self { shared: Arc::new(Shared::new(telemetry)), current: Mutex::default() };
        log.apply(log.prepare(plan)?);
        let shared = Arc::clone(&log.shared);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || shared.write_all())?;
        Ok(log)
    }

    /// For one data thread.
    pub fn sink(&self) -> Sink {
        Sink::new(Arc::clone(&self.shared))
    }

    /// Everything about a new plan that can fail: opening its output.
    pub fn prepare(&self, plan: &AccessLogPlan) -> io::Result<Prepared> {
        let elsewhere = plan.enabled && self.current().as_ref() != Some(&plan.output);
        Ok(Prepared {
            format: plan.enabled.then(|| output::settle(plan.format, &plan.output)),
            on_full: plan.on_full,
            switch: if elsewhere { Some((plan.output.clone(), Output::open(&plan.output)?)) } else { None },
        })
    }

    /// Holds for the next line of every sink.
    pub fn apply(&self, prepared: Prepared) {
        if let Some((place, output)) = prepared.switch {
            *self.current() = Some(place);
            self.shared.queue.switch(output);
        }
        self.shared.block.store(prepared.on_full == OnFull::Block, Relaxed);
        self.shared.format.store(prepared.format.map_or(OFF, |format| format as u8), Relaxed);
    }

    /// Opens the file by its name again, for SIGUSR1 after a rotation. Lines that were handed over
    /// before still go to the old one. If it fails, all do.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(place @ LogOutput::File(_)) = &*self.current() {
            self.shared.queue.switch(Output::open(place)?);
        }
        Ok(())
    }

    /// Waits until what sinks have handed over is written, at most for `patience`. Whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.queue.settle(patience)
    }

    /// At the end, when the sinks are dropped: takes nothing more and waits like [`flush`](Self::flush): a reader that has stopped reading
    /// cannot hold up the shutdown.
    pub fn close(&self, patience: Duration) -> bool {
        self.shared.queue.close();
        self.shared.queue.settle(patience)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<LogOutput>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// What the control thread, the sinks and the writer share.
#[derive(Debug)]
struct Shared {
    /// A `Format`, or `OFF`: the one thing that a disabled log looks at.
    format: AtomicU8,
    block: AtomicBool,
    queue: Queue,
    telemetry: Arc<Telemetry>,
}

const OFF: u8 = u8::MAX;

impl Shared {
    fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { format: AtomicU8::new(OFF), block: AtomicBool::new(false), queue: Queue::default(), telemetry }
    }

    fn format(&self) -> Option<Format> {
        const { assert!(Format::Text as u8 == 3) };
        match self.format.load(Relaxed) {
            0 => Some(Format::Json),
            1 => Some(Format::Logfmt),
            2 => Some(Format::Combined),
            3 => Some(Format::Text),
            _ => None,
        }
    }

    fn hand_over(&self, lines: Lines) {
        let on_full = if self.block.load(Relaxed) { OnFull::Block } else { OnFull::Drop };
        if let Err(lines) = self.queue.offer(lines, on_full) {
            self.telemetry.process().dropped_log_lines(lines.count);
        }
    }

    /// The writer thread. A failing output loses lines, which are counted, and is tried again with
    /// the next: a full disk may empty.
    fn write_all(&self) {
        let mut output = None;
        let mut failing = false;
        while let Some(message) = self.queue.next() {
            let mut written = 0;
            match message {
                Message::Switch(to) => output = Some(to),
                Message::Write(lines) => {
                    written = lines.bytes.len();
                    let result = output.as_mut().map_or(Ok(()), |output| output.write(&lines.bytes));
                    if let Err(error) = &result {
                        self.telemetry.process().dropped_log_lines(lines.count);
                        if !failing {
                            tracing::warn!(event = "log", %error, "access log cannot be written: {error}");
                        }
                    }
                    failing = result.is_err();
                }
            }
            self.queue.done(written);
        }
    }
}

#[cfg(test)]
mod tests;
