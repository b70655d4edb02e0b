//! Bytes and time below the policies: sockets, bodies, the deferred-write adapter, the worker's coarse clock.

mod body_copy;
mod body_error;
pub mod deferred_write;
pub mod field_guard;
pub mod file_events;
pub mod frame_watch;
pub mod frames;
mod hpack;
pub mod http1;
pub mod incoming;
pub mod relay;
pub mod request_body;
pub mod reset_watch;
pub mod socket;
pub mod splice;
pub mod tick;
pub mod trailers;
