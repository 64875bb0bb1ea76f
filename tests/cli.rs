//! The command line as a person or a script meets it: texts, exit codes, which stream.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

fn switchgate(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchgate"));
    // Whatever the developer has set must not change what is printed.
    command.args(arguments).env_remove("RUST_LOG").env_remove("NO_COLOR");
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check(folder: &Path, text: &str) -> Output {
    let file = folder.join("proxy.toml");
    std::fs::write(&file, text).unwrap();
    command(&["check"]).current_dir(folder).output().unwrap()
}

#[test]
fn every_help_has_examples() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["probe", "--help"],
        &["completions", "--help"],
        &["schema", "--help"],
    ] {
        let output = switchgate(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(out(&output).contains("Examples:\n  switchgate"), "{arguments:?}: {}", out(&output));
    }
}

#[test]
fn the_version_names_the_commit() {
    let output = switchgate(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    let commit = text
        .strip_prefix(concat!("switchgate ", env!("CARGO_PKG_VERSION"), " (commit "))
        .and_then(|rest| rest.strip_suffix(")\n"));
    assert!(commit.is_some_and(|commit| !commit.is_empty()), "{text}");
}

#[test]
fn bad_usage_is_exit_code_2_and_goes_to_stderr() {
    for arguments in [
        &["--no-such"][..],
        &["serve"],
        &["probe"],
        &["probe", "http://localhost/"],
        &["probe", "ws://localhost/", "--timeout", "10"],
        &["probe", "ws://localhost/", "--timeout", "0s"],
        &["probe", "ws://localhost/", "--header", "Origin: https://a.example"],
        &["probe", "ws://localhost/", "--subprotocol", "a,b"],
        &["probe", "ws://localhost/", "--subprotocol", "a", "--subprotocol", "a"],
        &["probe", "wss://localhost/", "--insecure", "--ca", "ca.pem"],
        &["--config", "a.toml", "probe", "ws://localhost/"],
        &["--config", "a.toml", "check", "--config", "b.toml"],
        &["completions", "tcsh"],
    ] {
        let output = switchgate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(err(&output).starts_with("error: "), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn check_is_silent_about_nothing_and_finds_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let good = check(
        folder.path(),
        "[[listener]]\nlisten = \"127.0.0.1:8080\"\n\n[[route]]\nupstream = \"echo\"\n\n[upstream.echo]\nurl = \"builtin:echo\"\n",
    );
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));

    let bad = check(
        folder.path(),
        "[[listener]]\nlisten = \"127.0.0.1:99999\"\n\n[[route]]\nupstrem = \"echo\"\n\n[upstream.echo]\nurl = \"builtin:echo\"\n",
    );
    assert_eq!(bad.status.code(), Some(2));
    let text = out(&bad) + &err(&bad);
    assert!(text.contains("proxy.toml:2:"), "{text}");
    assert!(text.contains("proxy.toml:5:"), "{text}");
    assert!(text.contains("upstream"), "the nearest known name: {text}");
}

#[test]
fn check_warns_when_the_limit_of_open_files_has_no_room_for_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let config = |limits: &str, connections: usize| {
        let text = format!(
            "{limits}[[listener]]\nlisten = \"127.0.0.1:0\"\nmax_connections = {connections}\n[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nurl = \"http://127.0.0.1:9\"\n"
        );
        std::fs::write(folder.path().join("proxy.toml"), text).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 1000; exec \"$0\" check", env!("CARGO_BIN_EXE_switchgate")]);
        shell.current_dir(folder.path()).output().unwrap()
    };
    for (limits, connections, warning) in [
        ("", 100, None),
        ("", 5000, Some("`max_connections` of all listeners is 5000")),
        ("[limits]\nmax_exchanges = 900\n", 100, Some("`max_exchanges` is 900")),
        ("[limits]\nmax_exchanges = 100\n", 100, None),
    ] {
        let output = config(limits, connections);
        assert_eq!((output.status.code(), &*out(&output)), (Some(0), "proxy.toml: no problems\n"));
        match warning {
            None => assert_eq!(err(&output), ""),
            Some(text) => assert!(
                err(&output).starts_with("warning: the limit of 1000 open files") && err(&output).contains(text),
                "{}",
                err(&output)
            ),
        }
    }
}

#[test]
fn check_reads_the_certificates_that_a_start_would_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = |development: bool| {
        format!(
            "[[listener]]\nlisten = \"127.0.0.1:8443\"\ntls = {{ certificate = \"c.pem\", key = \"k.pem\", development = {development} }}\n\
             [[route]]\nupstream = \"echo\"\n[upstream.echo]\nurl = \"builtin:echo\"\n"
        )
    };
    let missing = check(folder.path(), &text(false));
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("cannot read certificate"), "{}", err(&missing));
    assert_eq!(check(folder.path(), &text(true)).status.code(), Some(0));
    std::fs::write(folder.path().join("c.pem"), "mine").unwrap();
    let half = check(folder.path(), &text(true));
    assert_eq!(half.status.code(), Some(2), "{}", err(&half));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "a check makes nothing");
}

#[test]
fn a_missing_config_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["check"][..], &["run"], &[]] {
        let output = command(arguments).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).contains("proxy.toml"), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn completions_are_written_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = switchgate(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(out(&output).contains("subprotocol"), "{shell}");
    }
}

#[test]
fn the_schema_is_json() {
    let output = switchgate(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema.is_object());
}

#[test]
fn probe_tells_a_wrong_server_by_its_exit_code_and_names_the_rule() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )
            .unwrap();
    });
    let output = switchgate(&["probe", &url]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("FAIL  Sec-WebSocket-Accept answers our key"), "{text}");
    assert!(text.contains("got s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
    assert!(text.contains("RFC 6455 section 4.1, response item 4"), "{text}");
}

#[test]
fn probe_of_a_closed_port_fails_with_its_reason() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = switchgate(&["probe", &format!("ws://{address}/"), "--timeout", "5s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("FAIL  the server takes connections"), "{}", out(&output));
}
