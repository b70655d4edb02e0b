//! `x-forwarded-client-cert`: who the caller is, for the application, in Envoy's form.
//!
//! What a caller without identity says of itself is removed. A caller that has proved who it is may say whom it speaks for: its
//! elements are kept, and ours, which names the caller itself, stands behind them. An application that trusts one hop looks at the last element.

use http::{HeaderName, HeaderValue};

use crate::base::identity::Identity;

pub(super) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The element that names `peer`, and `by` whom it was verified: the URI of our own certificate. In Envoy's order. Nothing where the
/// peer's certificate says nothing that could be told.
pub(super) fn element(peer: &Identity, by: Option<&str>) -> Option<HeaderValue> {
    let mut parts: Vec<String> = Vec::new();
    if let Some(hash) = peer.fingerprint() {
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        parts.push(format!("Hash={digits}"));
    }
    // Of several, an application would take one for the identity: it is told none of them.
    parts.extend(peer.uri().map(|uri| format!("URI={}", quoted(uri))));
    parts.extend(peer.dns().map(|name| format!("DNS={name}")));
    if parts.is_empty() {
        return None;
    }
    if let Some(uri) = by {
        parts.insert(0, format!("By={}", quoted(uri)));
    }
    HeaderValue::from_str(&parts.join(";")).ok()
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
            element(&peer, None).unwrap(),
            "URI=spiffe://blog/ns/web/sa/cart;DNS=cart.web;DNS=b.c"
        );
        let by = Some("spiffe://blog/ns/orders");
        let hashed = element(&peer.with_fingerprint([0xAB; 32]), by).unwrap();
        let begin = format!("By=spiffe://blog/ns/orders;Hash={};URI=", "ab".repeat(32));
        assert!(hashed.to_str().unwrap().starts_with(&begin));
        let odd = Identity::new(["urn:a,b;URI=\"x\""], []);
        assert_eq!(
            element(&odd, Some("urn:c;d")).unwrap(),
            r#"By="urn:c;d";URI="urn:a,b;URI=\"x\"""#
        );
        assert_eq!(element(&Identity::new(["urn:a", "urn:b"], ["c.d"]), None).unwrap(), "DNS=c.d");
        assert_eq!(element(&Identity::new([], []), by), None);
    }
}
