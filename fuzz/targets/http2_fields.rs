//! HTTP/2 requests through the guard of their fields, beside the h2 crate without it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::io::field_guard::hostile::fields(bytes);
});
