//! A response's head of HTTP/1.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::net::http1::hostile::head(bytes);
});
