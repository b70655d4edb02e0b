//! An EndpointSlice.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::discovery::kubernetes::hostile(bytes);
});
