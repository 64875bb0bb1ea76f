//! No lenient backend sees a path of another route than the one taken.

use proptest::prelude::*;

use super::*;
use crate::{config, protocol::request_path::RoutePath};

const RULES: &str = r#"
[[listener]]
listen = "127.0.0.1:0"
[[route]]
name = "open"
host = "gate.test"
upstream = "any"
[[route]]
name = "admin"
host = "gate.test"
path = "/api/admin"
upstream = "any"
[[route]]
name = "api"
host = "gate.test"
path = "/api"
upstream = "any"
[[route]]
name = "team"
host = "gate.test"
path = "/team"
ignore_case = true
upstream = "any"
[[route]]
name = "literal"
host = "literal.test"
upstream = "literal"
[[route]]
name = "literal ws"
host = "literal.test"
path = "/ws"
upstream = "literal"
[[route]]
name = "only"
host = "only.test"
path = "/ws"
upstream = "any"
[[route]]
name = "only literal"
host = "only-literal.test"
path = "/ws"
upstream = "literal"
[upstream.any]
url = "http://127.0.0.1:9"
[upstream.literal]
url = "http://127.0.0.1:9"
paths = "literal"
"#;

fn rules() -> Routes {
    config::parse(RULES, std::path::Path::new("p.toml")).unwrap_or_else(|errors| panic!("{errors}")).routes
}

/// The name of the route taken, or the rule that refuses.
fn taken(routes: &Routes, host: &str, path: &str) -> Result<String, &'static str> {
    let path = RoutePath::read(path).map_err(|error| error.rule())?;
    let authority = crate::protocol::request_target::Authority::parse(host).unwrap();
    let route = find(routes, &Target { authority, path }).map_err(|error| error.rule())?;
    Ok(route.name.clone())
}

#[test]
fn a_path_that_some_backend_reads_as_one_of_another_route_is_refused() {
    let routes = rules();
    for (path, expected) in [
        ("/api/admin/x", Ok("admin")),
        ("/api/%61dmin", Ok("admin")),
        ("/api/x;v=1", Ok("api")),
        ("/team", Ok("team")),
        ("/TEAM/x", Ok("team")),
        ("/te%41m", Ok("team")),
        // Jetty 9.4: parameters, then decoding.
        ("/api;%2fz/admin%2fx", Err("ambiguous-path")),
        ("/api;%5cz/admin%2fx", Err("ambiguous-path")),
        ("/api/%253bz%2fq/admin/x", Err("ambiguous-path")),
        ("/api%253bz%2fq/admin", Err("ambiguous-path")),
        ("/api;z%2fq%5cadmin", Err("ambiguous-path")),
        ("/api%3bz%252fq%5cadmin", Err("ambiguous-path")),
        ("/api;x/admin", Err("ambiguous-path")),
        ("/;/api/admin", Err("ambiguous-path")),
        ("/;a/b;c/../api/admin", Err("dot-segment")),
        // Decoding, then parameters; and the same after a second decoding.
        ("/api%3bx/admin", Err("ambiguous-path")),
        ("/api%3b%2fz/admin%2fx", Err("ambiguous-path")),
        ("/api%253bx/admin", Err("ambiguous-path")),
        ("/api%253b%252fz/admin%252fx", Err("ambiguous-path")),
        // Decoding all but slashes, then parameters, then slashes.
        ("/api/%3b%2fz/admin%2fx", Err("ambiguous-path")),
        ("/api/%253b%252fz/admin%252fx", Err("ambiguous-path")),
        // Slashes.
        ("/api%2fadmin", Err("ambiguous-path")),
        ("/api%252fadmin", Err("ambiguous-path")),
        ("/api%5cadmin", Err("ambiguous-path")),
        ("/api%5Cadmin%5Cx", Err("ambiguous-path")),
        ("//api/admin", Err("ambiguous-path")),
        ("/api//admin", Err("ambiguous-path")),
        ("/api/;/admin", Err("ambiguous-path")),
        ("/api/%2fadmin", Err("ambiguous-path")),
        ("/api;\\z/admin/x", Err("path-backslash")),
        ("/api\\admin", Err("path-backslash")),
        // An authority.
        ("//x/api/admin", Err("ambiguous-path")),
        ("/%2fx/api/admin", Err("ambiguous-path")),
        ("/%5cx/api/admin", Err("ambiguous-path")),
        // The query, decoded before it is looked for.
        ("/api/admin%3fx", Err("ambiguous-path")),
        ("/api/admin%23x", Err("ambiguous-path")),
        ("/api/admin%253fx", Err("ambiguous-path")),
        // File names on Windows.
        ("/api/admin./x", Err("ambiguous-path")),
        ("/api/admin%20/x", Err("ambiguous-path")),
        ("/api/admin%20.%20", Err("ambiguous-path")),
        ("/api./admin", Err("ambiguous-path")),
        // IIS.
        ("/api%25u002fadmin", Err("ambiguous-path")),
        ("/api/adm%25u0069n", Err("ambiguous-path")),
        // Cases that are no ASCII.
        ("/api/adm%C4%B1n", Err("ambiguous-path")),
        ("/api/admin%00x", Err("path-encoding")),
        ("/api/admin%2500x", Err("path-encoding")),
        ("/api/admin%0a", Err("path-encoding")),
        ("/api%c0%afadmin", Err("path-encoding")),
        ("/api%e0%80%afadmin", Err("path-encoding")),
        ("/api%u002fadmin", Err("path-encoding")),
        ("/api/x/%2e%2e/admin", Err("dot-segment")),
    ] {
        assert_eq!(taken(&routes, "gate.test", path).as_deref(), expected.as_deref(), "{path}");
    }
}

#[test]
fn a_literal_upstream_gets_paths_as_they_are_written() {
    let routes = rules();
    for (host, path, expected) in [
        ("literal.test", "/ws", Ok("literal ws")),
        ("literal.test", "/ws/x;v=1", Ok("literal ws")),
        ("literal.test", "/ws;jsessionid=1", Ok("literal")),
        ("literal.test", "//ws/x", Ok("literal")),
        ("literal.test", "/ws%2fx", Ok("literal")),
        ("literal.test", "/%77s", Ok("literal ws")),
        ("literal.test", "/ws/../x", Err("dot-segment")),
        ("literal.test", "/ws/%2e%2e/x", Err("dot-segment")),
        ("literal.test", "/ws/..;/x", Err("dot-segment")),
        ("literal.test", "/ws\\x", Err("path-backslash")),
        ("literal.test", "/ws%00", Err("path-encoding")),
        ("only-literal.test", "/ws;jsessionid=1", Err("no-route")),
        ("only.test", "/ws;jsessionid=1", Err("ambiguous-path")),
        ("only.test", "//ws/x", Err("ambiguous-path")),
        ("only.test", "/x", Err("no-route")),
    ] {
        assert_eq!(taken(&routes, host, path).as_deref(), expected.as_deref(), "{host}{path}");
    }
}

/// What a backend may do with a path, written without regard to speed or to the code it is compared with.
mod backend {
    type Step = fn(&str) -> String;

    fn percent_decoded(path: &str, keeps: &[&str]) -> String {
        let mut out = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let code = path.as_bytes().get(at..at + 3).and_then(|code| std::str::from_utf8(code).ok());
            let code = code.filter(|code| code.starts_with('%') && !keeps.contains(&code.to_lowercase().as_str()));
            match code.and_then(|code| u8::from_str_radix(code.trim_start_matches('%'), 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    at += 3;
                }
                None => {
                    out.push(path.as_bytes()[at]);
                    at += 1;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    fn per_segment(path: &str, change: impl Fn(&str) -> String) -> String {
        path.split('/').map(change).collect::<Vec<_>>().join("/")
    }

    fn without_dot_segments(path: &str) -> String {
        let mut kept: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment {
                "." => {}
                ".." => drop(kept.pop()),
                other => kept.push(other),
            }
        }
        format!("/{}", kept.join("/"))
    }

    pub(super) const STEPS: [(&str, Step); 13] = [
        ("decode", |path| percent_decoded(path, &[])),
        ("decode all but slashes", |path| percent_decoded(path, &["%2f"])),
        ("decode all but slashes of both kinds", |path| percent_decoded(path, &["%2f", "%5c"])),
        ("decode all but slashes and percent signs", |path| percent_decoded(path, &["%2f", "%5c", "%25"])),
        ("parameters", |path| per_segment(path, |segment| segment.split(';').next().unwrap().to_owned())),
        ("backslashes", |path| path.replace('\\', "/")),
        ("merge", |path| {
            let mut path = path.to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            path
        }),
        ("query", |path| path.split('?').next().unwrap().to_owned()),
        ("fragment", |path| path.split('#').next().unwrap().to_owned()),
        ("nul", |path| path.split('\0').next().unwrap().to_owned()),
        ("dot segments", without_dot_segments),
        ("windows", |path| per_segment(path, |segment| segment.trim_end_matches([' ', '.']).to_owned())),
        ("reference", |path| match path.strip_prefix("//") {
            Some(rest) => rest.split_once('/').map_or("/".to_owned(), |(_, rest)| format!("/{rest}")),
            None => path.to_owned(),
        }),
    ];

    /// The policy that the operator means for a path.
    pub(super) fn policy(path: &str) -> &'static str {
        let within = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}/"));
        match () {
            () if within("/api/admin") => "admin",
            () if within("/api") => "api",
            () if path.to_lowercase() == "/team" || path.to_lowercase().starts_with("/team/") => "team",
            () => "open",
        }
    }
}

fn path_of_pieces() -> impl Strategy<Value = String> {
    let pieces = vec![
        "/",
        "/",
        "//",
        "api",
        "api",
        "admin",
        "admin",
        "/api/admin",
        "team",
        "TEAM",
        "x",
        ";",
        ";x",
        "%3b",
        "%3B",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "%25",
        "2f",
        "3b",
        "3f",
        "%3f",
        "%23",
        "%20",
        ".",
        "%2e",
        "%252f",
        "%253b",
        "%255c",
        "%61",
        "%00",
        "\\",
        "%C5%BF",
        "u002f",
    ];
    prop::collection::vec(prop::sample::select(pieces), 1..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_order_of_lenient_steps_leads_to_the_policy_of_another_route(
        path in path_of_pieces(),
        steps in prop::collection::vec(0..backend::STEPS.len(), 0..9),
    ) {
        let routes = rules_once();
        if let Ok(name) = taken(routes, "gate.test", &path) {
            let mut seen = path.clone();
            let mut done = vec![];
            for step in steps {
                // Nobody decodes more than three times.
                if done.iter().filter(|name: &&&str| name.starts_with("decode")).count() == 3 && step < 2 {
                    continue;
                }
                let (name, step) = backend::STEPS[step];
                seen = step(&seen);
                done.push(name);
            }
            prop_assert_eq!(backend::policy(&seen), name, "{} becomes {} by {:?}", path, seen, done);
        }
    }
}

fn rules_once() -> &'static Routes {
    static ROUTES: std::sync::OnceLock<Routes> = std::sync::OnceLock::new();
    ROUTES.get_or_init(rules)
}

/// Two steps after each other may be told apart only where both apply, so all pairs and triples are tried on paths that
/// invite them.
#[test]
fn no_four_steps_lead_from_a_tempting_path_to_another_policy() {
    let routes = rules();
    let count = backend::STEPS.len();
    for path in [
        "/api;%2fz/admin%2fx",
        "/api%253bz%2fq/admin",
        "/api;z%2fq%5cadmin",
        "/api%3b%2fz/admin%2fx",
        "/api%253b%252fz/admin%252fx",
        "/api/%3b%2fz/admin%2fx",
        "/api%5c;x%2fadmin",
        "//x%2fapi/admin;y",
        "/api/admin%253fx%2f",
        "/api.%20/admin%2f",
        "/api;x%5c/admin%3f",
        "/api/x%3f;%2f..",
        "/%2f;%2fx/api/admin",
        "/x%23%2f..%2fapi/admin",
    ] {
        let Ok(name) = taken(&routes, "gate.test", path) else { continue };
        for code in 0..count.pow(4) {
            let steps = [code % count, code / count % count, code / count.pow(2) % count, code / count.pow(3)];
            let seen = steps.iter().fold(path.to_owned(), |seen, step| backend::STEPS[*step].1(&seen));
            assert_eq!(backend::policy(&seen), name, "{path} becomes {seen} by {steps:?}");
        }
    }
}
