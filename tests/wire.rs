//! The wire: exact bytes in, exact bytes out, on both sides of the proxy.
//!
//! Most cases are blocks of text in `tests/wire/*.txt`; `tests/wire/case.rs` says how they are written. What needs
//! several turns, or HTTP/2, is written out below `tests/wire/`. A failing case prints what was expected and what came.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

#[path = "wire/case.rs"]
mod case;
#[path = "wire/http2.rs"]
mod http2;
#[path = "wire/http2_upstream.rs"]
mod http2_upstream;
#[path = "wire/run.rs"]
mod run;
#[path = "wire/turns.rs"]
mod turns;

/// Runs one file of cases against a proxy of its own.
macro_rules! corpus {
    ($($test:ident = $file:literal;)+) => {
        $(#[test]
        fn $test() {
            run::all($file, include_str!(concat!("wire/", $file)));
        })+
    };
}

corpus! {
    no_two_parsers_can_read_a_request_differently = "framing.txt";
    malformed_heads_are_refused = "heads.txt";
    targets_are_brought_into_one_form = "targets.txt";
    what_ends_at_a_hop_ends_here = "forwarding.txt";
    bodies_arrive_whole_or_visibly_broken = "bodies.txt";
    limits_are_kept = "limits.txt";
    faults_of_an_upstream_are_told_and_never_look_complete = "upstream.txt";
}
