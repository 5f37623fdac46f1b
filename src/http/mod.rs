//! HTTP mechanics, true for any proxy: [`proxied`] hears who is behind a balancer, [`secure`] shakes
//! hands, [`serve`] turns a connection into requests, [`body`] carries bytes, [`tunnel`] what follows
//! an upgrade ([`websocket`] knows its frames), [`timer`] limits every wait. The rest says what a message may look like and what is
//! sent on in its place. Knows neither routes nor pools.
//!
//! A request's head is read in this order, each step pure: [`check::check`] refuses what no backend
//! should see, [`max_forwards::spend`] counts a hop, [`upgrade::requested`] recognises a tunnel,
//! [`forwarded::Trust::client_address`] finds the client; [`headers::strip_request`] drops what was meant for this hop,
//! [`forwarded::Trust::forward`] says where the request came from, then the route's own edits, and
//! last [`upgrade::Upgrade::restore`] or [`headers::frame`]. An answer's: [`answer::check`], then
//! [`headers::strip_response`]. What follows a body passes [`trailers::keep_allowed`].
//!
//! What hyper 1.12 settles before a head is seen here: obs-fold, blanks before a colon, control
//! characters and HTTP/0.9 are refused; `Content-Length` lines that differ or are no number too; of
//! `Transfer-Encoding` and `Content-Length` together the former stands, the latter is gone and the
//! connection closes (RFC 9112 section 6.3); a fragment in the target is gone.

pub mod answer;
pub mod body;
pub mod brake;
pub mod check;
pub mod cookies;
pub mod forwarded;
pub mod grpc;
pub mod headers;
pub mod max_forwards;
pub mod pace;
pub mod part;
pub mod proxied;
mod pseudo;
pub mod replay;
pub mod secure;
pub mod serve;
pub mod target;
pub mod timer;
pub mod trailers;
pub mod tunnel;
pub mod upgrade;
pub mod upload;
pub mod websocket;

#[cfg(test)]
mod fuzz;
