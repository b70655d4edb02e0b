//! An answer of gRPC health.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::health::hostile(bytes);
});
