//! What is more than Pintle takes: of requests, of connections, of heads that do not end, and of what
//! backends can do. Whoever is within the limits notices nothing.

mod clients;
mod heads;
mod rate;
mod shedding;
