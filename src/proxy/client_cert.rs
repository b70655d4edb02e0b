//! `x-forwarded-client-cert`: who the caller is, for the application, in Envoy's form.
//!
//! What a caller without identity says of itself is removed. A caller that has proved who it is may say whom it speaks for: its
//! elements are kept, and ours, which names the caller itself, stands behind them. An application that trusts one hop looks at the last element.

use http::{HeaderName, HeaderValue};

use crate::base::identity::Identity;

pub(super) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The element that names `peer`; nothing where its certificate says nothing that could be told.
pub(super) fn element(peer: &Identity) -> Option<HeaderValue> {
    let mut parts: Vec<String> = Vec::new();
    if let Some(hash) = peer.fingerprint() {
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        parts.push(format!("Hash={digits}"));
    }
    // Of several, an application would take one for the identity: it is told none of them.
    parts.extend(peer.uri().map(|uri| format!("URI={}", quoted(uri))));
    parts.extend(peer.dns().map(|name| format!("DNS={name}")));
    let element = parts.join(";");
    (!element.is_empty()).then(|| HeaderValue::from_str(&element).ok()).flatten()
}

/// In quotes where it holds what parts elements or keys.
fn quoted(value: &str) -> String {
    if value.contains([',', ';', '=', '"', ' ']) {
        return format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_has_envoys_keys_and_quotes() {
        let peer = Identity::new(["spiffe://blog/ns/web/sa/cart"], ["cart.web", "b.c"]);
        assert_eq!(
            element(&peer.clone()).unwrap(),
            "URI=spiffe://blog/ns/web/sa/cart;DNS=cart.web;DNS=b.c"
        );
        let hashed = element(&peer.with_fingerprint([0xAB; 32])).unwrap();
        assert!(hashed.to_str().unwrap().starts_with(&format!("Hash={};URI=", "ab".repeat(32))));
        let odd = Identity::new(["urn:a,b;URI=\"x\""], []);
        assert_eq!(element(&odd).unwrap(), r#"URI="urn:a,b;URI=\"x\"""#);
        assert_eq!(element(&Identity::new(["urn:a", "urn:b"], ["c.d"])).unwrap(), "DNS=c.d");
        assert_eq!(element(&Identity::new([], [])), None);
    }
}
