//! The operator's door: status, metrics and orders over a unix socket and a TCP address.
//!
//! Start at [`api`], which lists every path. A request is let in by [`door`], routed and answered
//! by [`api`], which asks the process through the [`desk`]. What the process is and how it obeys
//! does not belong here: whoever holds the desk's receiving end knows that.

pub mod api;
pub mod desk;
pub mod door;
pub mod events;
pub mod handover;
pub mod page;
pub mod places;
pub mod reply;
pub mod serve;
pub mod socket;
pub mod sse;
pub mod view;

#[cfg(test)]
mod tests;

pub use desk::{Ask, Desk, Document, Gone};
pub use door::Door;
pub use events::Events;
pub use serve::{serve_tcp, serve_unix};
pub use socket::{Socket, adopt_socket, open_socket};
