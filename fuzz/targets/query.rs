//! Parameters of a query.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(query) = std::str::from_utf8(bytes) {
        let _any = outrigger::route::query_value(query, "a", <[u8]>::len);
    }
});
