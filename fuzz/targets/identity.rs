//! Patterns of identities, durations, sizes, rates, addresses.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use outrigger::base::{address::Address, identity::IdentityPattern, units};
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _any = text.parse::<IdentityPattern>();
    let _any = text.parse::<Address>();
    let _any = units::parse_duration(text);
    let _any = text.parse::<units::ByteSize>();
    let _any = text.parse::<units::Ratio>();
    let _any = text.parse::<units::Rate>();
});
