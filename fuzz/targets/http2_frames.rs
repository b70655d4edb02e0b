//! Frames of HTTP/2, in two cuttings.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use outrigger::io::frames::Frames;
    let kinds = |size: usize| {
        let (mut found, mut frames) = (Vec::new(), Frames::of_client());
        for piece in bytes.chunks(size) {
            frames.see(piece, |kind| {
                found.push(kind);
                true
            });
        }
        found
    };
    assert_eq!(kinds(1), kinds(bytes.len().max(1)));
});
