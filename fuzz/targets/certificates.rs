//! PEM files of certificates, keys, authorities and revocations, and the dates in DER.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger::tls::files::hostile::certificates(bytes);
});
