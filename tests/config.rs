//! The config file: the shipped example, the schema, and what a mistake looks like.

mod mistakes;
mod values;

use std::path::Path;

use switchgate::config;

fn root(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_shipped_example_is_sound() {
    let model = config::parse(&root("proxy.toml"), Path::new("proxy.toml")).unwrap();
    assert_eq!((model.listeners.len(), model.routes.all().len(), model.upstreams.len()), (2, 1, 2));
    assert!(root("proxy.toml").starts_with("#:schema ./proxy.schema.json\n"));
}

#[test]
fn the_example_with_every_comment_taken_out_is_sound_too() {
    let text: Vec<String> = root("proxy.toml")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    let model = config::parse(&text.join("\n"), Path::new("proxy.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(model.trusted_proxies.len(), 1);
}

#[test]
fn the_schema_is_the_one_that_is_checked_in() {
    assert!(root("proxy.schema.json") == config::schema(), "run: switchgate schema > proxy.schema.json");
}

#[test]
fn every_key_is_documented() {
    let schema: serde_json::Value = serde_json::from_str(&config::schema()).unwrap();
    let documented = root("docs/configuration.md");
    let tables = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for key in tables.filter_map(|table| table["properties"].as_object()).flat_map(|keys| keys.keys()) {
        assert!(documented.contains(&format!("`{key}`")), "docs/configuration.md does not know `{key}`");
    }
}

#[test]
fn every_mistake_is_named_at_once_with_its_place_and_cure() {
    let text = r#"vai = "x"
trusted_proxies = ["lan"]

[[listener]]
listen = "8080"
max_conections = 5

[[route]]
host = "a.example:80"
path = "chat"
upstream = "chta"
waive = ["key-format"]
idle_timeout = "10"

[route.origin]
allow = ["https://a.example/", "https://b.example:443"]
absent = "deny"

[upstream.chat]
url = "ws://127.0.0.1:9000"
dial_timeout = "off"

[upstream.other]
url = "http://127.0.0.1:9000/path"

[limits]
max_head_size = "1MiB"
"#;
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:1:1: unknown key `vai`; did you mean `via`?
p.toml:2:20: `lan`: it is neither an address nor a network; write `10.0.0.0/8` or `::1`, or `unix`
p.toml:5:10: `8080` is no address with a port; expected `127.0.0.1:8080`, `[::]:443` or `unix:/run/gate.sock`
p.toml:6:1: unknown key `max_conections`; did you mean `max_connections`?
p.toml:9:8: `a.example:80` can never match a host; expected `example.com`, `*.example.com` or `*`, without a port
p.toml:10:8: `chat` can never match a path; it begins with `/`, is ASCII, and holds no space, `//`, dot segment, `%`, `;`, `\\`, `?` or `#`
p.toml:11:12: there is no upstream `chta`; did you mean `chat`?
p.toml:12:9: `waive` does nothing without `handshake = \"lenient\"`; add that or leave `waive` out
p.toml:13:16: `10` is no duration; expected a duration such as \"500ms\", \"30s\", \"10m\" or \"1h\", at most 365 days
p.toml:16:10: the origin `https://a.example/` can never match: it goes on after host and port; leave out the path and any trailing slash
p.toml:16:32: the origin `https://b.example:443` can never match: no client sends the default port of its scheme; leave it out
p.toml:17:10: unknown value `deny`; expected one of: allow, refuse
p.toml:20:7: `ws://127.0.0.1:9000`: the scheme is the one of the handshake; expected `http://host:port`, `https://host:port`, `unix:/path/of.sock` or `builtin:echo`
p.toml:21:16: this wait cannot be \"off\"; write a duration, such as the default of 5s
p.toml:24:7: `http://127.0.0.1:9000/path`: an upstream has no path, requests keep their own; expected `http://host:port`, `https://host:port`, `unix:/path/of.sock` or `builtin:echo`
p.toml:27:17: 1048576 bytes are out of range; expected 1024B to 65536B";
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn a_limit_that_would_let_nothing_pass_or_do_nothing_is_a_mistake() {
    let text = "\
[[listener]]
listen = \"127.0.0.1:0\"
[[route]]
upstream = \"e\"
[route.limits]
websockets = 0
websockets_per_client = 10000001
handshakes_per_second = 1000001
handshakes_per_second_per_client = 0
[[route]]
path = \"/a\"
upstream = \"e\"
websocket = false
[route.limits]
handshakes_burst = 5
handshakes_burst_per_client = 0
[upstream.e]
url = \"builtin:echo\"
[limits]
client_prefix_v4 = 33
client_prefix_v6 = 0
";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:6:14: nothing would ever pass; leave it out for no limit
p.toml:7:25: 10000001 is out of range; expected 1 to 10000000
p.toml:8:25: 1000001 is out of range; expected 1 to 1000000
p.toml:9:36: nothing would ever pass; leave it out for no limit
p.toml:14:1: `limits` does nothing with `websocket = false`; leave one of them out
p.toml:15:20: `handshakes_burst` does nothing without `handshakes_per_second`; add that or leave this out
p.toml:16:31: nothing would ever pass; leave it out for no limit
p.toml:16:31: `handshakes_burst_per_client` does nothing without `handshakes_per_second_per_client`; add that or leave this out
p.toml:20:20: 33 is out of range; expected 1 to 32
p.toml:21:20: 0 is out of range; expected 1 to 128";
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn limits_are_as_written_and_a_burst_is_a_second_s_worth_unless_it_is_given() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"e\"\n\
                limits = { websockets_per_client = 7, handshakes_per_second = 100, handshakes_per_second_per_client = 2, \
                handshakes_burst_per_client = 9 }\n\
                [upstream.e]\nurl = \"builtin:echo\"\n[limits]\nclient_prefix_v6 = 48\n";
    let model = config::parse(text, Path::new("p.toml")).unwrap();
    let limits = model.routes.all()[0].limits;
    assert_eq!((limits.websockets, limits.websockets_per_client, limits.websockets_per_origin), (None, Some(7), None));
    let shown = |rate: Option<config::route_limits::Rate>| rate.map(|rate| (rate.per_second.get(), rate.burst.get()));
    assert_eq!((shown(limits.rate), shown(limits.client_rate)), (Some((100, 100)), Some((2, 9))));
    assert_eq!((model.limits.client_prefixes.v4, model.limits.client_prefixes.v6), (32, 48));
}

#[test]
fn an_upstream_with_a_mistake_is_still_known_to_its_routes() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n[upstream.a]\nurl = \"x\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err();
    assert_eq!(errors.problems().len(), 1, "{errors}");
}

#[test]
fn syntax_errors_have_a_place() {
    let errors = config::parse("[[listener]\n", Path::new("p.toml")).unwrap_err();
    assert!(errors.problems().iter().any(|problem| problem.line == 1), "{errors}");
}

#[test]
fn two_of_one_name_could_not_be_told_apart() {
    let text = "[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:0\"\n\
                [[route]]\nname = \"app\"\nupstream = \"e\"\n[[route]]\nname = \"app\"\npath = \"/admin\"\nupstream = \"e\"\n\
                [upstream.e]\nurl = \"builtin:echo\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:5:8: another listener is named `l`; give each a name of its own
p.toml:11:8: another route is named `app`; give each a name of its own";
    assert_eq!(errors, expected);
}

#[test]
fn what_is_said_of_tls_with_an_upstream_must_have_a_meaning() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n\
                [upstream.a]\nurl = \"https://a\"\ncertificate = \"a.pem\"\n\
                [upstream.b]\nurl = \"https://b\"\nkey = \"b.key\"\n\
                [upstream.c]\nurl = \"http://c\"\nca = \"c.pem\"\ncertificate = \"c.pem\"\nkey = \"c.key\"\n\
                [upstream.d]\nurl = \"https://d\"\npin = [\"sha256/AAAA\"]\n\
                [upstream.e]\nurl = \"https://e\"\npin = []\n\
                [upstream.f]\nurl = \"builtin:echo\"\npin = []\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:7:15: `certificate` without `key`; name the PEM file with its private key
p.toml:10:7: `key` without `certificate`; name the PEM file with the chain
p.toml:13:6: `ca` is for https upstreams only; change the url or leave it out
p.toml:14:15: `certificate` is for https upstreams only; change the url or leave it out
p.toml:15:7: `key` is for https upstreams only; change the url or leave it out
p.toml:18:8: `sha256/AAAA` is no pin; expected `sha256/` and the base64 of 32 bytes, 44 characters with one `=` at the end
p.toml:21:7: `pin` is empty; name a key, or leave it out to take any
p.toml:24:7: `pin` is for https upstreams only; change the url or leave it out";
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn a_proxy_header_is_believed_of_somebody_in_particular() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = { timeout = \"off\" }\n\
                [[listener]]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = { from = [] }\n\
                [[listener]]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = { from = [\"lan\"] }\n\
                [[route]]\nupstream = \"e\"\n[upstream.e]\nurl = \"builtin:echo\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:3:18: `proxy_protocol` has no `from`; name the balancers, as in `from = [\"10.0.0.0/8\"]`
p.toml:3:30: this wait cannot be \"off\"; write a duration, such as the default of 5s
p.toml:6:27: `proxy_protocol` has no `from`; name the balancers, as in `from = [\"10.0.0.0/8\"]`
p.toml:9:28: `lan`: it is neither an address nor a network; write `10.0.0.0/8` or `::1`, or `unix`";
    assert_eq!(errors, expected);
}

#[test]
fn balancers_that_could_never_connect_are_no_balancers() {
    let wrong = |listen: &str, from: &str| {
        let text = format!(
            "[[listener]]\nlisten = {listen}\nproxy_protocol = {{ from = {from} }}\n\
             [[route]]\nupstream = \"e\"\n[upstream.e]\nurl = \"builtin:echo\"\n"
        );
        config::parse(&text, Path::new("p.toml")).err().map(|errors| errors.to_string())
    };
    let lan_only = "p.toml:3:27: nobody in `from` can connect to `unix:a.sock`; add `unix`";
    let unix_only = "p.toml:3:27: nobody in `from` can connect to `[::]:0`; add an address or a network";
    for (listen, from, problem) in [
        ("\"unix:a.sock\"", "\"10.0.0.0/8\"", Some(lan_only)),
        ("\"[::]:0\"", "\"unix\"", Some(unix_only)),
        ("[\"[::]:0\", \"unix:a.sock\"]", "\"10.0.0.0/8\"", Some(lan_only)),
        ("[\"[::]:0\", \"unix:a.sock\"]", "[\"10.0.0.0/8\", \"unix\"]", None),
    ] {
        assert_eq!(wrong(listen, from).as_deref(), problem, "{listen} {from}");
    }
}

#[test]
fn what_a_unix_socket_cannot_be_is_said() {
    let text = "[[listener]]\nlisten = [\"unix:a.sock\", \"unix:a.sock\", \"unix:\", \"unix:@a\"]\nunix_mode = \"0888\"\n\
                [[listener]]\nlisten = \"unix:b.sock\"\ntls = { certificate = \"c\", key = \"k\" }\n\
                [[listener]]\nlisten = \"127.0.0.1:0\"\nunix_mode = \"0660\"\n\
                [[route]]\nupstream = \"e\"\n[upstream.e]\nurl = \"builtin:echo\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:2:26: `unix:a.sock` is listened on twice; keep one
p.toml:2:41: `unix:` names no file; expected such as `unix:/run/gate.sock`
p.toml:2:50: `unix:@a` names no file; expected such as `unix:/run/gate.sock`
p.toml:3:13: `0888` are no permissions; expected such as \"0660\"
p.toml:5:10: a Unix-domain socket has no TLS: what passes there stays on this machine; give it a listener of its own without `tls`
p.toml:9:13: `unix_mode` does nothing here; add a `unix:` path to `listen` or leave it out";
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn a_socket_path_must_be_one_that_the_system_takes() {
    let long = "x".repeat(110);
    let names_no_file = |path: &str| format!("`unix:{path}` names no file; expected such as `unix:/run/gate.sock`");
    let too_long = "the path of a socket has at most 107 bytes, its folder included, and this one has 110; shorten it";
    for (path, problem) in [
        ("", names_no_file("")),
        ("@abstract", names_no_file("@abstract")),
        ("folder/", names_no_file("folder/")),
        ("///run/b.sock", names_no_file("///run/b.sock")),
        // The kernel would make and reach `a`.
        ("a\\u0000b", names_no_file("a\\0b")),
        (&long, too_long.to_owned()),
    ] {
        for (listen, url, place) in [
            (format!("unix:{path}"), "builtin:echo".to_owned(), "2:10"),
            ("[::]:0".to_owned(), format!("unix:{path}"), "6:7"),
        ] {
            let text = format!(
                "[[listener]]\nlisten = \"{listen}\"\n[[route]]\nupstream = \"a\"\n[upstream.a]\nurl = \"{url}\"\n"
            );
            let errors = config::parse(&text, Path::new("p.toml")).unwrap_err().to_string();
            assert_eq!(errors, format!("p.toml:{place}: {problem}"));
        }
    }
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"e\"\n[upstream.e]\n\
                url = \"unix:/run/e.sock\"\nca = \"ca.pem\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    assert_eq!(errors, "p.toml:7:6: `ca` is for https upstreams only; change the url or leave it out");
    let sound =
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n[upstream.a]\nurl = \"unix:a.sock\"\n";
    let model = config::parse(sound, Path::new("/etc/gate/p.toml")).unwrap();
    let expected = config::model::Endpoint::Unix { path: "/etc/gate/a.sock".into() };
    assert_eq!(model.upstreams[0].endpoint, expected);
}

#[test]
fn a_proxy_header_goes_with_no_pool_and_to_nobody_inside() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n\
                [upstream.a]\nurl = \"http://a\"\nproxy_protocol = \"v1\"\npool_max_idle = 8\npool_idle_timeout = \"1s\"\n\
                [upstream.b]\nurl = \"builtin:echo\"\nproxy_protocol = \"v2\"\n\
                [upstream.c]\nurl = \"http://c\"\nproxy_protocol = 2\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:8:17: `pool_max_idle` does nothing with `proxy_protocol`: no connection is kept, since each tells of one client; leave out one of them
p.toml:9:21: `pool_idle_timeout` does nothing with `proxy_protocol`: no connection is kept, since each tells of one client; leave out one of them
p.toml:12:18: `builtin:echo` reads no PROXY header; leave out `proxy_protocol`
p.toml:15:18: this is an integer; expected one of: v1, v2";
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn http2_towards_an_upstream_is_for_those_that_can_share_connections() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n\
                [upstream.a]\nurl = \"http://a\"\nprotocol = \"h2\"\nproxy_protocol = \"v2\"\n\
                [upstream.b]\nurl = \"builtin:echo\"\nprotocol = \"h2\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    let expected = "\
p.toml:7:12: `protocol = \"h2\"` with `proxy_protocol`: clients share its connections, and a PROXY header tells of one; leave out one of them
p.toml:11:12: `builtin:echo` speaks HTTP/1.1; leave out `protocol`";
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn a_listener_that_asks_for_certificates_cannot_be_validated_over_tls() {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls.client]\nca = \"clients.pem\"\nmode = \"required\"\n\
                [listener.tls.acme]\ndirectory = \"https://ca.test/directory\"\nhosts = [\"a.test\"]\nstorage = \"acme\"\n\
                [[route]]\nupstream = \"e\"\n[upstream.e]\nurl = \"builtin:echo\"\n";
    let errors = config::parse(text, Path::new("p.toml")).unwrap_err().to_string();
    assert!(errors.contains("`client.mode = \"required\"` refuses it"), "{errors}");
}
