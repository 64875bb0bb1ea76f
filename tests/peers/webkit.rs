//! WebKitGTK, whose WebSockets are libsoup's: HTTP/1.1, and Close codes as it knows them.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use switchgate::protocol::websocket::key::accept_value;
use tokio::{process::Command, time::timeout};

use super::{present, script};
use crate::support::{
    Upstream, accepted,
    process::{DEVELOPMENT, Process},
    site,
};

const LIMIT: Duration = Duration::from_secs(60);

/// What the page at `url` leaves in `window.result`; `None` where WebKitGTK is not installed.
async fn result(url: &str) -> Option<Value> {
    let bindings = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/girepository-1.0/WebKit2-4.1.typelib"));
    let bindings = bindings.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new("/usr/lib/webkit"));
    let installed = present("WebKitGTK", bindings)
        && present("Python's GObject bindings", Path::new("/usr/lib/python3/dist-packages/gi"))
        && present("xvfb-run", Path::new("/usr/bin/xvfb-run"));
    if !installed {
        return None;
    }
    let mut driver = Command::new("/usr/bin/xvfb-run");
    driver.args(["-a", "/usr/bin/python3"]).arg(script("webkit.py")).arg(url).arg(LIMIT.as_secs().to_string());
    // A sandbox and a GPU are not to be had everywhere that tests run.
    driver.env("WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS", "1").env("WEBKIT_DISABLE_COMPOSITING_MODE", "1");
    driver.env("LIBGL_ALWAYS_SOFTWARE", "1").env("NO_AT_BRIDGE", "1");
    let run = driver.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT + Duration::from_secs(20), run).await.expect("an end of the driver").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no result: {text}"));
    Some(serde_json::from_str(line).unwrap())
}

/// An upstream whose WebSockets are lost as soon as they are open.
async fn losing() -> String {
    let mut upstream = Upstream::start().await;
    let url = upstream.url.clone();
    tokio::spawn(async move {
        loop {
            let mut peer = upstream.accept().await;
            let Some(head) = peer.head_or_end().await else { continue };
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            peer.send(accepted("").replace(crate::support::ACCEPT, &accept_value(key))).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    url
}

#[tokio::test]
async fn webkitgtk_echoes_closes_and_follows_a_redirect_to_https() {
    const PAGE: &str = "<!doctype html><script>
        const end = (url, more) => new Promise((resolve) => {
            let echo = null;
            const socket = new WebSocket(url);
            socket.onopen = () => { if (more) socket.send('hello'); };
            socket.onmessage = ({ data }) => { echo = data; socket.close(1000); };
            socket.onclose = ({ code, wasClean }) => resolve({ echo, code, wasClean });
        });
        const run = async () => {
            const [, secure, plain] = location.hash.split(/[#,]/);
            window.result = {
                echo: await end(`wss://localhost:${secure}/echo`, true),
                redirected: await end(`ws://localhost:${plain}/echo`, true),
                lost_1012: await end(`wss://localhost:${secure}/lost-1012`, false),
                lost_1011: await end(`wss://localhost:${secure}/lost-1011`, false),
            };
        };
        run();
        </script>";
    let (pages, losing) = (site::start(PAGE).await, losing().await);
    let mut secure = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
         [[route]]\npath = \"/echo\"\nupstream = \"echo\"\norigin = {{ allow = \"*\" }}\n\
         [[route]]\npath = \"/lost-1012\"\nupstream = \"losing\"\norigin = {{ allow = \"*\" }}\n\
         [[route]]\npath = \"/lost-1011\"\nupstream = \"losing\"\norigin = {{ allow = \"*\" }}\nupstream_lost_code = 1011\n\
         [upstream.echo]\nurl = \"builtin:echo\"\n[upstream.losing]\nurl = \"{losing}\"\n"
    ))
    .await;
    let port = |process: &Process| process.addresses[0].rsplit(':').next().unwrap().to_owned();
    let redirect = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\nredirect = \"https\"\nredirect_port = {}\n\
         [[route]]\nupstream = \"echo\"\n[upstream.echo]\nurl = \"builtin:echo\"\n",
        port(&secure)
    ))
    .await;
    let Some(result) = result(&format!("{pages}/#{},{}", port(&secure), port(&redirect))).await else { return };
    let clean = json!({ "echo": "hello", "code": 1000, "wasClean": true });
    assert_eq!((&result["echo"], &result["redirected"]), (&clean, &clean), "{result}");
    // 1012 is a protocol error to libsoup; with 1011 the page learns what happened.
    assert_eq!(result["lost_1012"]["code"], 1006, "{result}");
    assert_eq!(result["lost_1011"], json!({ "echo": null, "code": 1011, "wasClean": true }), "{result}");
    let opened = secure.event("websocket opened").await;
    assert_eq!(opened["http2"], false);
}
