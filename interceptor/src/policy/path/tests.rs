use proptest::prelude::*;

use super::super::{Ambiguity, AmbiguousPath, CanonicalPath, check_query};
use Ambiguity::*;

/// Paths that every server reads alike, with their segments.
const GOOD: &[(&str, &[&str])] = &[
    ("/", &[]),
    ("/v1.0", &["v1.0"]),
    ("/v1.0/", &["v1.0"]),
    ("/v1.0/users", &["v1.0", "users"]),
    ("/v1.0/users/", &["v1.0", "users"]),
    ("/users('a@b.example')/messages", &["users('a@b.example')", "messages"]),
    ("/%24batch", &["$batch"]),
    ("/$batch", &["$batch"]),
    ("/%75sers", &["users"]),
    ("/a%20b", &["a b"]),
    ("/a+b", &["a+b"]),
    ("/drive/root:/folder/file.txt:/content", &["drive", "root:", "folder", "file.txt:", "content"]),
    ("/caf%C3%A9", &["café"]),
    ("/%e4%bd%a0", &["你"]),
    ("/100%25", &["100%"]),
    ("/100%25x", &["100%x"]),
    ("/a%23b", &["a#b"]),
    ("/a%3Fb", &["a?b"]),
    ("/.well-known/openid-configuration", &[".well-known", "openid-configuration"]),
    ("/a..b/c.", &["a..b", "c."]),
    ("/*", &["*"]),
    ("/~user", &["~user"]),
    ("/%7Euser", &["~user"]),
    ("/a=b,c!d&e", &["a=b,c!d&e"]),
];

/// Paths that servers could read differently, what is wrong with them, and at which byte.
const AMBIGUOUS: &[(&str, Ambiguity, usize)] = &[
    ("", NotOriginForm, 0),
    ("*", NotOriginForm, 0),
    ("users", NotOriginForm, 0),
    ("http://graph.microsoft.com/users", NotOriginForm, 0),
    ("graph.microsoft.com:443", NotOriginForm, 0),
    ("//", EmptySegment, 1),
    ("//evil.example/users", EmptySegment, 1),
    ("/users//1", EmptySegment, 7),
    ("/users//", EmptySegment, 7),
    ("/.", DotSegment, 1),
    ("/..", DotSegment, 1),
    ("/...", DotSegment, 1),
    ("/a/./b", DotSegment, 3),
    ("/a/../b", DotSegment, 3),
    ("/a/..", DotSegment, 3),
    ("/a/%2e/b", DotSegment, 3),
    ("/a/%2E%2e/b", DotSegment, 3),
    ("/a/.%2e/b", DotSegment, 3),
    ("/a/%EF%BC%8E%EF%BC%8E/b", DotSegment, 3),
    ("/a/%E2%80%A4/b", DotSegment, 3),
    ("/a%2Fb", EncodedSlash, 1),
    ("/a%2fb", EncodedSlash, 1),
    ("/%2F", EncodedSlash, 1),
    ("/a%EF%BC%8Fb", EncodedSlash, 1),
    ("/a%E2%88%95b", EncodedSlash, 1),
    ("/a\\b", Backslash, 2),
    ("/a%5Cb", Backslash, 1),
    ("/a%5cb", Backslash, 1),
    ("/a%EF%BC%BCb", Backslash, 1),
    ("/users;v=1/1", Semicolon, 6),
    ("/..;/admin", Semicolon, 3),
    ("/a%3Bb", Semicolon, 1),
    ("/a#b", Fragment, 2),
    ("/#", Fragment, 1),
    ("/%", Percent, 1),
    ("/%2", Percent, 1),
    ("/%zz", Percent, 1),
    ("/%u002e%u002e/a", Percent, 1),
    ("/a/%252e%252e/b", Percent, 3),
    ("/a%252Fb", Percent, 1),
    ("/%C0%AE%C0%AE/a", Utf8, 1),
    ("/%C0%AF", Utf8, 1),
    ("/%E0%80%AF", Utf8, 1),
    ("/%ED%A0%80", Utf8, 1),
    ("/%FF", Utf8, 1),
    ("/caf%E9", Utf8, 1),
    ("/a%00", Control, 1),
    ("/a%0d%0aHost:x", Control, 1),
    ("/a%7f", Control, 1),
    ("/a%C2%85", Control, 1),
    ("/a\0", Control, 2),
    ("/a\tb", Control, 2),
    ("/a\r\nb", Control, 2),
    ("/a\u{7f}", Control, 2),
    ("/a b", Character, 2),
    ("/café", Character, 4),
    ("/a?b", Character, 2),
    ("/a|b", Character, 2),
    ("/<script>", Character, 1),
    ("/a\"b", Character, 2),
    ("/{id}", Character, 1),
    ("/[1]", Character, 1),
    ("/a^b`c", Character, 2),
    ("/ok/ok/a%2fb", EncodedSlash, 7),
];

#[test]
fn good_paths_are_kept_byte_for_byte_and_decoded_once() {
    for (raw, segments) in GOOD {
        let path = CanonicalPath::parse(raw).unwrap_or_else(|error| panic!("`{raw}`: {error}"));
        assert_eq!(path.raw(), *raw);
        assert_eq!(path.segments().collect::<Vec<_>>(), *segments, "`{raw}`");
    }
}

#[test]
fn ambiguous_paths_are_refused_with_the_place() {
    for (raw, what, at) in AMBIGUOUS {
        assert_eq!(CanonicalPath::parse(raw), Err(AmbiguousPath { what: *what, at: *at }), "`{}`", raw.escape_debug());
    }
}

#[test]
fn a_decoded_path_keeps_its_final_slash() {
    let all = [("/", "/"), ("/%61/b", "/a/b"), ("/%61/", "/a/"), ("/%24batch", "/$batch"), ("/a/%62/c/", "/a/b/c/")];
    for (raw, decoded) in all {
        assert_eq!(CanonicalPath::parse(raw).unwrap().decoded(), decoded);
    }
}

#[test]
fn queries_that_servers_could_read_differently_are_refused() {
    for good in
        ["", "a", "a=b&c=d", "$select=id,name&$top=5", "q=a+b%20c", "x=%0A", "a=b=c", "$expand=m($top=1;$skip=2)"]
    {
        assert_eq!(check_query(good), Ok(()), "`{good}`");
    }
    for (bad, what, at) in [
        ("a#b", Fragment, 1),
        ("a=b&c=#", Fragment, 6),
        ("a\nb", Control, 1),
        ("a=\0", Control, 2),
        ("a=%00", Control, 2),
        ("a b", Character, 1),
        ("a=é", Character, 2),
        ("a=100%", Percent, 5),
        ("%ZZ=1", Percent, 0),
        ("a=%C0%AF", Utf8, 2),
    ] {
        assert_eq!(check_query(bad), Err(AmbiguousPath { what, at }), "`{}`", bad.escape_debug());
    }
    assert_eq!(check_query(&"a&".repeat(256)), Ok(()));
    assert_eq!(check_query(&"a&".repeat(257)).unwrap_err().what, Parameters);
}

proptest! {
    /// Whatever is let through can be cut into segments by any server with the same result.
    #[test]
    fn what_passes_has_one_reading(raw in "/([a-c.%/;\\\\ 25eEfFcC0-9é]|%2e|%2f|%25|%c3%a9){0,24}") {
        if let Ok(path) = CanonicalPath::parse(&raw) {
            prop_assert_eq!(path.raw(), raw.as_str());
            prop_assert!(!path.raw().contains("//") && !path.raw().contains('\\') && !path.raw().contains(';'));
            let literal = path.raw().trim_start_matches('/').trim_end_matches('/');
            let count = if literal.is_empty() { 0 } else { literal.split('/').count() };
            prop_assert_eq!(path.segments().count(), count);
            for segment in path.segments() {
                prop_assert!(!segment.is_empty() && !segment.contains('/') && segment.chars().any(|c| c != '.'));
            }
        }
    }

    /// Any bytes, any sizes: an answer, not a panic.
    #[test]
    fn anything_has_an_answer(raw in ".*") {
        let _ = CanonicalPath::parse(&raw);
        let _ = CanonicalPath::parse(&format!("/{raw}"));
        let _ = check_query(&raw);
    }
}
