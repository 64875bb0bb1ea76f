//! Mistakes that have a line and a cure, by the table that they are made in.

use super::*;

fn listed(text: &str) -> String {
    config::parse(text, Path::new("p.toml")).unwrap_err().to_string()
}

#[test]
fn an_empty_file_lacks_all_that_there_must_be() {
    let expected = "\
p.toml: there is no listener; add `[[listener]]` with `listen = \"127.0.0.1:8080\"`
p.toml: there is no route; add `[[route]]` with `upstream = \"NAME\"`";
    assert_eq!(listed(""), expected);
    assert!(listed("via = \"a b\"\n").contains("p.toml:1:7: `via` is a single token such as \"switchgate\""));
    let absent = config::load(Path::new("/nowhere/p.toml")).unwrap_err().to_string();
    assert!(absent.starts_with("/nowhere/p.toml: cannot read the config: "), "{absent}");
    assert!(absent.ends_with("; name another with `--config FILE`"), "{absent}");
}

#[test]
fn after_a_syntax_error_nothing_is_guessed() {
    let errors = config::parse("vai = 1\nvia = \n", Path::new("p.toml")).unwrap_err();
    assert!(errors.problems().iter().all(|problem| problem.line == 2), "{errors}");
}

#[test]
fn a_column_counts_characters() {
    let text = "[[route]]\nupstream = \"e\"\nhost = [\"ä\", \"b\"] # é\n[upstream.e]\nurl = \"builtin:echo\"\n";
    assert!(listed(text).contains("p.toml:3:9: `ä` can never match a host"), "{}", listed(text));
    let text = text.replace("\"b\"", "\"b:1\"");
    assert!(listed(&text).contains("p.toml:3:14: `b:1` can never match a host"), "{}", listed(&text));
}

#[test]
fn values_of_the_wrong_kind_are_told_what_is_expected() {
    let text = "\
via = 1
workers = 0
trusted_proxies = 1
limits = 1
listener = {}
route = []
upstream = []
[log]
query = \"yes\"
[drain]
grace = 30
spread = \"0s\"
code = -1
";
    let expected = "\
p.toml: there is no listener; add `[[listener]]` with `listen = \"127.0.0.1:8080\"`
p.toml: there is no route; add `[[route]]` with `upstream = \"NAME\"`
p.toml:1:7: this is an integer; expected a string
p.toml:2:11: this is an integer; expected \"auto\" or a whole number from 1 to 1024
p.toml:3:19: this is an integer; expected a string or a list of strings
p.toml:4:10: this is an integer; expected a table
p.toml:5:12: this is a table; expected a list; write its name in double brackets, as in `[[listener]]`
p.toml:7:12: this is a list; expected tables with a name each
p.toml:9:9: this is a string; expected `true` or `false`
p.toml:11:9: this is an integer; expected a duration such as \"500ms\", \"30s\", \"10m\" or \"1h\"
p.toml:12:10: a duration of zero; \"never\" is written \"off\" where that is allowed
p.toml:13:8: this is an integer; expected a whole number from 0 up";
    assert_eq!(listed(text), expected, "\n{}", listed(text));
}

#[test]
fn what_a_listener_and_its_tls_lack_is_said() {
    let text = "\
[[listener]]
name = \"nowhere\"
[[listener]]
listen = []
[[listener]]
listen = \"127.0.0.1:1\"
tls = {}
[[listener]]
listen = \"127.0.0.1:2\"
tls = { pairs = [{ certificate = \"a\", key = \"b\" }], key = \"b\" }
[[listener]]
listen = \"127.0.0.1:3\"
tls = { pairs = [] }
[[listener]]
listen = \"127.0.0.1:4\"
tls = { pairs = [{ certificate = \"a\", key = \"b\" }], development = true }
[[listener]]
listen = \"127.0.0.1:5\"
tls = { pairs = [{ certificate = \"a\" }] }
[[listener]]
listen = [\"127.0.0.1:5\", \"unix:a\", \"127.0.0.1:0\", \"127.0.0.1:0\"]
unix_mode = \"1777\"
[[listener]]
listen = \"unix:b\"
unix_mode = \"+660\"
[[route]]
upstream = \"e\"
[upstream.e]
url = \"builtin:echo\"
";
    let expected = "\
p.toml:1:1: this listener has no `listen`; write `listen = \"127.0.0.1:8080\"`
p.toml:4:10: `listen` names no address; write at least one
p.toml:7:7: `tls` has no `certificate`; name the PEM file with the chain
p.toml:7:7: `tls` has no `key`; name the PEM file with the private key
p.toml:10:7: `tls` has `pairs` beside `certificate` or `key`; move those into `pairs`
p.toml:13:17: `pairs` is empty; name at least one certificate and its key
p.toml:16:17: `development = true` makes one pair; use `certificate` and `key` with it
p.toml:19:18: `tls` has no `key`; name the PEM file with the private key
p.toml:21:11: `127.0.0.1:5` is listened on twice; keep one
p.toml:22:13: `1777` are no permissions; expected such as \"0660\"
p.toml:25:13: `+660` are no permissions; expected such as \"0660\"";
    assert_eq!(listed(text), expected, "\n{}", listed(text));
}

#[test]
fn what_a_route_says_twice_or_in_vain_is_said() {
    let text = "\
[[listener]]
listen = \"127.0.0.1:0\"
[[route]]
upstream = \"e\"
[[route]]
upstream = \"e\"
[[route]]
host = \"a.test\"
[[route]]
host = []
path = \"/1\"
upstream = \"e\"
handshake = \"lenient\"
waive = [\"key-fromat\"]
frames = \"off\"
max_frame_size = \"1KiB\"
max_message_size = \"1 KiB\"
ping = {}
[[route]]
path = \"/2\"
upstream = \"e\"
max_frame_size = \"0B\"
rate = {}
max_lifetime = \"1h\"
max_lifetime_jitter = \"1h\"
upstream_lost_code = 1001
[[route]]
path = \"/3\"
upstream = \"e\"
rate = { bytes = \"0B\", messages = 0 }
max_lifetime_jitter = \"1m\"
[upstream.e]
url = \"builtin:echo\"
[drain]
grace = \"1s\"
spread = \"2s\"
code = 1014
";
    let expected = "\
p.toml:5:1: another route has the same host and the path `/`; keep one
p.toml:7:1: this route has no `upstream`; name one of the `[upstream.NAME]` tables
p.toml:10:8: `host` names no host; write `\"*\"` for every one
p.toml:14:10: there is no check `key-fromat` to waive; did you mean `key-format`?
p.toml:16:18: `max_frame_size` needs to know frames; leave out `frames = \"off\"` or this
p.toml:17:20: `1 KiB` is no size; expected a size such as \"512B\", \"64KiB\" or \"1MiB\"
p.toml:18:8: `ping` needs to know frames; leave out `frames = \"off\"` or this
p.toml:22:18: no message would pass; leave it out for no limit
p.toml:23:8: `rate` limits nothing; give it `bytes`, `messages` or both
p.toml:25:23: the jitter must be shorter than `max_lifetime`
p.toml:26:22: Close code 1001 is not allowed for a lost upstream; expected 1011, 1012, 1013 or 4000 to 4999
p.toml:30:18: nothing would ever pass; leave it out for no limit
p.toml:30:35: nothing would ever pass; leave it out for no limit
p.toml:31:23: the jitter does nothing without `max_lifetime`; add that or leave this out
p.toml:36:10: the spread is longer than `grace`: the last clients would be cut unasked; make it shorter
p.toml:37:8: Close code 1014 is not allowed here; expected 1001, 1011, 1012, 1013 or 4000 to 4999";
    assert_eq!(listed(text), expected, "\n{}", listed(text));
}

#[test]
fn hosts_and_paths_that_no_request_can_have_are_mistakes() {
    let with = |key: &str, value: &str| {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"e\"\n{key} = '{value}'\n\
             [upstream.e]\nurl = \"builtin:echo\"\n"
        );
        config::parse(&text, Path::new("p.toml")).err().map(|errors| errors.to_string())
    };
    for host in ["a.test:", "a.test.", "*.", "*.a.test:80", "a.*.test", "https://a.test", "a test", ""] {
        let expected = format!(
            "p.toml:5:8: `{host}` can never match a host; expected `example.com`, `*.example.com` or `*`, without a port"
        );
        assert_eq!(with("host", host).as_deref(), Some(expected.as_str()));
    }
    for path in [
        "", "a", "//", "/a//b", "/./a", "/a/..", "/a%20", "/a?b", "/a#b", "/a\\b", "/a;b", "/a b", "/ä", "/a.", "/a./b",
    ] {
        let error = with("path", path).unwrap_or_else(|| panic!("{path} was taken"));
        assert!(error.starts_with(&format!("p.toml:5:8: `{path}` can never match a path; ")), "{error}");
    }
    for (key, value) in [("host", "*"), ("host", "*.a.test"), ("host", "[::1]"), ("path", "/a.b/..c/"), ("path", "/")] {
        assert_eq!(with(key, value), None);
    }
}

#[test]
fn an_upstream_without_a_place_is_a_mistake() {
    let text = "\
[[listener]]
listen = \"127.0.0.1:0\"
[[route]]
upstream = \"a\"
[upstream.a]
pool_max_idle = 1
[upstream.b]
url = \"http://b:port\"
[upstream.c]
url = \"c.test:80\"
";
    let listed = listed(text);
    let expected = "\
p.toml:5:1: the upstream `a` has no `url`; write `url = \"http://127.0.0.1:9000\"`
p.toml:8:7: `http://b:port`: host or port is malformed; expected `http://host:port`, `https://host:port`, `unix:/path/of.sock` or `builtin:echo`
p.toml:10:7: `c.test:80` is no upstream; expected `http://host:port`, `https://host:port`, `unix:/path/of.sock` or `builtin:echo`";
    assert_eq!(listed, expected, "\n{listed}");
}

#[test]
fn contacts_of_a_ca_are_one_address_each() {
    let text = "\
[[listener]]
listen = \"127.0.0.1:0\"
[listener.tls.acme]
directory = \"https://ca.test\"
hosts = \"a.test\"
storage = \"acme\"
contact = [\"mailto:a@b.test\", \"mailto:a@b.test,c@d.test\", \"mailto:a@b.test?cc=c\", \"mailto:a @b.test\", \"mailto:a\"]
[[route]]
upstream = \"e\"
[upstream.e]
url = \"builtin:echo\"
";
    let listed = listed(text);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.lines().all(|line| line.ends_with("is no contact; expected `mailto:ops@example.com`")), "{listed}");
}

#[test]
fn the_longest_path_of_a_socket_is_taken() {
    let parsed = |length: usize| {
        let path = format!("/{}", "x".repeat(length - 1));
        let text = format!(
            "[[listener]]\nlisten = \"unix:{path}\"\n[[route]]\nupstream = \"e\"\n[upstream.e]\nurl = \"builtin:echo\"\n"
        );
        config::parse(&text, Path::new("p.toml")).map_err(|errors| errors.to_string())
    };
    assert!(parsed(107).is_ok());
    assert!(parsed(108).unwrap_err().contains("at most 107 bytes"));
}

#[test]
fn a_path_that_ignores_case_does_so_for_the_paths_below_it() {
    let with = |routes: &str| {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[upstream.e]\nurl = \"builtin:echo\"\n\
             [upstream.f]\nurl = \"builtin:echo\"\n{routes}"
        );
        config::parse(&text, Path::new("p.toml")).map_err(|errors| errors.to_string())
    };
    let route = |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\nupstream = \"e\"\n{more}\n");
    let ignores = "ignore_case = true";
    for (above, below, expected) in [
        (route("/", ""), route("/api/Admin", ignores), [false, true]),
        (route("/", ignores), route("/api", ""), [true, true]),
        (route("/", ignores), route("/api", "").replace("\"e\"", "\"f\""), [true, false]),
        (route("/a", ignores), route("/ab", ""), [true, false]),
        (route("/a/b", ignores), route("/a", ""), [true, false]),
        (route("/a/", ignores), route("/A/b", ""), [true, true]),
        (route("/a", ignores), route("/a/b/c", "host = \"x.test\""), [true, true]),
        (route("/A", ""), route("/a", ""), [false, false]),
    ] {
        let model = with(&(above.clone() + &below)).unwrap();
        let found: Vec<_> = model.routes.all().iter().map(|route| route.ignore_case).collect();
        assert_eq!(found, expected, "{above}{below}");
    }
    for (above, below, problem) in [
        (route("/A", ""), route("/a", ignores), "another route has the same host and the path `/a`"),
        (route("/A", ignores), route("/a", ""), "another route has the same host and the path `/a`"),
        (route("/", ignores) + &route("/B", ""), route("/b", ""), "another route has the same host and the path `/b`"),
        (route("/", ignores), route("/b", "ignore_case = false"), "a parent route on the same upstream has"),
    ] {
        let found = with(&(above.clone() + &below)).map(|_| ()).unwrap_err();
        assert!(found.contains(problem), "{above}{below}{found}");
    }
}

#[test]
fn close_codes_are_those_that_tell_a_client_to_come_back() {
    let with = |route: &str, drain: &str| {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"e\"\n{route}\n[upstream.e]\n\
             url = \"builtin:echo\"\n[drain]\n{drain}\n"
        );
        config::parse(&text, Path::new("p.toml")).map_err(|errors| errors.to_string())
    };
    for code in (0..=5000).chain([65_535, 65_536 + 1011, 1 << 40]) {
        let good = matches!(code, 1011..=1013 | 4000..=4999);
        let lost = with(&format!("upstream_lost_code = {code}"), "");
        assert_eq!(lost.is_ok(), good, "upstream_lost_code {code}");
        if let Ok(model) = &lost {
            assert_eq!(u64::from(model.routes.all()[0].relay.upstream_lost_code), code);
        }
        let drain = with("", &format!("code = {code}"));
        assert_eq!(drain.is_ok(), good || code == 1001, "drain.code {code}");
        if let Err(text) = drain {
            assert!(text.contains(&format!("Close code {code} is not allowed here; expected 1001, 1011")), "{text}");
        }
    }
    let text = with("upstream_lost_code = \"1011\"", "").unwrap_err();
    assert!(text.contains("this is a string; expected a whole number from 0 up"), "{text}");
}
