//! What all chapters share: it starts replicas, a store and Pintle, drives users and counts.
//!
//! Start at [`stage`]; [`child`] is how a replica becomes a process of its own, [`browser`] how a
//! user behaves, [`findings`] what a chapter says in the end.

pub mod balancer;
pub mod browser;
pub mod chapter;
pub mod child;
pub mod exhibit;
pub mod figures;
pub mod findings;
pub mod http;
pub mod memory;
pub mod stage;
pub mod websocket;

pub use balancer::Balancer;
pub use browser::{Answer, Browser};
pub use chapter::{Boxed, Chapter, Failure, Outcome, Run, Told};
pub use child::{Replica, Setup};
pub use exhibit::{Bars, Frame, Lines, Seat, SeatMap, SeatRow, Series, Table, Text};
pub use figures::Spread;
pub use findings::{Aspect, AuditRow, Claim, Column, Findings, Quote, quote};
pub use stage::{Scale, Spoil, Stage};
