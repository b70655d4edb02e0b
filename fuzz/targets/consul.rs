//! An answer of Consul.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::discovery::consul::hostile(bytes);
});
