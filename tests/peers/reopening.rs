//! Pages that close and reopen many WebSockets on their HTTP/2 connection.

use std::time::Duration;

use serde_json::Value;

use super::browsers::Browser;
use crate::support::{
    process::{DEVELOPMENT, Process},
    site,
};

/// WebSockets that a page opens in each round.
const COUNT: usize = 300;

/// At a time: Firefox has 200 in all, and closed ones of the round before may not fill the streams of the connection.
const AT_A_TIME: usize = 100;

/// Opens 300 WebSockets, a third of them at a time, closes each after its echo, and does so again; small responses are
/// fetched all the while.
const PAGE: &str = "<!doctype html><script>
    const result = { clean: 0, others: [], fetched: 0, failed: 0, slowest_fetch_ms: 0 };
    const opened = () => new Promise((resolve) => {
        const socket = new WebSocket(`wss://${location.host}/echo`);
        socket.onopen = () => socket.send('hello');
        socket.onmessage = () => resolve(socket);
        socket.onclose = ({ code }) => { result.others.push(`closed by the other side: ${code}`); resolve(socket); };
    });
    const closed = (socket) => new Promise((resolve) => {
        if (socket.readyState === WebSocket.CLOSED) return resolve();
        socket.onclose = ({ code, wasClean }) => {
            if (code === 1000 && wasClean) result.clean += 1; else result.others.push(`${code} ${wasClean}`);
            resolve();
        };
        socket.close(1000);
    });
    let ended = false;
    const fetches = async () => {
        while (!ended) {
            const begun = performance.now();
            try {
                const response = await fetch('/bytes/1000', { cache: 'no-store' });
                if ((await response.arrayBuffer()).byteLength === 1000) result.fetched += 1; else result.failed += 1;
            } catch { result.failed += 1; }
            result.slowest_fetch_ms = Math.max(result.slowest_fetch_ms, Math.round(performance.now() - begun));
            await new Promise((resolve) => setTimeout(resolve, 20));
        }
    };
    const run = async () => {
        const fetching = fetches();
        for (let round = 0; round < 2 * 3; round += 1) {
            const sockets = await Promise.all(Array.from({ length: 100 }, opened));
            await Promise.all(sockets.map(closed));
        }
        ended = true;
        await fetching;
        window.result = result;
    };
    run();
    </script>";

#[tokio::test]
async fn browsers_close_and_reopen_300_websockets_while_they_fetch() {
    for browser in Browser::ALL {
        let Some(path) = browser.path() else { continue };
        let pages = site::start(PAGE).await;
        // A WebSocket that outlives its closing handshake keeps its place for minutes, and the next round is refused.
        let mut gate = Process::start(&format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
             [[route]]\nupstream = \"pages\"\nwebsocket = false\n\
             [[route]]\npath = \"/echo\"\nupstream = \"echo\"\nclose_timeout = \"2m\"\n\
             limits = {{ websockets_per_client = {} }}\n\
             [upstream.pages]\nurl = \"{pages}\"\n[upstream.echo]\nurl = \"builtin:echo\"\n",
            AT_A_TIME + AT_A_TIME / 4
        ))
        .await;
        let port = gate.addresses[0].rsplit(':').next().unwrap().to_owned();
        let result = browser.result(path, &format!("https://localhost:{port}/"), Duration::from_secs(90)).await;
        eprintln!("{browser:?}: {result}");
        assert_eq!((&result["clean"], &result["others"]), (&Value::from(2 * COUNT), &Value::from(Vec::<Value>::new())));
        assert_eq!(result["failed"], 0, "{browser:?}: {result}");
        assert!(result["fetched"].as_u64().unwrap() > 10, "{browser:?}: {result}");
        assert!(result["slowest_fetch_ms"].as_u64().unwrap() < 5000, "{browser:?}: {result}");
        gate.terminate();
        assert_eq!(gate.exit_code().await, Some(0));
        let opened = gate.all("websocket opened");
        assert_eq!(opened.len(), 2 * COUNT, "{browser:?}");
        assert!(opened.iter().all(|event| event["http2"] == true), "{browser:?}");
        for end in gate.all("websocket ended") {
            assert_eq!((&end["reason"], &end["client_code"]), (&"closed".into(), &1000.into()), "{browser:?}: {end}");
        }
    }
}
