//! What every other module may use: units, addresses, errors, randomness. Imports nothing of the crate.

pub mod address;
pub mod certificates;
pub mod drain;
pub mod endpoint;
pub mod error;
pub mod identity;
pub mod rng;
pub mod units;
