//! The rules of the request path as pure types: they decide, somebody else acts.
//!
//! Nothing here reads a clock, draws its own random numbers, sleeps, spawns or logs: `now` and the generator come in as
//! arguments, so that a decision can be repeated exactly in a test and in a simulation. What one worker owns takes
//! `&mut self`; what workers share is atomic and says which ordering it needs.

pub mod authorize;
pub mod backoff;
pub mod breaker;
pub mod classify;
pub mod deadline;
pub mod fault;
pub mod gradient;
pub mod health;
pub mod hedge;
pub mod jwt;
pub mod limits;
pub mod outlier;
pub mod pace;
pub mod pushback;
pub mod rate_limit;
pub mod retry;
pub mod retry_budget;
pub mod retry_depth;
pub mod retry_floor;
pub mod reuse;
pub mod throttle;
pub mod window;
