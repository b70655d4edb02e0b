//! Which route takes a request: matching, path normalisation, rewriting. Pure: no I/O, no clock.

mod explain;
mod index;
mod literals;
mod matcher;
mod path;
mod pattern;
mod query;
mod request;
mod rewrite;
mod rows;
mod segments;
mod table;
mod values;

pub use self::{
    explain::Verdict,
    matcher::{Condition, Matcher},
    path::{PathError, normalise_path},
    pattern::{GrpcMatch, HostPattern, PathPattern, RouteMatch, ValueMatch},
    request::{RequestView, is_grpc, normalise_host},
    rewrite::{Redirect, RedirectFrom, RewriteError, RewritePrefix},
    table::RouteTable,
};
