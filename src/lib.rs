#![doc = include_str!("ARCHITECTURE.md")]

pub mod drain;
pub mod plan;

pub mod admin;
pub mod http;
pub mod route;
