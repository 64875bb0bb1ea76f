//! HTTP/2 clients that other people wrote: large bodies down and up, many messages, fast and slow.
//!
//! Each returns its windows in its own way, and none of them may be taken for a flood. `SWITCHGATE_FULL_LOAD=1` makes the
//! bodies 200 MB and the tiny messages 100,000.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::{backend, browsers::Browser, installed, node, present, script};
use crate::support::{
    process::{DEVELOPMENT, Process},
    site,
};

/// Longest time for one client.
const LIMIT: Duration = Duration::from_secs(280);

struct Load {
    megabytes: usize,
    /// Tiny messages, or tiny requests where the client has no WebSockets.
    messages: usize,
}

impl Load {
    fn chosen() -> Self {
        match std::env::var_os("SWITCHGATE_FULL_LOAD") {
            Some(_) => Self { megabytes: 200, messages: 100_000 },
            None => Self { megabytes: 64, messages: 20_000 },
        }
    }
}

/// A gate with bodies at `/bytes/N`, a count of uploads at `/count` and an echo of WebSockets at `/echo`.
struct Loaded {
    gate: Process,
    url: String,
    ca: PathBuf,
    load: Load,
}

impl Loaded {
    /// `gzip` is the URL of a further upstream.
    async fn start(page: &'static str, gzip: Option<&str>) -> Self {
        let site = site::start(page).await;
        let gzip = gzip.unwrap_or(&site);
        let gate = Process::start(&format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
             [[route]]\nupstream = \"site\"\nwebsocket = false\n[[route]]\npath = \"/echo\"\nupstream = \"echo\"\n\
             [[route]]\npath = \"/gzip\"\nupstream = \"gzip\"\n\
             [upstream.site]\nurl = \"{site}\"\n[upstream.gzip]\nurl = \"{gzip}\"\n[upstream.echo]\nurl = \"builtin:echo\"\n"
        ))
        .await;
        let port = gate.addresses[0].rsplit(':').next().unwrap();
        let url = format!("https://localhost:{port}");
        let ca = gate.folder.path().join("ca.pem");
        Self { gate, url, ca, load: Load::chosen() }
    }

    /// Runs a client that prints `ok`, or what went wrong.
    async fn succeeds(&self, name: &str, command: &mut Command) -> String {
        let begun = Instant::now();
        let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(LIMIT, run).await.unwrap_or_else(|_| panic!("{name}: no end within {LIMIT:?}")).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}\n{errors}");
        let figures = text.lines().next().filter(|line| line.contains(" s, ")).unwrap_or_default();
        eprintln!("{name}: {:.1} s {figures}", begun.elapsed().as_secs_f64());
        text
    }

    /// Stops the gate; its log has nothing of a connection that was ended.
    async fn ended(mut self) {
        self.gate.terminate();
        self.gate.exit_code().await;
        let ended = self.gate.all("HTTP/2 connection ended");
        assert!(ended.is_empty(), "{ended:#?}");
    }
}

#[tokio::test]
async fn go_downloads_uploads_and_sends_messages() {
    let program = installed().join("go/load");
    if !present("Go's client", &program) {
        return;
    }
    let (_child, gzip) = backend(Command::new(&program).arg("serve")).await;
    let loaded = Loaded::start("", Some(&gzip)).await;
    let Load { megabytes, messages } = loaded.load;
    let mut client = Command::new(&program);
    client.args(["client", &loaded.url]).arg(&loaded.ca).args([megabytes.to_string(), messages.to_string()]);
    assert!(loaded.succeeds("Go", &mut client).await.ends_with("ok\n"));
    loaded.ended().await;
}

#[tokio::test]
async fn java_downloads_uploads_and_sends_messages() {
    let java = Path::new("/usr/bin/java");
    if !present("Java", java) {
        return;
    }
    let loaded = Loaded::start("", None).await;
    let Load { megabytes, messages } = loaded.load;
    let mut client = Command::new(java);
    client.arg(script("HttpClientLoad.java")).arg(&loaded.url).arg(&loaded.ca);
    client.args([megabytes.to_string(), messages.to_string()]);
    assert!(loaded.succeeds("Java", &mut client).await.ends_with("ok\n"));
    loaded.ended().await;
}

#[tokio::test]
async fn node_downloads_uploads_and_sends_messages() {
    if !present("Node's ws", &installed().join("node_modules/ws")) {
        return;
    }
    let loaded = Loaded::start("", None).await;
    let Load { megabytes, messages } = loaded.load;
    let mut client = node("http2_load.mjs");
    client.arg(&loaded.url).arg(&loaded.ca).args([megabytes.to_string(), messages.to_string()]);
    assert!(loaded.succeeds("Node", &mut client).await.ends_with("ok\n"));
    loaded.ended().await;
}

#[tokio::test]
async fn curl_downloads_and_uploads() {
    let curl = Path::new("/usr/bin/curl");
    if !present("curl", curl) {
        return;
    }
    let loaded = Loaded::start("", None).await;
    let Load { megabytes, messages } = loaded.load;
    let length = megabytes * 1_000_000;
    let upload = loaded.gate.folder.path().join("upload");
    std::fs::File::create(&upload).unwrap().set_len(length as u64).unwrap();
    let common = || {
        let mut command = Command::new(curl);
        command.args(["--silent", "--show-error", "--fail", "--http2", "--noproxy", "*", "--cacert"]).arg(&loaded.ca);
        command
    };
    const FORMAT: &str = "%{http_version} %{response_code} %{size_download}\n";
    let expected = |length: usize| format!("2 200 {length}\n");
    let to_nowhere = ["--output", "/dev/null", "--write-out", FORMAT];
    let mut down = common();
    down.args(to_nowhere).arg(format!("{}/bytes/{length}", loaded.url));
    assert_eq!(loaded.succeeds("curl, down", &mut down).await, expected(length));
    let mut slow = common();
    slow.args(to_nowhere).args(["--limit-rate", "2500000"]).arg(format!("{}/bytes/{}", loaded.url, length / 8));
    assert_eq!(loaded.succeeds("curl, slow", &mut slow).await, expected(length / 8));
    let mut up = common();
    up.args(["--request", "POST", "--write-out", "\n", "--upload-file"])
        .arg(&upload)
        .arg(format!("{}/count", loaded.url));
    assert_eq!(loaded.succeeds("curl, up", &mut up).await.trim(), length.to_string());
    // A refusal while the body is still on its way, and one of the head.
    let long = format!("X-Long: {}", "a".repeat(50_000));
    for (path, field, status) in [("/../", "X-Short: a", "400"), ("/count", &long, "431")] {
        let mut refused = common();
        refused.args(["--no-fail", "--path-as-is", "--header", field, "--data-binary"]);
        refused.arg(format!("@{}", upload.display())).args(to_nowhere).arg(format!("{}{path}", loaded.url));
        let line = loaded.succeeds("curl, refused", &mut refused).await;
        assert!(line.starts_with(&format!("2 {status} ")), "{path}: {line}");
    }
    // It has no WebSockets here: tiny bodies, a hundred at a time on one connection.
    let mut many = common();
    let count = messages / 10;
    many.args(["--parallel", "--parallel-max", "100", "--write-out", "%{http_version} %{response_code}\n"]);
    many.args(["--output", "/dev/null"]).arg(format!("{}/bytes/6?[1-{count}]", loaded.url));
    let lines = loaded.succeeds("curl, many", &mut many).await;
    assert_eq!(lines.lines().filter(|line| *line == "2 200").count(), count);
    loaded.ended().await;
}

#[tokio::test]
async fn nghttp2_downloads_and_uploads() {
    let (nghttp, h2load) = (Path::new("/usr/bin/nghttp"), Path::new("/usr/bin/h2load"));
    if !present("nghttp", nghttp) || !present("h2load", h2load) {
        return;
    }
    let loaded = Loaded::start("", None).await;
    let Load { megabytes, messages } = loaded.load;
    let length = megabytes * 1_000_000;
    let upload = loaded.gate.folder.path().join("upload");
    std::fs::File::create(&upload).unwrap().set_len(length as u64 / 4).unwrap();
    let mut down = Command::new(nghttp);
    down.args(["--null-out", "--stat"]).arg(format!("{}/bytes/{length}", loaded.url));
    let stat = loaded.succeeds("nghttp, down", &mut down).await;
    assert!(stat.lines().any(|line| line.contains(" 200 ") && line.contains("/bytes/")), "{stat}");
    let plans: [(&str, usize, Vec<String>); 3] = [
        ("h2load, down", 4, vec![format!("/bytes/{}", length / 4)]),
        ("h2load, up", 4, vec!["/count".into(), "--data".into(), upload.display().to_string()]),
        ("h2load, many", messages, vec!["/bytes/6".into()]),
    ];
    for (name, count, mut rest) in plans {
        let mut load = Command::new(h2load);
        load.args(["--clients", "1", "--max-concurrent-streams", "100", "--requests", &count.to_string()]);
        load.arg(format!("{}{}", loaded.url, rest.remove(0))).args(rest);
        let text = loaded.succeeds(name, &mut load).await;
        let expected = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(text.contains(&expected) && text.contains("Application protocol: h2"), "{name}: {text}");
    }
    loaded.ended().await;
}

/// Does everything itself, and leaves seconds for each kind of load or an error.
const PAGE: &str = r#"<!doctype html><script>
const [megabytes, messages] = location.hash.slice(1).split(',').map(Number);
const length = megabytes * 1e6;
const figures = {};
async function timed(what, work) {
  const begun = performance.now();
  try {
    await work(begun);
  } catch (error) {
    throw new Error(`${what}: ${error.message ?? error}`);
  }
  figures[what] = Math.round(performance.now() - begun) / 1000;
}
async function down(size, begun, slow) {
  const reader = (await fetch(`/bytes/${size}`)).body.getReader();
  let count = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    count += value.length;
    const ahead = begun + count / 2500 - performance.now();
    if (slow && ahead > 0) await new Promise((resolve) => setTimeout(resolve, ahead));
  }
  if (count !== size) throw new Error(`${count} bytes instead of ${size}`);
}
async function up() {
  const response = await fetch('/count', { method: 'POST', body: new Blob([new ArrayBuffer(length)]) });
  const text = await response.text();
  if (text !== String(length)) throw new Error(`${text} bytes came of ${length}`);
}
function echo(size, count) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/echo`);
    socket.binaryType = 'arraybuffer';
    const message = new Uint8Array(size);
    let sent = 0;
    let came = 0;
    const more = () => { while (sent < count && sent - came < 64) { socket.send(message); sent += 1; } };
    socket.onopen = more;
    socket.onmessage = ({ data }) => {
      came += 1;
      if (data.byteLength !== size) return reject(new Error(`${data.byteLength} bytes`));
      if (came === count) socket.close(1000); else more();
    };
    socket.onclose = ({ code, wasClean }) => {
      if (code === 1000 && wasClean && came === count) resolve();
      else reject(new Error(`closed with ${code} after ${came} messages`));
    };
  });
}
(async () => {
  try {
    await timed('down', () => down(length));
    await timed('slow', (begun) => down(length / 8, begun, true));
    await timed('up', up);
    await timed('4 KB messages', () => echo(4096, Math.floor(length / 4096)));
    await timed('tiny messages', () => echo(6, messages));
    const protocols = new Set(performance.getEntriesByType('resource').map((entry) => entry.nextHopProtocol));
    if ([...protocols].join() !== 'h2') throw new Error(`protocols: ${[...protocols]}`);
    window.result = figures;
  } catch (error) {
    window.result = { error: error.message, figures };
  }
})();
</script>"#;

#[tokio::test]
async fn browsers_download_upload_and_send_messages() {
    for browser in Browser::ALL {
        let Some(path) = browser.path() else { continue };
        let mut loaded = Loaded::start(PAGE, None).await;
        let url = format!("{}/#{},{}", loaded.url, loaded.load.megabytes, loaded.load.messages);
        let result = browser.result(path, &url, LIMIT).await;
        assert_eq!(result["error"], Value::Null, "{browser:?}: {result}");
        eprintln!("{browser:?}: {result}");
        assert_eq!(loaded.gate.event("websocket opened").await["http2"], true, "{browser:?}");
        loaded.ended().await;
    }
}
