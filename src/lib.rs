#![doc = include_str!("ARCHITECTURE.md")]

pub mod plan;
pub mod drain;

pub mod http;
pub mod pool;
pub mod route;
pub mod telemetry;

pub mod admin;
