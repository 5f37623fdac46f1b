#![doc = include_str!("ARCHITECTURE.md")]

pub mod drain;
pub mod plan;

pub mod admin;
pub mod route;
