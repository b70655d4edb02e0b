//! outrigger: a sidecar proxy. One process next to a service carries its traffic, in and out.
//!
//! The crate is the program; it is a library so that tests and benches can reach its parts. Its interface is the
//! configuration file (`docs/CONFIG.md`), the command line, the metrics and the log, not the items below.
//!
//! # Reading order
//!
//! The request path, from an accepted connection to the last byte of its answer: `app/threads`, [`proxy`] (its page is the
//! life of a request: `listener`, `connection`, `watch`, `request`, `check`), [`route`], `proxy/forward`, [`policy`] (`deadline`,
//! `retry`, `retry_budget`), `proxy/attempt`, [`balance`], [`upstream`] (`local`, `pool`, `connection`), [`net`] (`connect`, `http1`,
//! `http2`), [`io`] (`request_body`, `socket`, `tick`), `proxy/response`.
//!
//! The control path, from a file to what is in force: `control/watch`, [`config`] (`loaded`, `load`, `read`, `validate`), [`control`]
//! (`resolve`, `listen`, `compile`), [`snapshot`]; endpoints: [`discovery`], `control/resolve`, `balance/endpoint_set`.
//!
//! The two never see each other. They meet in the snapshot, which is immutable and swapped as a whole, and in the live
//! numbers of upstreams and endpoints. `ARCHITECTURE.md` has the reasons, the threads, and how to add things.
//!
//! # Ranks
//!
//! A module uses only modules of a lower rank; `tests/layering.rs` says exactly which, and checks it.
//!
//! | Rank | Modules |
//! |---|---|
//! | 0 | [`base`] |
//! | 1 | [`config`], [`metrics`], [`policy`], [`io`] |
//! | 2 | [`balance`], [`route`], [`tls`] |
//! | 3 | [`net`] |
//! | 4 | [`discovery`], [`health`], [`upstream`] |
//! | 5 | [`snapshot`] |
//! | 6 | [`proxy`], [`control`] |
//! | 7 | [`admin`], [`simulate`] |
//! | 8 | [`app`] |

pub mod admin;
pub mod app;
pub mod balance;
pub mod base;
pub mod config;
pub mod control;
pub mod discovery;
pub mod health;
pub mod io;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod simulate;
pub mod snapshot;
pub mod tls;
pub mod upstream;
