//! outrigger: a sidecar proxy.

pub mod balance;
pub mod base;
pub mod config;
pub mod discovery;
pub mod io;
pub mod metrics;
pub mod policy;
pub mod route;
