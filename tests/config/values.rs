//! What a key means: its default is the documented one, its value arrives, and its bounds are where they are said to be.

use serde_json::Value;

use super::*;

/// A config with every table, in which `#NAME` is the place for a further key of the table of that name.
const ALL: &str = "#File
[limits]
#LimitsTable
[log]
#LogTable
[drain]
#DrainTable
[[listener]]
listen = \"127.0.0.1:0\"
redirect = \"https\"
#ListenerTable
[listener.proxy_protocol]
from = \"10.0.0.0/8\"
#ProxyProtocolTable
[[listener]]
listen = \"127.0.0.1:0\"
[listener.tls]
certificate = \"a.pem\"
key = \"a.key\"
#TlsTable
[listener.tls.client]
ca = \"ca.pem\"
#ClientTable
[[listener]]
listen = \"127.0.0.1:0\"
[listener.tls.acme]
directory = \"https://ca.test/directory\"
hosts = \"a.test\"
storage = \"acme\"
#AcmeTable
[[route]]
upstream = \"u\"
#RouteTable
[route.rate]
bytes = \"1KiB\"
#RateTable
[route.ping]
#PingTable
[route.origin]
#OriginTable
[[route]]
path = \"/limited\"
upstream = \"u\"
[route.limits]
#RouteLimitsTable
[upstream.u]
url = \"https://u.test\"
#UpstreamTable
";

/// What is understood with one more line in a table.
fn with(table: &str, line: &str) -> Result<config::model::Model, String> {
    let place = format!("#{table}\n");
    assert!(ALL.contains(&place), "no place for keys of {table}");
    let text = ALL.replacen(&place, &format!("{line}\n"), 1);
    config::parse(&text, Path::new("p.toml")).map_err(|errors| errors.to_string())
}

/// The default that a description names, as it is written in the file. Some are told in words, and are not found.
fn documented(description: &str) -> Option<String> {
    let rest = description.split_once("Default")?.1.trim_start();
    if let Some(quoted) = rest.strip_prefix('`') {
        return Some(format!("\"{}\"", quoted.split_once('`')?.0));
    }
    let word = rest.split(['.', ',', ' ', ':']).next()?;
    (word.parse::<u64>().is_ok() || word.parse::<bool>().is_ok()).then(|| word.to_owned())
}

/// Another value that the key may have.
fn another(schema: &Value, property: &Value, default: &str) -> String {
    if let Ok(flag) = default.parse::<bool>() {
        return (!flag).to_string();
    }
    if let Ok(number) = default.parse::<u64>() {
        // Of two codes it is the other one.
        return match number {
            1001 => 1012,
            number => number - 1,
        }
        .to_string();
    }
    if let Some(kind) = property["$ref"].as_str() {
        let words = schema["$defs"][kind.rsplit('/').next().unwrap()]["oneOf"].as_array().unwrap();
        let mut words = words.iter().map(|word| word["const"].to_string());
        return words.find(|word| word != default).unwrap();
    }
    let text = default.trim_matches('"');
    let other = match () {
        () if text == "auto" => return "7".to_owned(),
        () if text == "same-origin" => "*",
        () if text == "/" => "/other",
        () if text.ends_with('B') => "8KiB",
        () if text == "off" || text.starts_with(|c: char| c.is_ascii_digit()) => "7s",
        () => "other",
    };
    format!("\"{other}\"")
}

#[test]
fn what_is_left_out_is_as_documented_and_what_is_given_arrives() {
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    let shown =
        |table: &str, line: &str| format!("{:?}", with(table, line).unwrap_or_else(|errors| panic!("{errors}")));
    let left_out = shown("File", "");
    let tables = schema["$defs"].as_object().unwrap().iter().map(|(name, table)| (name.as_str(), table));
    let mut known = 0;
    for (table, of) in tables.chain([("File", &schema)]) {
        for (key, property) in of["properties"].as_object().into_iter().flatten() {
            let Some(default) = property["description"].as_str().and_then(documented) else { continue };
            known += 1;
            assert_eq!(shown(table, &format!("{key} = {default}")), left_out, "{table}.{key} is not {default}");
            let other = another(&schema, property, &default);
            assert_ne!(shown(table, &format!("{key} = {other}")), left_out, "{table}.{key} = {other} does nothing");
        }
    }
    assert!(known > 50, "only {known} defaults were found in the descriptions");
}

#[test]
fn a_shorter_grace_has_a_shorter_spread() {
    for (grace, spread) in [("30s", 10_000), ("20s", 10_000), ("8s", 4000)] {
        let drain = with("DrainTable", &format!("grace = \"{grace}\"")).unwrap().drain;
        assert_eq!(drain.spread.as_millis(), spread, "{grace}");
    }
    let drain = with("DrainTable", "grace = \"8s\"\nspread = \"8s\"").unwrap().drain;
    assert_eq!(drain.spread, drain.grace);
}

#[test]
fn every_bound_is_where_it_is_said_to_be() {
    let wide = usize::MAX;
    #[rustfmt::skip]
    let bounds = [
        ("LimitsTable", "max_head_size", "B", 1024, 65_536),
        ("LimitsTable", "max_header_count", "", 8, 1000),
        ("LimitsTable", "max_early_bytes", "B", 1, 1_048_576),
        ("LimitsTable", "max_streams", "", 1, 1000),
        ("LimitsTable", "client_prefix_v4", "", 1, 32),
        ("LimitsTable", "client_prefix_v6", "", 1, 128),
        ("LimitsTable", "body_timeout", "ms", 1, 31_536_000_000),
        ("File", "workers", "", 1, 1024),
        ("ListenerTable", "max_connections", "", 1, 10_000_000),
        ("ListenerTable", "max_connections_per_client", "", 1, 10_000_000),
        ("ListenerTable", "redirect_port", "", 1, 65_535),
        ("TlsTable", "max_record_size", "B", 512, 16_384),
        ("RouteTable", "max_frame_size", "B", 1, wide),
        ("RouteTable", "max_message_size", "B", 1, wide),
        ("RouteLimitsTable", "websockets", "", 1, 10_000_000),
        ("RouteLimitsTable", "websockets_per_origin", "", 1, 10_000_000),
        ("RouteLimitsTable", "handshakes_per_second", "", 1, 1_000_000),
        ("RateTable", "messages", "", 1, wide),
        ("UpstreamTable", "pool_max_idle", "", 0, 10_000),
    ];
    for (table, key, unit, least, most) in bounds {
        let line = |value: usize| match unit {
            "" => format!("{key} = {value}"),
            unit => format!("{key} = \"{value}{unit}\""),
        };
        let inside = [Some(least), Some(most).filter(|most| *most < wide)];
        for value in inside.into_iter().flatten() {
            assert!(with(table, &line(value)).is_ok(), "{key} = {value}");
        }
        let outside = [least.checked_sub(1), most.checked_add(1)];
        for value in outside.into_iter().flatten() {
            let errors = with(table, &line(value)).unwrap_err();
            assert!(errors.lines().count() == 1 && errors.starts_with("p.toml:"), "{key} = {value}: {errors}");
        }
    }
}

#[test]
fn units_are_what_they_are_called() {
    for (text, millis) in [("7ms", 7), ("7s", 7000), ("7m", 420_000), ("7h", 25_200_000), ("7d", 604_800_000)] {
        let model = with("RouteTable", &format!("idle_timeout = \"{text}\"")).unwrap();
        assert_eq!(model.routes.all()[0].relay.idle_timeout.unwrap().as_millis(), millis, "{text}");
    }
    for (text, bytes) in [("7B", 7), ("7KiB", 7 << 10), ("7MiB", 7 << 20), ("7GiB", 7 << 30)] {
        let model = with("RouteTable", &format!("max_message_size = \"{text}\"")).unwrap();
        assert_eq!(model.routes.all()[0].relay.max_message_size, bytes, "{text}");
    }
}

#[test]
fn an_upstream_is_reached_where_its_url_says() {
    use config::model::Endpoint::{Tcp, Tls};
    for (url, host, port, name) in [
        ("http://a.test", "a.test", 80, None),
        ("http://a.test:81/", "a.test", 81, None),
        ("https://a.test", "a.test", 443, Some("a.test")),
        ("https://[::1]:444", "[::1]", 444, Some("::1")),
    ] {
        let text =
            format!("[[listener]]\nlisten = \"[::]:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n");
        let model = config::parse(&text, Path::new("p.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let found = match &model.upstreams[0].endpoint {
            Tcp { host, port } => (host.as_str(), *port, None),
            Tls { host, port, tls } => (host.as_str(), *port, Some(tls.server_name.as_str())),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, (host, port, name), "{url}");
    }
}

#[test]
fn hosts_to_order_for_are_kept_in_lower_case_and_each_ca_has_a_folder_of_its_own() {
    let acme = |directory: &str, hosts: &str| {
        let text = ALL.replace("https://ca.test/directory", directory).replace("\"a.test\"", hosts);
        let model = config::parse(&text, Path::new("/etc/p.toml")).map_err(|errors| errors.to_string())?;
        Ok::<_, String>(model.listeners[2].tls.clone().unwrap().acme.unwrap())
    };
    let found = acme("https://ca.test/directory", "[\"A.test\", \"b.Test\"]").unwrap();
    assert_eq!(found.hosts, ["a.test", "b.test"]);
    let folders: std::collections::HashSet<_> = [
        "https://ca.test/a_b",
        "https://ca.test/a/b",
        "https://ca.test/A/b",
        "https://ca.test/a%2Fb",
        "https://ca.test/ab",
        "https://ca.test/a%5Fb",
    ]
    .map(|directory| acme(directory, "\"a.test\"").unwrap().storage)
    .into();
    assert_eq!(folders.len(), 6, "two CAs share an account: {folders:?}");
    let many = |count: usize| format!("{:?}", (0..count).map(|number| format!("a{number}.test")).collect::<Vec<_>>());
    assert_eq!(acme("https://ca.test", &many(100)).unwrap().hosts.len(), 100);
    assert!(acme("https://ca.test", &many(101)).unwrap_err().contains("more than 100 hosts"));
    let long =
        |length: usize| format!("\"{}\"", format!("{}a.", "a".repeat(60)).repeat(9)[..length - 1].to_owned() + "a");
    assert!(acme("https://ca.test", &long(253)).is_ok());
    assert!(acme("https://ca.test", &long(254)).unwrap_err().contains("no DNS name"));
}
