use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

const NORMAL: &[&str] = &[
    "/",
    "//",
    "/a",
    "/a/",
    "/a//b",
    "/a/b/c.html",
    "/...",
    "/.../x",
    "/.a/..b/a./b..",
    "/a.b/.well-known/x",
    "/-_~!$&'()*+,;=:@",
    "/%2F",
    "/a%2Fb",
    "/a/..%2Fb",
    "/%2F..%2F",
    "/%25",
    "/%252e%252e/x",
    "/%20",
    "/%5C",
    "/%3Fx%23",
    "/%C3%A9",
    "/%FF%C0%AE",
    "/%80%9F",
    "/a;v=1/..;/b",
    "/%3B",
];

const CHANGED: &[(&str, &str)] = &[
    ("/%41", "/A"),
    ("/%7e%2D%5f", "/~-_"),
    ("/%2f", "/%2F"),
    ("/%c3%A9", "/%C3%A9"),
    ("/é", "/%C3%A9"),
    ("/a b", "/a%20b"),
    ("/{id}|^`\"<>", "/%7Bid%7D%7C%5E%60%22%3C%3E"),
    ("/.", "/"),
    ("/..", "/"),
    ("/./", "/"),
    ("/../", "/"),
    ("/../../a", "/a"),
    ("/a/.", "/a/"),
    ("/a/./", "/a/"),
    ("/a/./b", "/a/b"),
    ("/a/..", "/"),
    ("/a/../", "/"),
    ("/a/b/..", "/a/"),
    ("/a/b/../c", "/a/c"),
    ("/a/b/../../../c", "/c"),
    // RFC 3986 §5.2.4's own example.
    ("/a/b/c/./../../g", "/a/g"),
    ("/a//../b", "/a/b"),
    ("/a//..", "/a/"),
    ("//..", "/"),
    ("/../..//a", "//a"),
    ("/%2e", "/"),
    ("/%2E%2e", "/"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e./b", "/b"),
    ("/a/%2e/b", "/a/b"),
    ("/a%2Fb/..", "/"),
    ("/a/%2e%2e%2f", "/a/..%2F"),
    ("/%25%32%65", "/%252e"),
];

const REFUSED: &[(&str, PathError)] = &[
    ("", PathError::NotAbsolute),
    ("*", PathError::NotAbsolute),
    ("a", PathError::NotAbsolute),
    ("http://a/b", PathError::NotAbsolute),
    ("/a\0", PathError::Control),
    ("/a\r\nb", PathError::Control),
    ("/\t", PathError::Control),
    ("/\x7f", PathError::Control),
    ("/%00", PathError::Control),
    ("/%0d%0A", PathError::Control),
    ("/%1F", PathError::Control),
    ("/%7F", PathError::Control),
    ("/%7f", PathError::Control),
    ("/%", PathError::MalformedEscape),
    ("/%2", PathError::MalformedEscape),
    ("/%2/x", PathError::MalformedEscape),
    ("/%zz", PathError::MalformedEscape),
    ("/%%32%65", PathError::MalformedEscape),
    ("/%+1", PathError::MalformedEscape),
    ("/%é", PathError::MalformedEscape),
    ("/a\\..\\b", PathError::Delimiter),
    ("/a?b", PathError::Delimiter),
    ("/a#b", PathError::Delimiter),
    ("/a/../%zz/..", PathError::MalformedEscape),
];

#[test]
fn normal_paths_are_borrowed() {
    for &path in NORMAL {
        assert!(matches!(normalise_path(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
    }
}

#[test]
fn other_paths_come_to_their_normal_form() {
    for &(path, want) in CHANGED {
        assert_eq!(normalise_path(path).as_deref(), Ok(want), "{path}");
    }
}

#[test]
fn ambiguous_paths_are_refused() {
    for &(path, error) in REFUSED {
        assert_eq!(normalise_path(path), Err(error), "{path:?}");
    }
}

/// Paths that are near the rules: dots, slashes and escapes in every combination.
fn near_paths() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        4 => prop::sample::select(vec!["/", "//", ".", "..", "%2e", "%2E", "%2f", "%2F", "a", "B"]),
        2 => prop::sample::select(vec!["%41", "%7e", "%25", "%c3", "%C3", "é", " ", "{", ";", "/../"]),
        1 => prop::sample::select(vec!["%", "%0", "%00", "%zz", "\\", "\n", "?", "%7F"]),
    ];
    prop::collection::vec(pieces, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn check(path: &str) -> Result<(), TestCaseError> {
    let Ok(normal) = normalise_path(path) else { return Ok(()) };
    prop_assert!(normal.starts_with('/'));
    prop_assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()));
    prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."));
    prop_assert_eq!(matches!(normal, Cow::Borrowed(_)), normal == path);
    let again = normalise_path(&normal);
    prop_assert!(matches!(again, Ok(Cow::Borrowed(same)) if same == normal));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    })]

    #[test]
    fn normal_form_is_stable_and_free_of_dot_segments(path in near_paths()) {
        check(&path)?;
    }

    #[test]
    fn any_text_is_normalised_or_refused(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        check(&text)?;
        check(&format!("/{text}"))?;
        check(&format!("/{}", String::from_utf8_lossy(&bytes)))?;
    }
}
