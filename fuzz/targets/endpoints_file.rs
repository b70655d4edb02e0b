//! A file of endpoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _any = outrigger::config::endpoints_from("f", &String::from_utf8_lossy(bytes));
});
