//! Tests of the readings of a path.

use proptest::prelude::*;

use super::*;

fn rule(pattern: &str) -> PathRule {
    let (fixed, rest) = match pattern.strip_suffix("/*") {
        Some(fixed) => (fixed, true),
        None => (pattern, false),
    };
    let segments: Vec<_> =
        parts(fixed).map(|segment| if segment == "{}" { None } else { Some(segment) }).collect();
    PathRule::segments(&segments, rest)
}

fn denied(pattern: &str, path: &str) -> bool {
    rule(pattern).may_match(&Readings::new(path))
}

fn allowed(pattern: &str, path: &str) -> bool {
    rule(pattern).surely_matches(&Readings::new(path))
}

#[test]
fn a_deny_rule_holds_in_every_reading() {
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin",
        "/admin//x",
        "///admin",
        "/ADMIN/x",
        "/Admin",
        "/admin;x",
        "/admin;/x",
        "/admin%3Bx/y",
        "/admin%2Fx",
        "/%2Fadmin",
        "/admin%5Cx",
        "/admin%255cx",
        "/%2561dmin",
        "/admin.",
        "/admin./x",
        "/admin%20",
        "/admin%3Fx",
        "/admin%23x",
        "/admin%252Fx",
        "/;x/admin",
        "/%5Cadmin",
    ] {
        assert!(denied("/admin/*", path), "{path}");
    }
    for path in ["/admin", "/admin/", "/ADMIN", "/admin;x", "//admin", "/admin."] {
        assert!(denied("/admin", path), "{path}");
    }
    for path in ["/", "/administrator", "/x/admin", "/adm", "/admin2/x", "*", ""] {
        assert!(!denied("/admin/*", path), "{path}");
    }
}

#[test]
fn an_evasive_path_is_denied_by_every_rule_and_allowed_by_none() {
    for path in [
        "/a/..;/admin",
        "/a/%2E%2E%2Fadmin",
        "/a%2F..%2Fadmin",
        "/a%5C..%5Cadmin",
        "/a/%252e%252e/admin",
        "/a/.../admin",
        "/a/..%20/admin",
        "/a/%C0%AE%C0%AE/admin",
        "/a%C0%AFadmin",
        "/a%E0%80%AFadmin",
        "/a%2500",
        "/a%250Ab",
        "/a;x%2Fadmin",
        "/a;%5C",
        "/a/%25252525252e",
        "/%20/admin/.",
    ] {
        assert!(denied("/other", path), "{path}");
        assert!(!allowed("/a/*", path) && !allowed("/*", path), "{path}");
    }
}

#[test]
fn an_allow_rule_holds_only_where_all_readings_agree() {
    for (pattern, path, want) in [
        ("/orders/*", "/orders", true),
        ("/orders/*", "/orders/", true),
        ("/orders/*", "/orders/7/items", true),
        ("/orders/*", "/orders//7", true),
        ("/orders/*", "/orders/a%2Fb", true),
        ("/orders/*", "/orders/7;v=2", true),
        ("/orders/*", "/orders/7%25", true),
        ("/orders/*", "/orders/caf%C3%A9", true),
        ("/orders/*", "/Orders/7", false),
        ("/orders/*", "//orders/7", false),
        ("/orders/*", "/orders%2F7", false),
        ("/orders/*", "/orders;x/7", false),
        ("/orders/*", "/orders./7", false),
        ("/orders", "/orders", true),
        ("/orders", "/orders/", false),
        ("/orders/", "/orders/", true),
        ("/orders/", "/orders", false),
        ("/users/{}", "/users/7", true),
        ("/users/{}", "/users/", false),
        ("/users/{}", "/users/a%2Fb", false),
        ("/users/{}", "/users/a/b", false),
        ("/users/{}/*", "/users/a/b/c", true),
        ("/a%2Fb", "/a%2Fb", true),
        ("/a%2Fb", "/a/b", false),
        ("/*", "/", true),
        ("/*", "*", false),
        ("/*", "", false),
        ("/", "/", true),
        ("/", "//", false),
    ] {
        assert_eq!(allowed(pattern, path), want, "{pattern} {path}");
    }
}

#[test]
fn expressions_are_searched_in_every_reading() {
    let rule = PathRule::expression(&Regex::new("^/admin/[a-z]+$").unwrap()).unwrap();
    for path in
        ["/admin/x", "/ADMIN/X", "/admin//x", "/admin%2Fx", "/admin/x/", "/admin/x;y", "/b/../..;/"]
    {
        assert!(rule.may_match(&Readings::new(path)), "{path}");
    }
    for (path, want) in
        [("/admin/x", true), ("/admin/X", false), ("/admin/x/", false), ("/admin;/x", false)]
    {
        assert_eq!(rule.surely_matches(&Readings::new(path)), want, "{path}");
    }
}

proptest! {
    /// Invariant: what is plain loosens to itself, so that the shortcut decides nothing.
    #[test]
    fn the_shortcut_changes_nothing(path in "(/[a-cA.;%2fF5C \\\\?]{0,4}){1,4}") {
        if is_plain(&path) {
            prop_assert_eq!(loosened(&path), Some(path));
        }
    }

    /// Invariant: whatever an allow rule takes, a deny rule of the same pattern takes as well.
    #[test]
    fn what_is_surely_matched_may_be_matched(
        pattern in "(/[ab.%2F;]{0,3}){1,3}(/\\*)?", path in "(/[abA.%2F;]{0,5}){0,4}",
    ) {
        prop_assert!(!allowed(&pattern, &path) || denied(&pattern, &path));
    }

    /// Invariant: a spelling of a path that adds slashes, parameters, case, dots or an escape never leaves a deny rule.
    #[test]
    fn no_spelling_slips_past_a_deny_rule(
        segments in prop::collection::vec("[a-c]{1,3}", 1..4), tricks in prop::collection::vec(0..8_usize, 4),
    ) {
        let pattern: String = segments.iter().take(1).map(|segment| format!("/{segment}/*")).collect();
        let path: String = segments.iter().zip(&tricks).map(|(segment, trick)| match trick {
            0 => format!("//{segment}"),
            1 => format!("/{}", segment.to_uppercase()),
            2 => format!("/{segment};p=1"),
            3 => format!("/{segment}."),
            4 => format!("/%2F{segment}"),
            5 => format!("/%25{:02x}{}", segment.as_bytes()[0], &segment[1..]),
            6 => format!("/%5C{segment}"),
            _ => format!("/{segment}"),
        }).collect();
        prop_assert!(denied(&pattern, &path), "{} {}", pattern, path);
    }
}
