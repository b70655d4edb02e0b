//! A scenario of `outrigger simulate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _any = outrigger::config::scenario_from("f", &String::from_utf8_lossy(bytes), &|_| None);
});
