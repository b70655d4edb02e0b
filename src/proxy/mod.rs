//! The request path: from an accepted connection to the last byte of its last response.
//!
//! # The life of a request
//!
//! 1. [`listener`]: a worker accepts the connection, under the listener's limit.
//! 2. [`connection`]: the first bytes tell HTTP/1 from HTTP/2, and messages are read; [`watch`] keeps the limits of time.
//! 3. [`request`]: the spine. The head is checked ([`check`]), routed, answered or forwarded.
//! 4. [`forward`]: the deadline, the retry loop, the replayable body; [`retries`]: what follows an attempt; [`hold`]: gRPC's heads may wait; [`verdict`]: what an attempt counts as, and when.
//! 5. [`attempt`]: one try: a place, an endpoint, a connection, the response's head.
//! 6. [`response`] with [`flow`]: the body streams back; its end settles connection, guards, metrics and log.
//!
//! Beside it: [`fields`] (what a head has), [`headers`] (what is written into it), [`reply`] (answers of our own),
//! [`stream`] (HTTP/2 callers that do not read), [`tunnel`] (upgrades and CONNECT), [`tcp`], [`original`] (where a redirected connection was going), [`exchange`] (the record of a request), [`access_log`].

pub mod access_log;
mod affinity;
mod attempt;
mod authorize;
mod bulk;
mod check;
mod client_cert;
mod connection;
mod exchange;
mod fault;
mod fields;
mod flow;
mod forward;
mod headers;
mod hedge;
mod hold;
mod jwt;
mod listener;
mod mirror;
mod original;
mod rate_limit;
mod refused;
mod reply;
mod request;
mod response;
mod retries;
mod secure;
mod signal;
mod stream;
mod subject;
mod tcp;
mod tunnel;
mod verdict;
mod watch;
mod worker;

pub use worker::{Shared, Worker};

/// See `check::hostile`: the door for fuzz targets.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn hostile(bytes: &[u8]) {
    check::hostile(bytes);
}
