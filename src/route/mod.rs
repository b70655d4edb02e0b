//! Which route takes a request, and what becomes of its path. Pure: no I/O, no clock, no randomness.
//!
//! A request comes here with its path through [`normalise_path`] and its host through
//! [`normalise_host`]; [`RouteTable::find`] returns the index of the first route whose whole match holds,
//! and [`RouteTable::explain`] tells with the same code what each route says to it.
//!
//! # How the table works
//!
//! First match wins, so no tree over hosts or longest prefix decides; a scan would be right, and linear.
//! Instead each kind of condition has a column (Lakshman and Stiliadis' bit vectors, SIGCOMM 1998): from
//! its part of the request it makes the set of routes that this part lets through, the routes that do not
//! ask included. Sets are bits, 1 024 routes in two cache lines; they are intersected, and only what is
//! left is asked in full, in file order.
//!
//! | Column | Looked up |
//! | --- | --- |
//! | host | the name, and what follows each of its dots |
//! | path, gRPC | the whole path; its segments down a tree; all regular expressions in one automaton |
//! | method | one set per method |
//! | the 4 headers and the 4 query parameters that most routes ask about | absent, present, value, its prefixes, expressions |
//! | all other headers, all other parameters | their names |
//!
//! # The bound
//!
//! For up to 1 024 routes, whatever tells them apart by literals, alone or together, a lookup costs two or
//! three set operations per column and one or two full matches. Measured by `benches/route.rs`: 1 000
//! routes take 1.1 to 2.5 times what 10 take (50–190 ns for 10, 70–240 ns for 1 000 on a quiet core), most
//! of the difference being memory to fetch. Larger tables cost that for each 1 024
//! routes before the one that matches. No lookup allocates, but for an escaped query value beyond 256
//! bytes.
//!
//! The same holds for regular expressions, with or without literals, as long as those of a column fit into
//! one lazy automaton: 2 MiB for each worker, column and 1 024 routes. A thousand anchored ones do, and what it tells is not
//! asked again. Those that do not are found by the texts that they need, and each is asked where its text occurs: then a
//! thousand take 3 to 7 times what ten take, since every expression has an automaton of its own to fetch from memory.
//!
//! Linear, at some 5–15 ns each, remains what neither way can tell, among the routes that the other columns let through:
//! expressions beyond such an automaton that need no text of two bytes (`[a-z]+[0-9].*x`), and conditions on the values of
//! headers and parameters beyond the four.

mod explain;
mod expressions;
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
    query::query_value,
    request::{RequestView, normalise_host},
    rewrite::{Redirect, RedirectFrom, RewriteError, RewritePrefix},
    table::RouteTable,
};
