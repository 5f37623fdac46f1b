//! The lesson's own words: its comparison table, its audit, its key concepts and its questions.

use crate::harness::{Aspect, Column};

/// The columns of its comparison table.
pub const COLUMNS: [(Column, &str); 4] = [
    (Column::Sticky, "Sticky Sessions"),
    (Column::Replication, "Session Replication"),
    (Column::Store, "Centralized Store"),
    (Column::Jwt, "JWT"),
];

/// The rows of its comparison table, with its word for each column.
pub const ROWS: [(Aspect, &str, [&str; 4]); 7] = [
    (Aspect::Scalability, "Scalability", ["Poor", "Limited", "Excellent", "Excellent"]),
    (Aspect::Availability, "Availability", ["Poor", "Good", "Good", "Excellent"]),
    (Aspect::Complexity, "Complexity", ["Low", "Medium", "Medium", "Low"]),
    (Aspect::Latency, "Latency", ["Best", "Good", "+1-5ms", "Best"]),
    (Aspect::ServerMemory, "Server Memory", ["High", "Very High", "Low", "None"]),
    (Aspect::Revocation, "Revocation", ["Instant", "Instant", "Instant", "Hard"]),
    (Aspect::CrossService, "Cross-Service", ["No", "No", "Yes", "Yes"]),
];

/// What step 1 of its conversion asks of an application.
pub const AUDIT: [&str; 4] = [
    "Where are sessions stored?",
    "What's in server memory?",
    "What happens on server restart?",
    "Can requests go to any server?",
];

/// Its key concepts to remember, 1 to 10.
pub const CONCEPTS: [&str; 10] = [
    "Stateless = Server remembers nothing between requests",
    "Stateful = Server stores user-specific data in memory",
    "Stateless enables horizontal scaling without coordination",
    "Three ways to handle state: Client-side, external store, or tokens",
    "JWT = Truly stateless auth (but can't revoke easily)",
    "Redis/Memcached = Popular external session stores",
    "Sticky sessions = Quick fix but limits scalability",
    "WebSockets are inherently stateful - need special handling",
    "Design for statelessness from the start - retrofitting is hard",
    "Test by restarting servers - users shouldn't notice",
];

/// Its practice questions, 1 to 7, by their gist.
pub const QUESTIONS: [&str; 7] = [
    "Carts in server memory get lost in a rolling restart: why, and two solutions",
    "A compromised account with a JWT: revoke it at once, and at what price",
    "Sticky sessions, Redis or JWT for a chat with 1 million users",
    "A Map as a cache: stateful or stateless, and what goes wrong with several servers",
    "Uploads of up to 100MB, listed by their user, across 10 API servers",
    "Five services, one log-in: authentication without a session store for each",
    "Stateful game servers: crashes, peak hours, and the right server for a player",
];
