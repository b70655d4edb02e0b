//! The configuration, printed and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use outrigger::config::load_str;
    let loaded = load_str("f", &String::from_utf8_lossy(bytes), &|_| Some("x: [".to_owned()));
    let again = loaded.config.is_some().then(|| load_str("f", &loaded.effective_yaml(), &|_| None));
    assert_eq!(again.and_then(|again| again.config), loaded.config);
});
