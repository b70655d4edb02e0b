//! A token, held against one key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use outrigger::policy::jwt::{Issuer, KeySet, verify};
    const SET: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let issuer = Issuer {
        name: "a".into(),
        audience: Vec::new(),
        leeway: std::time::Duration::from_secs(30),
        claims: Vec::new(),
        keys: std::sync::Arc::default(),
    };
    issuer.keys.publish(KeySet::parse(SET.as_bytes()).unwrap());
    // Nobody has the private half here.
    assert!(verify(&[issuer], token, 1_800_000_000).is_err());
});
