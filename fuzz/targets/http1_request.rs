//! The head of an HTTP/1 request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::io::http1::hostile::request(bytes);
});
