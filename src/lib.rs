//! outrigger: a sidecar proxy.

pub mod balance;
pub mod base;
pub mod config;
pub mod discovery;
pub mod policy;
pub mod route;
