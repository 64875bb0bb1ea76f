use proptest::prelude::*;

use super::*;

fn path(text: &str) -> Result<RoutePath, PathError> {
    RoutePath::read(text)
}

#[test]
fn paths_that_hide_something_are_refused() {
    use PathError as E;
    for (text, error) in [
        ("/a/../b", E::DotSegment),
        ("/a/./b", E::DotSegment),
        ("/a/%2e%2e/b", E::DotSegment),
        ("/a/%2E./b", E::DotSegment),
        ("/a/%252e%252e/b", E::DotSegment),
        ("/a/..%2fb", E::DotSegment),
        ("/a/..%5cb", E::DotSegment),
        ("/a/..;x=1/b", E::DotSegment),
        ("/a/%2e%2e%3bx/b", E::DotSegment),
        ("/a%00b", E::Encoding),
        ("/a%0d%0ab", E::Encoding),
        ("/a%zz", E::Encoding),
        ("/a%2", E::Encoding),
        ("/%25252525252e", E::Encoding),
        ("/a/%25zz/%252e%252e/b", E::DotSegment),
        ("/a%25/..%252fb", E::DotSegment),
        ("/a/..%3fx", E::DotSegment),
        ("/a/..%23x", E::DotSegment),
        ("/a%3fb/..;x/c", E::DotSegment),
        ("/a/;/../b", E::DotSegment),
        ("/..", E::DotSegment),
        ("/.;", E::DotSegment),
        ("/a/..%20/b", E::DotSegment),
        ("/a/.;%2fx", E::DotSegment),
        ("/a/.%3b%2f./b", E::DotSegment),
        ("/a/%25u002e%25u002e/b", E::DotSegment),
        ("/a/;%2f%2e%2e%2fb", E::DotSegment),
        ("/a/%c0%ae%c0%ae/b", E::Encoding),
        ("/a/%e0%80%ae%e0%80%ae/b", E::Encoding),
        ("/a/%f0%80%80%ae/b", E::Encoding),
        ("/a%25c0%25afb", E::Encoding),
        ("/a%2500b", E::Encoding),
        ("/a%25u0000b", E::Encoding),
        ("/a%7fb", E::Encoding),
        ("/a%09b", E::Encoding),
        ("/a%u002e", E::Encoding),
        ("/a\\b", E::Backslash),
        ("/a/..\\b", E::Backslash),
        ("/a;\\z/b", E::Backslash),
        ("\\a", E::Backslash),
        ("/a;b/c//d%2fe%3ff%23g%5ch%20/i%252fj%253bk", E::Spellings),
    ] {
        assert_eq!(path(text), Err(error), "{text}");
    }
}

#[test]
fn readings_of_a_path() {
    let readings = |text: &str| {
        let mut all: Vec<String> = path(text).unwrap().readings().map(str::to_owned).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(path("/%61dmin").unwrap().matched(), "/admin");
    assert!(readings("/chat/room.1").is_empty());
    assert_eq!(readings("/a%2fb"), ["/a/b"]);
    assert_eq!(readings("//a"), ["/", "/a"]);
    assert_eq!(readings("//a/b"), ["/a/b", "/b"]);
    assert_eq!(readings("/a;v=1/b"), ["/a/b"]);
    assert_eq!(readings("/a%5Cb"), ["/a/b", "/a\\b"]);
    assert_eq!(readings("/admin%3Fx"), ["/admin", "/admin?x"]);
    assert_eq!(readings("/C%23"), ["/C", "/C#"]);
    assert_eq!(readings("/100%25"), ["/100%"]);
    assert_eq!(readings("/%C3%A9"), ["/é"]);
    assert_eq!(readings("/a%252fb"), ["/a%2fb", "/a/b"]);
    assert_eq!(readings("/a./b"), ["/a/b"]);
    assert_eq!(readings("/a%20/b."), ["/a /b", "/a /b.", "/a%20/b", "/a/b"]);
    assert_eq!(readings("/a/.../b"), ["/a//b", "/a/b"]);
    assert_eq!(readings("/%C5%BFb"), ["/sb", "/ſb"]);
    assert_eq!(readings("/%25u0061"), ["/%u0061", "/a"]);
    assert!(path("/a...b/..c").unwrap().readings().next().is_none());
}

#[test]
fn parameters_are_dropped_before_and_after_decoding() {
    for text in ["/api;%2fz/admin%2fx", "/api;%5cz/admin%2fx", "/api%3b%2fz/admin%2fx", "/api%253b%252fz/admin%252fx"] {
        assert!(path(text).unwrap().readings().any(|reading| reading == "/api/admin/x"), "{text}");
    }
}

#[test]
fn a_plain_path_has_no_readings_and_allocates_nothing_for_them() {
    let read = path("/chat/room-1/~me?no".split('?').next().unwrap()).unwrap();
    assert_eq!((read.matched(), read.readings.capacity()), ("/chat/room-1/~me", 0));
}

proptest! {
    #[test]
    fn a_plain_path_needs_no_second_look(path in "/[a-zA-Z0-9/._~!$&'()*+,:=@-]{0,12}") {
        prop_assert_eq!(RoutePath::read(&path), RoutePath::read_any(&path));
    }

    #[test]
    fn no_path_makes_it_panic(text in "/[a-z%0-9A-Fu./;\\\\ ſ]{0,30}") {
        let _verdict = path(&text);
    }

    /// A `..` is found however each of its characters is written, whatever stands beside it.
    #[test]
    fn dot_segments_do_not_hide(
        before in "(/|//|/a|/%25zz|/%25|/;p|/;%2fp|/%5c|/%C3%A9){0,3}",
        border in prop::sample::select(vec!["/", "\\", "%2f", "%2F", "%5c", "%252f", "%255C"]),
        dots in prop::collection::vec(prop::sample::select(vec![".", "%2e", "%2E", "%252e", "%25252E"]), 1..=2),
        after in prop::sample::select(vec!["", "/", ";x/", "%3bx/b", "%2fb", "%255cb", "%3f", "%23", "%253fx/", "%20"]),
    ) {
        let text = format!("/a{before}{border}{}{after}", dots.concat());
        prop_assert!(path(&text).is_err(), "{}", text);
    }

    #[test]
    fn plain_paths_have_one_reading(text in "(/[a-z0-9_~-]{1,5}){1,4}/?") {
        let read = path(&text).unwrap();
        prop_assert_eq!(read.matched(), text.as_str());
        prop_assert_eq!(read.readings().count(), 0);
    }
}
