//! Clients that take their time, or take too much: each is cut in time, whatever it holds stays
//! small, and who behaves notices nothing. How much memory it costs is measured in `binary`, where
//! the balancer has a process of its own.

mod bodies;
mod heads;
