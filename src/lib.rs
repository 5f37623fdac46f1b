#![doc = include_str!("ARCHITECTURE.md")]

pub mod certificate;
pub mod drain;
pub mod plan;
mod sync;

pub mod http;
pub mod limit;
pub mod listen;
pub mod live;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod upstream;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;

#[cfg(test)]
mod fuzz;
