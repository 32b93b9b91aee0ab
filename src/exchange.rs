//! The state of protocol version 2 on one connection, both ends, without sockets and without a clock.
//!
//! An edge feeds frames in and is told what to do: the server's end is a [`Responder`], the client's a
//! [`Requester`]. Time is passed in; files, digests and bytes stay outside. So every order of events
//! can be tried in memory. `docs/protocol.md` is the specification.

mod requester;
mod responder;
mod runs;

pub use requester::{Data, Heard, Requester};
pub use responder::{Ask, Opened, Output, Responder};
pub(crate) use runs::Queue;

#[cfg(test)]
mod tests;
