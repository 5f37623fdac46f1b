//! Pintle through its sockets: the real balancer in-process, scripted backends, a client that
//! sees exact bytes.
//!
//! One module per promise; tests are named as sentences. What they stand on is in [`support`].
//! Nothing sleeps: tests wait for what happens, and [`support::eventually`] bounds every wait.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod support;

mod abuse;
mod access_log;
mod affinity;
mod balancing;
mod drain;
mod floods;
mod grpc;
mod h2_backend;
mod headers;
mod health;
mod hold;
mod hostile;
mod http2;
mod hygiene;
mod limits;
mod max_forwards;
mod max_in_flight;
mod outlier;
mod proxy_out;
mod proxy_protocol;
mod reload;
mod responses;
mod retry;
mod routing;
mod shutdown;
mod timeouts;
mod tls;
mod tls_backend;
mod websocket;
mod websocket_h2;
mod websocket_relay;
