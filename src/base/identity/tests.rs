//! Tests of identities and patterns.

use proptest::prelude::*;

use super::*;

fn spiffe(id: &str) -> Identity {
    Identity::new([id], [])
}

fn named(dns: &str) -> Identity {
    Identity::new([], [dns])
}

fn pattern(text: &str) -> IdentityPattern {
    IdentityPattern::parse(text).unwrap()
}

fn error(text: &str) -> IdentityPatternError {
    IdentityPattern::parse(text).unwrap_err()
}

#[test]
fn a_spiffe_id_is_matched_whole_or_below_whole_segments() {
    let below = pattern("spiffe://blog/ns/web/*");
    for (id, want) in [
        ("spiffe://blog/ns/web/sa/cart", true),
        ("spiffe://blog/ns/web/x", true),
        ("spiffe://blog/ns/web", false),
        ("spiffe://blog/ns/webx/sa", false),
        ("spiffe://blog/ns/web-2/sa", false),
        ("spiffe://blog/NS/web/sa", false),
        ("spiffe://blog2/ns/web/sa", false),
        ("spiffe://blog.x/ns/web/sa", false),
        ("spiffe://other/ns/web/sa", false),
    ] {
        assert_eq!(below.matches(&spiffe(id)), want, "{id}");
    }
    let exact = pattern("spiffe://blog/ns/web/sa/cart");
    assert!(exact.matches(&spiffe("spiffe://blog/ns/web/sa/cart")));
    assert!(!exact.matches(&spiffe("spiffe://blog/ns/web/sa/cart/x")));
    assert!(!exact.matches(&spiffe("spiffe://blog/ns/web/sa/car")));
    let domain = pattern("spiffe://blog/*");
    assert!(
        domain.matches(&spiffe("spiffe://blog/a")) && !domain.matches(&spiffe("spiffe://blog"))
    );
}

#[test]
fn dns_names_are_matched_whole_or_by_labels_in_any_case() {
    let below = pattern("*.Web.example");
    for (name, want) in [
        ("a.web.example", true),
        ("A.B.WEB.example.", true),
        ("web.example", false),
        ("xweb.example", false),
        ("a.web.example.org", false),
        ("*.web.example", false),
    ] {
        assert_eq!(below.matches(&named(name)), want, "{name}");
    }
    assert!(pattern("web.example").matches(&named("WEB.example")));
    assert!(!pattern("web.example").matches(&named("a.web.example")));
    assert!(!pattern("*.b").matches(&spiffe("spiffe://a.b/c")), "a trust domain is no DNS name");
}

#[test]
fn what_is_no_valid_spiffe_id_is_none() {
    for uri in [
        "spiffe://Blog/a",
        "SPIFFE://blog/a",
        "spiffe://blog:80/a",
        "spiffe://u@blog/a",
        "spiffe:///a",
        "spiffe://blog/a/",
        "spiffe://blog/",
        "spiffe://blog//a",
        "spiffe://blog/a/../b",
        "spiffe://blog/%61",
        "spiffe://blog/a?b",
        "spiffe://blog/a#b",
        "https://blog/a",
        "",
    ] {
        assert_eq!(spiffe(uri).spiffe(), None, "{uri}");
    }
    let id = SpiffeId::parse("spiffe://blog/ns/web").unwrap();
    assert_eq!((id.trust_domain(), id.path()), ("blog", "/ns/web"));
    let bare = SpiffeId::parse("spiffe://blog").unwrap();
    assert_eq!((bare.trust_domain(), bare.path()), ("blog", ""));
    let long = format!("spiffe://blog/{}", "a".repeat(2048 - 14));
    assert!(SpiffeId::parse(&long).is_ok() && SpiffeId::parse(&format!("{long}a")).is_err());
}

#[test]
fn two_uris_are_no_spiffe_id() {
    let peer = Identity::new(["spiffe://blog/a", "spiffe://blog/b"], ["c.d"]);
    assert_eq!(peer.spiffe(), None);
    assert!(!pattern("spiffe://blog/a").matches(&peer));
    assert_eq!((peer.uri(), peer.uris().len(), peer.name()), (None, 2, Some("c.d")));
    assert_eq!(Identity::new(["spiffe://blog/a", "urn:x"], []).name(), None);
}

#[test]
fn a_peer_is_called_by_its_spiffe_id_first() {
    assert_eq!(Identity::new(["spiffe://a/b"], ["c.d"]).name(), Some("spiffe://a/b"));
    assert_eq!(Identity::new(["urn:x"], []).name(), Some("urn:x"));
    assert_eq!(Identity::new([], []).name(), None);
}

#[test]
fn each_mistake_has_its_own_message() {
    for (text, want) in [
        ("*", IdentityPatternError::Everyone),
        ("https://blog/a", IdentityPatternError::OtherScheme),
        ("spiffe:blog", IdentityPatternError::OtherScheme),
        ("spiffe:///a", IdentityPatternError::NoTrustDomain),
        ("spiffe://Blog/a", IdentityPatternError::TrustDomain),
        ("spiffe://*/a", IdentityPatternError::StarInside),
        ("spiffe://blog/ns/*/sa", IdentityPatternError::StarInside),
        ("spiffe://blog/ns/web*", IdentityPatternError::StarInside),
        ("spiffe://blog/*/*", IdentityPatternError::StarInside),
        ("spiffe://blog/a/", IdentityPatternError::EmptySegment),
        ("spiffe://blog/a//*", IdentityPatternError::EmptySegment),
        ("spiffe://blog/../b", IdentityPatternError::DotSegment),
        ("spiffe://blog/a%2F", IdentityPatternError::Segment),
        ("a.*.b", IdentityPatternError::StarInName),
        ("*b", IdentityPatternError::StarInName),
        ("10.0.0.1", IdentityPatternError::Address),
        ("10.0.0.0/8", IdentityPatternError::Address),
        ("::1", IdentityPatternError::Address),
        ("a..b", IdentityPatternError::NotAName),
        ("", IdentityPatternError::NotAName),
        ("a b", IdentityPatternError::NotAName),
    ] {
        assert_eq!(error(text), want, "{text}");
    }
}

#[test]
fn one_pattern_covers_another_where_it_names_all_of_its_peers() {
    for (wide, narrow, want) in [
        ("spiffe://a/b/*", "spiffe://a/b/c", true),
        ("spiffe://a/b/*", "spiffe://a/b/c/*", true),
        ("spiffe://a/b/*", "spiffe://a/b/*", true),
        ("spiffe://a/b/*", "spiffe://a/b", false),
        ("spiffe://a/b/*", "spiffe://a/bc/*", false),
        ("spiffe://a/b/c", "spiffe://a/b/*", false),
        ("*.a", "b.a", true),
        ("*.a", "*.b.a", true),
        ("*.a", "a", false),
        ("*.b.a", "*.a", false),
        ("*.a", "spiffe://x.a/b", false),
    ] {
        assert_eq!(pattern(wide).covers(&pattern(narrow)), want, "{wide} {narrow}");
    }
}

fn segments() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-c]{1,2}", 0..4)
}

fn id(domain: &str, path: &[String]) -> String {
    let path: String = path.iter().map(|segment| format!("/{segment}")).collect();
    format!("spiffe://{domain}{path}")
}

proptest! {
    /// Invariants: never across trust domains; never half a segment; below is strictly below.
    #[test]
    fn no_pattern_matches_across_a_trust_domain_or_half_a_segment(
        wanted in "[a-c.]{1,3}", above in segments(), domain in "[a-c.]{1,3}", path in segments(),
    ) {
        let peer = spiffe(&id(&domain, &path));
        let below = pattern(&format!("{}/*", id(&wanted, &above)));
        let inside = wanted == domain && path.len() > above.len() && path.starts_with(&above);
        prop_assert_eq!(below.matches(&peer), inside);
        let exact = pattern(&id(&wanted, &above));
        prop_assert_eq!(exact.matches(&peer), wanted == domain && path == above);
    }

    /// Invariant: a suffix takes whole labels, and at least one.
    #[test]
    fn no_pattern_matches_half_a_label(wanted in segments(), name in segments()) {
        prop_assume!(!wanted.is_empty() && !name.is_empty());
        let below = pattern(&format!("*.{}", wanted.join(".")));
        let inside = name.len() > wanted.len() && name.ends_with(&wanted);
        prop_assert_eq!(below.matches(&named(&name.join("."))), inside);
    }

    /// Invariant: what covers matches whatever the covered matches.
    #[test]
    fn covering_is_never_claimed_in_vain(a in segments(), b in segments(), peer in segments(), stars: (bool, bool)) {
        let text = |path: &[String], star| id("t", path) + if star { "/*" } else { "" };
        let (wide, narrow) = (pattern(&text(&a, stars.0)), pattern(&text(&b, stars.1)));
        let peer = spiffe(&id("t", &peer));
        prop_assert!(!wide.covers(&narrow) || !narrow.matches(&peer) || wide.matches(&peer));
    }

    /// Invariants: nothing panics, and what was read is written back so that it is read the same.
    #[test]
    fn any_text_is_read_or_refused(text in "(spiffe://)?[a-zA-Z0-9*./%?#:@_ é-]{0,24}") {
        if let Ok(read) = IdentityPattern::parse(&text) {
            prop_assert_eq!(IdentityPattern::parse(&read.to_string()), Ok(read));
        }
    }
}
