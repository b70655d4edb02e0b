//! A set of keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _any = outrigger::policy::jwt::KeySet::parse(bytes);
});
