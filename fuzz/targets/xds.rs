//! A response of a control plane.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::discovery::xds::hostile(bytes);
});
