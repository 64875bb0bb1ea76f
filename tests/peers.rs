//! Peers nobody here wrote: Node's `ws` and nghttp2, Python's `websockets`, socket.io, Chromium, Firefox, WebKitGTK, Go,
//! Java, curl, Autobahn, sslscan.
//!
//! `.ci/run` installs them below `target/peers` and sets `SWITCHGATE_REQUIRE_PEERS=1`. Without them each test says that
//! it was skipped and why, and passes.

mod autobahn;
mod browsers;
mod http2_clients;
mod reopening;
mod tls_scan;
mod webkit;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use switchgate::net::open_files;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

use crate::support::{
    Proxy,
    process::{DEVELOPMENT, Process},
    within,
};

fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// Whether a peer is there; where peers are required, a missing one fails the test.
fn present(what: &str, path: &Path) -> bool {
    if path.exists() {
        return true;
    }
    let why = format!("skipped: {what} is not installed ({} is missing; run .ci/run)", path.display());
    assert!(std::env::var_os("SWITCHGATE_REQUIRE_PEERS").is_none(), "{why}");
    eprintln!("{why}");
    false
}

fn node(name: &str) -> Command {
    // A module is looked for beside its script, so the scripts are run from a copy beside `node_modules`.
    let copy = installed().join(name);
    std::fs::copy(script(name), &copy).unwrap();
    let mut command = Command::new("node");
    command.arg(copy);
    command
}

fn python(name: &str) -> Command {
    let mut command = Command::new(installed().join("venv/bin/python"));
    command.arg(script(name));
    command
}

/// Starts a backend that prints its port; it ends with the returned value.
async fn backend(command: &mut Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut port = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    within("port", lines.read_line(&mut port)).await.unwrap();
    (child, format!("http://127.0.0.1:{}", port.trim()))
}

async fn succeeds(command: &mut Command) {
    let run = command.kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(60), run).await.expect("a peer that ends").unwrap();
    let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("ok"), "{text}");
}

const ALLOWED: &str = "https://app.example.com";
const FORBIDDEN: &str = "https://app.example.com.evil.test";

/// A gate with TLS before `url`.
async fn secure_gate(url: &str, origin: &str, folder: &Path) -> Proxy {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ certificate = \"leaf.pem\", key = \"leaf.key\", development = true }}\n\
         [[route]]\nupstream = \"u\"\norigin = {{ allow = [\"{origin}\"] }}\n[upstream.u]\nurl = \"{url}\"\n"
    );
    Proxy::start_in(&text, folder).await
}

/// A gate in clear before `url`, with the default patience: long polling takes its time.
async fn plain_gate(url: &str) -> Proxy {
    let front = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\n";
    Proxy::start(&format!("{front}url = \"{url}\"\n")).await
}

async fn both_clients(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let gate = secure_gate(url, ALLOWED, folder.path()).await;
    let url = format!("wss://localhost:{}/room?token=secret", gate.addresses[0].port());
    let ca = folder.path().join("ca.pem");
    succeeds(node("ws_client.mjs").args([&url, ALLOWED, FORBIDDEN]).env("NODE_EXTRA_CA_CERTS", &ca)).await;
    succeeds(python("websockets_client.py").arg(&url).arg(&ca).args([ALLOWED, FORBIDDEN])).await;
}

fn both_present() -> bool {
    let ws = present("Node's ws", &installed().join("node_modules/ws"));
    present("Python's websockets", &installed().join("venv/bin/python")) && ws
}

#[tokio::test]
async fn ws_and_websockets_talk_to_a_ws_backend() {
    if both_present() {
        let (_child, url) = backend(&mut node("ws_server.mjs")).await;
        both_clients(&url).await;
    }
}

#[tokio::test]
async fn ws_and_websockets_talk_to_a_websockets_backend() {
    if both_present() {
        let (_child, url) = backend(&mut python("websockets_server.py")).await;
        both_clients(&url).await;
    }
}

#[tokio::test]
async fn socket_io_polls_and_upgrades() {
    if !present("socket.io", &installed().join("node_modules/socket.io")) {
        return;
    }
    let (_child, url) = backend(&mut node("socketio_server.mjs")).await;
    let gate = plain_gate(&url).await;
    succeeds(node("socketio_client.mjs").arg(format!("http://{}", gate.addresses[0]))).await;
}

/// Clients of a drain; each line they print is awaited for a minute at most.
struct Crowd {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    fn start(command: &mut Command, url: &str, count: usize) -> Self {
        let started = command.args([url, &count.to_string()]).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = started.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(Duration::from_secs(60), self.lines.next_line()).await.expect("a line in time").unwrap();
        line.expect("a line before its end")
    }

    /// The code and the time of each Close.
    async fn closes(&mut self) -> Vec<(u16, f64)> {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

#[tokio::test]
async fn two_thousand_real_clients_are_sent_away_evenly() {
    const EACH: usize = 1000;
    const SPREAD: f64 = 5.0;
    if !both_present() {
        return;
    }
    // The clients inherit the limit.
    open_files::raise();
    let mut process = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n\
         [drain]\ngrace = \"40s\"\nspread = \"{SPREAD}s\"\ncode = 1012\n"
    ))
    .await;
    let url = format!("ws://{}/", process.addresses[0]);
    let mut crowds = [
        Crowd::start(&mut node("ws_drain.mjs"), &url, EACH),
        Crowd::start(&mut python("websockets_drain.py"), &url, EACH),
    ];
    for crowd in &mut crowds {
        assert_eq!(crowd.line().await, "open");
    }
    process.terminate();
    process.event("stopping").await;
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let mut all = Vec::new();
    for (crowd, name) in crowds.iter_mut().zip(["ws", "websockets"]) {
        let closes = crowd.closes().await;
        assert_eq!(closes.len(), EACH, "{name}");
        let wrong = closes.iter().filter(|(code, _)| *code != 1012).collect::<Vec<_>>();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        all.extend(closes.into_iter().map(|(_, at)| at / 1000.0 - begun));
    }
    assert_eq!(process.exit_code().await, Some(0));
    all.sort_by(f64::total_cmp);
    let deciles = (1..10).map(|tenth| all[all.len() * tenth / 10]).collect::<Vec<_>>();
    let last = all[all.len() - 1];
    eprintln!(
        "drain of {}: deciles of the closes at {deciles:.2?} s of {SPREAD} s, the last at {last:.2} s",
        all.len()
    );
    for (tenth, seen) in (1..10).zip(&deciles) {
        let even = SPREAD * f64::from(tenth) / 10.0;
        assert!((seen - even).abs() < 0.6, "decile {tenth} at {seen} s instead of {even} s: {deciles:?}");
    }
    assert!(last < SPREAD + 2.0, "the last at {last} s");
    let stopped = process.all("stopped")[0];
    assert_eq!((&stopped["websockets_ended"], &stopped["websockets_cut"]), (&(2 * EACH).into(), &0.into()));
    assert!(process.all("websocket ended").iter().all(|end| end["reason"] == "drain"));
}

/// A page whose script opens `url` and tells its own server what became of it.
async fn page(listener: TcpListener, url: String) -> String {
    let page = format!(
        "<script>const s = new WebSocket('{url}');\
         s.onopen = () => s.send('hello'); s.onmessage = (e) => fetch('/came-back-' + e.data);\
         s.onerror = () => fetch('/refused');</script>"
    );
    let (told, mut word) = mpsc::channel(16);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A browser opens connections ahead of time and may leave them unused.
                let (page, told) = (page.clone(), told.clone());
                tokio::spawn(async move { serve_page(accepted.unwrap().0, &page, &told).await });
            }
            Some(path) = word.recv() => return path,
        }
    }
}

async fn serve_page(mut stream: TcpStream, page: &str, told: &mpsc::Sender<String>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    let body = if path == "/" { page } else { "" };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: ";
    // The browser may be gone already; what it told counts.
    let _ = stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await;
    if path.starts_with("/came-back-") || path == "/refused" {
        let _ = told.send(path).await;
    }
}

/// Where Chromium is, if it is.
fn chromium_path() -> Option<&'static Path> {
    let found =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"].map(Path::new).into_iter().find(|path| path.exists());
    let path = found.unwrap_or(Path::new("/usr/bin/chromium"));
    present("Chromium", path).then_some(path)
}

fn chromium(path: &Path, profile: &Path, url: &str) -> Command {
    let mut command = Command::new(path);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors"])
        .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn chromium_is_let_in_from_an_allowed_origin_and_kept_out_from_another() {
    let Some(chromium_path) = chromium_path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (allowed, other) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let origin = format!("http://{}", allowed.local_addr().unwrap());
    let gate = secure_gate("builtin:echo", &origin, folder.path()).await;
    let url = format!("wss://localhost:{}/", gate.addresses[0].port());
    for (listener, expected) in [(allowed, "/came-back-hello"), (other, "/refused")] {
        let profile = tempfile::tempdir().unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let mut browser = chromium(chromium_path, profile.path(), &address).spawn().unwrap();
        let told = timeout(Duration::from_secs(60), page(listener, url.clone())).await.expect("word from the page");
        browser.kill().await.unwrap();
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn nghttp2_carries_websockets_to_an_http1_backend() {
    if !both_present() {
        return;
    }
    let (_child, url) = backend(&mut node("ws_server.mjs")).await;
    let folder = tempfile::tempdir().unwrap();
    let gate = secure_gate(&url, ALLOWED, folder.path()).await;
    let url = format!("https://localhost:{}", gate.addresses[0].port());
    succeeds(node("http2_client.mjs").arg(url).arg(folder.path().join("ca.pem")).args([ALLOWED, FORBIDDEN])).await;
}

#[tokio::test]
async fn chromium_opens_its_websocket_on_the_http2_connection_of_its_page() {
    let Some(browser) = chromium_path() else { return };
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gate = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
         [[route]]\nupstream = \"pages\"\nwebsocket = false\n[[route]]\npath = \"/echo\"\nupstream = \"echo\"\n\
         [upstream.pages]\nurl = \"http://{}\"\n[upstream.echo]\nurl = \"builtin:echo\"\n",
        backend.local_addr().unwrap()
    ))
    .await;
    let gate_port = gate.addresses[0].rsplit(':').next().unwrap().to_owned();
    let profile = tempfile::tempdir().unwrap();
    let mut browser = chromium(browser, profile.path(), &format!("https://localhost:{gate_port}/")).spawn().unwrap();
    let told = timeout(Duration::from_secs(60), page(backend, format!("wss://localhost:{gate_port}/echo")));
    assert_eq!(told.await.expect("word from the page"), "/came-back-hello");
    let opened = gate.event("websocket opened").await;
    assert_eq!((&opened["http2"], &opened["origin"]), (&true.into(), &format!("https://localhost:{gate_port}").into()));
    browser.kill().await.unwrap();
}
