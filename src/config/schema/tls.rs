//! `identity`, `tls`.

use serde_json::Value;

use super::Properties;
use super::parts::{any_of, object, one_or_more, pattern, text, words};

pub(super) fn identity() -> Value {
    object("`identity`", &["cert", "key"], files())
}

pub(super) fn listener() -> Value {
    let mut keys = vec![
        (
            "client_cert",
            "Whether callers show a certificate. Default none.",
            words(&["none", "optional", "required"]),
        ),
        (
            "allow",
            "Whose certificates are taken: SPIFFE IDs and DNS names. Default: anyone's that is vouched for.",
            one_or_more(text()),
        ),
        (
            "plain_text",
            "What becomes of connections that do not begin with TLS. Default refuse.",
            words(&["refuse", "accept"]),
        ),
    ];
    keys.extend(files());
    any_of(vec![words(&["never"]), object("`tls` of a listener", &[], keys)])
}

pub(super) fn upstream() -> Value {
    let mut keys = vec![
        (
            "sni",
            "The name that is asked for. Default: from `verify`, discovery, or the address.",
            text(),
        ),
        (
            "verify",
            "Who the endpoints are, in place of that name: SPIFFE IDs and DNS names.",
            one_or_more(text()),
        ),
    ];
    keys.extend(files());
    any_of(vec![words(&["never"]), object("`tls` of an upstream", &[], keys)])
}

fn files() -> Properties {
    let path = || pattern("^/");
    vec![
        ("cert", "Our certificate with its chain (PEM).", path()),
        ("key", "Its private key (PEM, not encrypted).", path()),
        (
            "ca",
            "Who vouches for peers (PEM), or `system`.",
            any_of(vec![words(&["system"]), path()]),
        ),
        ("crl", "Revoked certificates of peers (PEM).", path()),
    ]
}
