//! The one normalisation of paths, and rules on paths.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use outrigger::policy::authorize::{PathRule, Readings};
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let Ok(normal) = outrigger::route::normalise_path(path) else { return };
    assert_eq!(outrigger::route::normalise_path(&normal).as_deref(), Ok(&*normal));
    let readings = Readings::new(&normal);
    let rule = PathRule::segments(&[Some("private")], true);
    assert!(!rule.surely_matches(&readings) || rule.may_match(&readings));
});
