//! The program as a child process: what an operator types, edits and signals, and what comes of
//! it. What happens to traffic is `e2e`'s business; here it only has to flow.
//!
//! Every child has a folder, ports and an admin socket of its own, and dies with its test.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod process;
#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, unused_imports)] // these tests need a part of it
mod support;

mod abuse;
mod check;
mod drain;
mod floods;
mod reload;
mod serve;
mod signals;
mod systemd;
mod tools;
mod upgrade;
