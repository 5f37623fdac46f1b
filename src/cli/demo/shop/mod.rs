//! A small session shop: the demo's backend, with every session in its own memory.
//!
//! Start at [`serve()`]. `memory` is what a shop knows, `answer` what it says, `page` how a browser
//! sees that, and `echo` its WebSocket. It is an ordinary backend that knows nothing of Pintle, so
//! what it shows (logged out on the next backend, unless sessions are sticky) is nobody's trick.

mod answer;
mod echo;
mod memory;
mod page;
mod serve;

#[cfg(test)]
mod tests;

pub use memory::{MAX_CART, MAX_SESSIONS, Shop};
pub use serve::serve;
