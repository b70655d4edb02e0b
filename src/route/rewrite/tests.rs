use http::{HeaderValue, StatusCode};
use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use crate::route::PathPattern;

/// `/old/*` rewritten by `prefix`.
fn rewritten(prefix: &str, path: &str, query: Option<&str>) -> String {
    let pattern = PathPattern::Prefix("/old".to_owned());
    let rest = pattern.rest(path).unwrap();
    RewritePrefix::new(prefix).unwrap().apply(rest, query).unwrap().to_string()
}

#[test]
fn prefix_takes_the_place_of_the_fixed_part() {
    for (prefix, path, want) in [
        ("/new", "/old", "/new"),
        ("/new/", "/old", "/new"),
        ("/new", "/old/", "/new/"),
        ("/new/", "/old/", "/new/"),
        ("/new", "/old/x", "/new/x"),
        ("/new/", "/old/x/y/", "/new/x/y/"),
        ("/", "/old", "/"),
        ("/", "/old/", "/"),
        ("/", "/old/x", "/x"),
        ("/", "/old//x", "/x"),
        ("/", "/old///evil.example/", "/evil.example/"),
        ("/new", "/old//x", "/new/x"),
        ("/new", "/old/x//y", "/new/x//y"),
        ("/a/b/", "/old/x%2Fy", "/a/b/x%2Fy"),
        ("/a b", "/old/x", "/a%20b/x"),
        ("/a/../c", "/old/x", "/c/x"),
    ] {
        assert_eq!(rewritten(prefix, path, None), want, "{prefix} {path}");
    }
}

#[test]
fn rewriting_keeps_the_query() {
    assert_eq!(rewritten("/new", "/old/x", Some("a=1&b={|}")), "/new/x?a=1&b={|}");
    assert_eq!(rewritten("/new", "/old/x", Some("")), "/new/x?");
}

#[test]
fn template_rewriting_replaces_all_matched_segments() {
    let segments = vec![Some("users".to_owned()), None];
    let pattern = PathPattern::Template { segments, rest: true };
    let prefix = RewritePrefix::new("/u").unwrap();
    let target = prefix.apply(pattern.rest("/users/7/posts").unwrap(), None).unwrap();
    assert_eq!(target.as_str(), "/u/posts");
}

#[test]
fn bad_prefixes_are_refused() {
    for (prefix, error) in [
        ("new", RewriteError::Path(PathError::NotAbsolute)),
        ("", RewriteError::Path(PathError::NotAbsolute)),
        ("/a\r\nb", RewriteError::Path(PathError::Control)),
        ("/a?b", RewriteError::Path(PathError::Delimiter)),
        ("/a%2", RewriteError::Path(PathError::MalformedEscape)),
        ("//evil.example", RewriteError::DoubleSlash),
    ] {
        assert_eq!(RewritePrefix::new(prefix), Err(error), "{prefix:?}");
    }
}

#[test]
fn what_grows_beyond_a_request_target_is_an_error() {
    let prefix = RewritePrefix::new("/new").unwrap();
    let rest = format!("/{}", "x".repeat(65_534));
    assert_eq!(prefix.apply(&rest, None), Err(RewriteError::TooLong));
}

const FROM: RedirectFrom<'_> = RedirectFrom {
    scheme: "http",
    authority: "shop.example:8080",
    path: "/old/x",
    rest: "/x",
    query: Some("a=1"),
};

type Parts =
    (Option<&'static str>, Option<&'static str>, Option<&'static str>, Option<&'static str>);

fn redirect(parts: Parts) -> Result<Redirect, RewriteError> {
    Redirect::new(StatusCode::PERMANENT_REDIRECT, parts.0, parts.1, parts.2, parts.3)
}

#[test]
fn location_takes_from_the_request_what_is_not_set() {
    for (parts, want) in [
        ((Some("https"), None, None, None), "https://shop.example/old/x?a=1"),
        ((Some("http"), None, None, None), "http://shop.example:8080/old/x?a=1"),
        ((None, Some("b.example"), None, None), "http://b.example/old/x?a=1"),
        ((Some("https"), Some("b.example:444"), None, None), "https://b.example:444/old/x?a=1"),
        ((None, None, Some("/new"), None), "/new?a=1"),
        ((None, None, Some("/new?b=2"), None), "/new?b=2"),
        ((None, None, Some("/new?"), None), "/new?"),
        ((None, None, None, Some("/new/")), "/new/x?a=1"),
        ((None, None, None, Some("/")), "/x?a=1"),
        ((Some("https"), None, Some("/new"), None), "https://shop.example/new?a=1"),
        ((None, Some("b.example"), None, Some("/")), "http://b.example/x?a=1"),
    ] {
        assert_eq!(redirect(parts).unwrap().location(&FROM).unwrap(), want, "{parts:?}");
    }
}

#[test]
fn location_keeps_the_brackets_of_an_ipv6_host() {
    let from = RedirectFrom { authority: "[::1]:80", query: None, ..FROM };
    let location = redirect((Some("https"), None, None, None)).unwrap().location(&from).unwrap();
    assert_eq!(location, "https://[::1]/old/x");
}

#[test]
fn location_that_needs_a_host_fails_without_one() {
    let redirect = redirect((Some("https"), None, None, None)).unwrap();
    for authority in ["", "a b", "a/b", "a\r\nb"] {
        let from = RedirectFrom { authority, ..FROM };
        assert_eq!(redirect.location(&from), Err(RewriteError::NoAuthority), "{authority:?}");
    }
}

#[test]
fn relative_location_never_names_another_host() {
    let redirect = redirect((None, None, None, Some("/"))).unwrap();
    for rest in ["//evil.example", "/\\evil.example", "///evil.example/x", "/"] {
        let from = RedirectFrom { rest, query: None, ..FROM };
        let location = redirect.location(&from).unwrap();
        assert!(location.starts_with('/') && !location.starts_with("//"), "{location}");
        assert!(!location.contains('\\'), "{location}");
    }
}

#[test]
fn redirects_that_make_no_sense_are_refused() {
    for (parts, error) in [
        ((None, None, None, None), RewriteError::Parts),
        ((None, None, Some("/a"), Some("/b")), RewriteError::Parts),
        ((Some("ftp"), None, None, None), RewriteError::Scheme),
        ((None, Some("a b"), None, None), RewriteError::Host),
        ((None, Some("user@b.example"), None, None), RewriteError::Host),
        ((None, Some("b.example/x"), None, None), RewriteError::Host),
        ((None, None, Some("//b.example"), None), RewriteError::DoubleSlash),
        ((None, None, Some("/a#b"), None), RewriteError::Path(PathError::Delimiter)),
    ] {
        assert_eq!(redirect(parts), Err(error), "{parts:?}");
    }
}

#[test]
fn only_the_five_redirecting_statuses_are_taken() {
    for code in 300..=308 {
        let status = StatusCode::from_u16(code).unwrap();
        let got = Redirect::new(status, Some("https"), None, None, None);
        assert_eq!(got.is_ok(), matches!(code, 301 | 302 | 303 | 307 | 308), "{code}");
        assert!(got.is_err() || got.unwrap().status() == status);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn nothing_invisible_passes(rest in any::<String>(), query in any::<Option<String>>()) {
        let rest = format!("/{rest}");
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let target = RewritePrefix::new("/new").unwrap().apply(&rest, query.as_deref()).unwrap();
        prop_assert!(visible(target.as_str()) && target.path().starts_with("/new/"));
        prop_assert_eq!(target.query().is_some(), query.is_some());

        let from = RedirectFrom { path: &rest, rest: &rest, query: query.as_deref(), ..FROM };
        for parts in [(Some("https"), None, None, None), (None, None, None, Some("/"))] {
            let location = redirect(parts).unwrap().location(&from).unwrap();
            prop_assert!(visible(&location));
            prop_assert!(HeaderValue::try_from(&location).is_ok());
            prop_assert!(!location.starts_with("//"));
        }
    }
}
