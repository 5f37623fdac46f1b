//! What threads share is made of these. Nothing but other names for what std and tokio have.
//!
//! `tests/model` compiles the rooms that import from here once more, with a `sync` of its own
//! whose atomics and locks try every order of events. So whatever decides across threads takes its
//! parts from here, and what is merely counted for people need not.

pub use std::sync::{Mutex, MutexGuard, atomic};

pub use tokio::sync::Notify;
