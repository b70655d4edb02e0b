//! Fields with deadlines, depths, pushback and tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use outrigger::policy::{deadline, jwt, pushback, retry_depth};
    let mut headers = http::HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let (name, value) = line.split_at(line.iter().position(|b| *b == b':').unwrap_or(0));
        let name = http::HeaderName::from_bytes(name);
        let value = http::HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let _any = deadline::CallerTimeout::read(&headers, true);
    let _any = retry_depth::RetryDepth::read(&headers);
    let _any = pushback::Pushback::read(&headers);
    let _any = jwt::bearer(&headers);
});
