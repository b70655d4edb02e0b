//! A request's method, target and fields, once it was read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::proxy::hostile(bytes);
});
