//! Pages in Chromium and in Firefox ESR, both driven by `browser.mjs`.

use std::{path::Path, process::Stdio, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::PublicKeyData;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{installed, node, present};
use crate::support::{
    authority::Authority,
    process::{DEVELOPMENT, Process},
    site,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Browser {
    Chromium,
    Firefox,
}

impl Browser {
    pub(super) const ALL: [Self; 2] = [Self::Chromium, Self::Firefox];

    /// Its program, where it is installed together with the library that its driver needs.
    pub(super) fn path(self) -> Option<&'static Path> {
        let (name, path) = match self {
            Self::Chromium => ("Chromium", Path::new("/usr/bin/chromium")),
            Self::Firefox => ("Firefox ESR", Path::new("/usr/bin/firefox-esr")),
        };
        let driver = present("Node's ws", &installed().join("node_modules/ws"));
        (present(name, path) && driver).then_some(path)
    }

    /// What the page at `url` leaves in `window.result`.
    pub(super) async fn result(self, path: &Path, url: &str, limit: Duration) -> Value {
        self.result_trusting(path, url, limit, None).await
    }

    /// The same where Chromium trusts the certificate with this key (SHA-256 in base64) instead of ignoring its errors.
    async fn result_trusting(self, path: &Path, url: &str, limit: Duration, key: Option<&str>) -> Value {
        let kind = match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
        };
        let mut driver = node("browser.mjs");
        driver.arg(kind).arg(path).arg(url).arg(limit.as_secs().to_string()).args(key);
        // The driver keeps the limit itself and ends the browser then.
        let run = driver.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(limit + Duration::from_secs(10), run).await.expect("an end of the driver").unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{self:?}: {error}: {text}"))
    }
}

/// A gate whose page opens WebSockets at `/echo`; `more` holds further tables.
pub(super) async fn gate_with_page(page: &'static str, more: &str) -> (Process, String) {
    let pages = site::start(page).await;
    let gate = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
         [[route]]\nupstream = \"pages\"\nwebsocket = false\n[[route]]\npath = \"/echo\"\nupstream = \"echo\"\n\
         [upstream.pages]\nurl = \"{pages}\"\n[upstream.echo]\nurl = \"builtin:echo\"\n{more}\n"
    ))
    .await;
    let port = gate.addresses[0].rsplit(':').next().unwrap().to_owned();
    (gate, format!("https://localhost:{port}/"))
}

#[tokio::test]
async fn browsers_open_websockets_on_the_http2_connection_of_their_page() {
    const PAGE: &str = "<!doctype html><script>\
        const socket = new WebSocket(`wss://${location.host}/echo`);\
        socket.onopen = () => socket.send('hello');\
        socket.onmessage = ({ data }) => { window.echo = data; socket.close(4001, 'done'); };\
        socket.onclose = ({ code, reason }) => { window.result = { echo: window.echo, code, reason }; };\
        </script>";
    for browser in Browser::ALL {
        let Some(path) = browser.path() else { continue };
        let (mut gate, url) = gate_with_page(PAGE, "").await;
        let result = browser.result(path, &url, Duration::from_secs(60)).await;
        assert_eq!(result, json!({ "echo": "hello", "code": 4001, "reason": "done" }), "{browser:?}");
        let opened = gate.event("websocket opened").await;
        assert_eq!(opened["http2"], true, "{browser:?}");
    }
}

#[tokio::test]
async fn browsers_open_a_websocket_to_a_sibling_host_under_the_certificate_of_their_page() {
    const PAGE: &str = "<!doctype html><script>\
        const socket = new WebSocket(`wss://${location.host.replace('www.', 'ws.')}/`);\
        socket.onopen = () => socket.send('hello');\
        socket.onmessage = ({ data }) => { window.echo = data; socket.close(4001, 'done'); };\
        socket.onclose = ({ code }) => { window.result = { echo: window.echo, code }; };\
        </script>";
    for browser in Browser::ALL {
        let Some(path) = browser.path() else { continue };
        let (folder, pages) = (tempfile::tempdir().unwrap(), site::start(PAGE).await);
        let issued = Authority::new("ours").issue(&["*.x.localhost"]);
        issued.write(folder.path(), "wild");
        let key = STANDARD.encode(digest(&SHA256, &issued.key.subject_public_key_info()));
        let config = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"wild.pem\", key = \"wild.key\" }}\n\
             [[route]]\nhost = \"www.x.localhost\"\nupstream = \"pages\"\nwebsocket = false\n\
             [[route]]\nhost = \"ws.x.localhost\"\nupstream = \"echo\"\norigin = {{ allow = [\"*\"] }}\n\
             [upstream.pages]\nurl = \"{pages}\"\n[upstream.echo]\nurl = \"builtin:echo\"\n"
        );
        let mut gate = Process::start_in(&config, folder).await;
        let port = gate.addresses[0].rsplit(':').next().unwrap().to_owned();
        let url = format!("https://www.x.localhost:{port}/");
        let result = browser.result_trusting(path, &url, Duration::from_secs(60), Some(&key)).await;
        assert_eq!(result, json!({ "echo": "hello", "code": 4001 }), "{browser:?}");
        let opened = gate.event("websocket opened").await;
        assert_eq!(opened["http2"], true, "{browser:?} did not share the connection of its page: {opened}");
        assert!(gate.seen.iter().all(|event| event["rule"] != "misdirected"), "{:#?}", gate.seen);
    }
}
