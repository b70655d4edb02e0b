//! outrigger: a sidecar proxy.

pub mod admin;
pub mod app;
pub mod balance;

pub mod base;
pub mod config;
pub mod control;
pub mod discovery;
pub mod io;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod snapshot;
pub mod upstream;
