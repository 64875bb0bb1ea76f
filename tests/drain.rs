//! SIGTERM, as the program meets it.

use std::time::Duration;

use serde_json::Value;
use switchgate::net::Wire;
use tokio::{net::TcpStream, time::Instant};

use crate::support::{
    Client, Upstream,
    frames::{BINARY, MASK, TEXT, close, frame},
    handshake,
    process::{DEVELOPMENT, Process},
    within,
};

/// A request that its upstream has, and has not answered: both ends.
async fn under_way(process: &Process, upstream: &mut Upstream) -> (Client<TcpStream>, Client<TcpStream>) {
    let mut client = process.connect().await;
    client.send("GET /slow HTTP/1.1\r\nHost: gate.test\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    (client, peer)
}

#[tokio::test]
async fn sigterm_lets_requests_finish_ends_relays_after_the_grace_and_exits_0() {
    let mut upstream = Upstream::start().await;
    let mut process = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\nframes = \"off\"\n[upstream.u]\nurl = \"{}\"\n\
         [drain]\ngrace = \"1s\"\n",
        upstream.url
    ))
    .await;
    let mut socket = process.connect().await;
    let mut relayed = upstream.switch(&mut socket).await;
    let mut idle = process.connect().await;
    let (mut busy, mut asked) = under_way(&process, &mut upstream).await;

    process.terminate();
    process.event("stopping").await;
    assert!(idle.rest().await.is_empty(), "an idle connection ends at once");
    within("closed listener", async { while TcpStream::connect(&process.addresses[0]).await.is_ok() {} }).await;
    socket.send("still").await;
    assert_eq!(relayed.take(5).await, b"still");
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    assert!(answer.has("connection: close"), "{}", answer.head);
    assert!(busy.rest().await.is_empty());

    assert!(socket.rest().await.is_empty());
    assert_eq!(process.exit_code().await, Some(0));
    let stopped = process.seen.iter().find(|event| event["message"] == "stopped").unwrap();
    assert_eq!((&stopped["websockets_cut"], &stopped["connections_cut"]), (&Value::from(1), &Value::from(0)));
    let ended = process.seen.iter().find(|event| event["message"] == "websocket ended").unwrap();
    assert_eq!((&ended["reason"], &ended["closed_by"]), (&Value::from("cut"), &Value::from("switchgate")));
}

fn front(tls: bool, url: &str, route: &str, drain: &str) -> String {
    let tls = if tls { DEVELOPMENT } else { "" };
    format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n{tls}[[route]]\nupstream = \"u\"\n{route}\n\
         [upstream.u]\nurl = \"{url}\"\n[drain]\n{drain}\n"
    )
}

/// The whole log as the process ends, and how long that took from now.
async fn ended(process: &mut Process) -> Duration {
    let begun = Instant::now();
    assert_eq!(process.exit_code().await, Some(0));
    begun.elapsed()
}

#[tokio::test]
async fn a_head_begun_before_the_stop_is_still_answered_a_websocket_with_503() {
    for tls in [false, true] {
        let spread = 7;
        let text = front(tls, "builtin:echo", "", &format!("spread = \"{spread}s\""));
        // One thread, so that a later answer proves that what came before it was read.
        let mut process = Process::start(&format!("workers = 1\n{text}")).await;
        let mut upgrade = process.connect_either().await;
        let mut plain = process.connect_either().await;
        let (opening, get) = (handshake(""), "GET /page HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        upgrade.send(&opening[..opening.len() / 2]).await;
        plain.send(&get[..get.len() / 2]).await;
        let mut later = process.connect_either().await;
        for _ in 0..3 {
            assert_eq!(later.ask(get).await.status, 200);
        }

        process.terminate();
        process.event("stopping").await;
        assert!(later.rest().await.is_empty(), "between two requests a connection ends");
        upgrade.send(&opening[opening.len() / 2..]).await;
        plain.send(&get[get.len() / 2..]).await;
        let refused = upgrade.answer().await;
        assert_eq!(refused.status, 503, "{}", refused.head);
        let after = refused.field("retry-after").unwrap().parse::<u64>().unwrap();
        assert!((1..=spread + 1).contains(&after), "Retry-After: {after}");
        assert!(refused.has("connection: close") && upgrade.rest().await.is_empty(), "{}", refused.head);
        let answer = plain.answer().await;
        assert_eq!(answer.status, 200, "a plain request is still answered");
        assert!(answer.has("connection: close") && plain.rest().await.is_empty(), "{}", answer.head);
        ended(&mut process).await;
        let refused = process.all("refused");
        assert_eq!(refused.len(), 1);
        assert_eq!((&refused[0]["rule"], &refused[0]["status"]), (&Value::from("draining"), &Value::from(503)));
    }
}

/// A client that answers the Close it is sent: when and with which code that came.
async fn told(mut client: Client<Wire>) -> (Instant, u16) {
    let code = client.expect_close().await;
    let at = Instant::now();
    client.send(close(code, MASK)).await;
    assert_eq!(client.frame().await, None, "nothing after the Close");
    (at, code)
}

async fn drains_evenly(tls: bool, code: u16) {
    const CLIENTS: usize = 200;
    let drain = format!("grace = \"20s\"\nspread = \"2s\"\n{}", if code == 1001 { "" } else { "code = 1012" });
    let mut process = Process::start(&front(tls, "builtin:echo", "", &drain)).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = process.connect_either().await;
        assert_eq!(client.ask(handshake("")).await.status, 101);
        clients.push(tokio::spawn(told(client)));
    }
    process.terminate();
    process.event("stopping").await;
    let begun = Instant::now();
    let mut arrivals = Vec::new();
    for client in clients {
        let (at, seen) = client.await.unwrap();
        assert_eq!(seen, code);
        arrivals.push(at.saturating_duration_since(begun).as_secs_f64());
    }
    ended(&mut process).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "it ends with the last client, not with the grace");

    arrivals.sort_by(f64::total_cmp);
    let quartiles = [1, 2, 3].map(|quarter| arrivals[CLIENTS * quarter / 4]);
    eprintln!("drain of {CLIENTS} (tls {tls}): quartiles of the Close at {quartiles:.2?} s of 2 s");
    for (seen, even) in quartiles.into_iter().zip([0.5, 1.0, 1.5]) {
        assert!((seen - even).abs() < 0.35, "{quartiles:?}");
    }
    let stopped = process.all("stopped")[0].clone();
    assert_eq!((&stopped["websockets_ended"], &stopped["websockets_cut"]), (&Value::from(CLIENTS), &Value::from(0)));
    let progress = process.seen.iter().filter_map(|event| event["message"].as_str());
    let progress = progress.filter(|text| text.starts_with("draining: ")).collect::<Vec<_>>();
    assert!(progress.first().is_some_and(|text| text.contains(" of 200 left, 1")), "{progress:?}");
    let ends = process.all("websocket ended");
    assert_eq!(ends.len(), CLIENTS);
    for end in ends {
        assert_eq!(end["reason"], "drain", "{end}");
        assert_eq!((&end["client_code"], &end["upstream_code"]), (&Value::from(code), &Value::from(code)), "{end}");
    }
}

#[tokio::test]
async fn the_first_websocket_is_closed_at_once() {
    for tls in [false, true] {
        for count in [1, 2] {
            let drain = "grace = \"30s\"\nspread = \"4s\"";
            let mut process = Process::start(&front(tls, "builtin:echo", "", drain)).await;
            let mut clients = Vec::new();
            for _ in 0..count {
                let mut client = process.connect_either().await;
                assert_eq!(client.ask(handshake("")).await.status, 101);
                clients.push(tokio::spawn(told(client)));
            }
            process.terminate();
            process.event("stopping").await;
            let begun = Instant::now();
            let stopping = process.all("stopping")[0];
            assert!(stopping["hint"].as_str().is_some_and(|hint| hint.contains("second signal")), "{stopping}");
            let mut after = Vec::new();
            for client in clients {
                after.push(client.await.unwrap().0.saturating_duration_since(begun).as_secs_f64());
            }
            after.sort_by(f64::total_cmp);
            ended(&mut process).await;
            assert!(after[0] < 1.0, "{after:?}");
            assert!(after[count - 1] < 3.5, "the spread begins with the first one: {after:?}");
        }
    }
}

#[tokio::test]
async fn websockets_are_told_one_after_the_other_over_the_spread() {
    drains_evenly(false, 1001).await;
}

#[tokio::test]
async fn websockets_over_tls_are_told_the_configured_code() {
    drains_evenly(true, 1012).await;
}

#[tokio::test]
async fn who_does_not_answer_has_its_close_timeout_and_the_rest_is_cut_at_the_grace() {
    for tls in [false, true] {
        let listener = if tls { DEVELOPMENT } else { "" };
        let mut process = Process::start(&format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n{listener}\
             [[route]]\nname = \"deaf\"\npath = \"/deaf\"\nupstream = \"u\"\nclose_timeout = \"300ms\"\n\
             [[route]]\nname = \"patient\"\npath = \"/patient\"\nupstream = \"u\"\nclose_timeout = \"1m\"\n\
             [[route]]\nname = \"bytes\"\npath = \"/bytes\"\nupstream = \"u\"\nframes = \"off\"\n\
             [upstream.u]\nurl = \"builtin:echo\"\n[drain]\ngrace = \"2500ms\"\nspread = \"1s\"\n"
        ))
        .await;
        let mut clients = Vec::new();
        for path in ["deaf", "deaf", "deaf", "deaf", "patient", "bytes"] {
            let mut client = process.connect_either().await;
            assert_eq!(client.ask(handshake("").replace("/chat", &format!("/{path}"))).await.status, 101);
            clients.push(tokio::spawn(async move {
                let code = if path == "bytes" { 0 } else { client.expect_close().await };
                let told = Instant::now();
                assert_eq!(client.frame().await, None);
                (path, code, told.elapsed(), Instant::now())
            }));
        }
        process.terminate();
        process.event("stopping").await;
        let begun = Instant::now();
        for client in clients {
            let (path, code, waited, at) = client.await.unwrap();
            let lasted = at.saturating_duration_since(begun).as_secs_f64();
            match path {
                "deaf" => {
                    assert_eq!(code, 1001);
                    assert!((0.25..0.9).contains(&waited.as_secs_f64()), "close_timeout took {waited:?}");
                    assert!(lasted < 2.2, "{path}: {lasted}");
                }
                _ => assert!((2.3..4.0).contains(&lasted), "{path} lasts as long as the grace: {lasted}"),
            }
        }
        ended(&mut process).await;
        let stopped = process.all("stopped")[0];
        assert_eq!((&stopped["websockets_ended"], &stopped["websockets_cut"]), (&Value::from(4), &Value::from(2)));
        for end in process.all("websocket ended") {
            let (reason, code) = if end["route"] == "bytes" { ("cut", 1006) } else { ("drain", 1006) };
            assert_eq!((&end["reason"], &end["client_code"]), (&Value::from(reason), &Value::from(code)), "{end}");
        }
    }
}

#[tokio::test]
async fn a_second_sigterm_cuts_at_once() {
    let mut upstream = Upstream::start().await;
    let drain = "grace = \"60s\"\nspread = \"30s\"";
    let mut process = Process::start(&front(false, &upstream.url, "frames = \"off\"", drain)).await;
    let mut socket = process.connect().await;
    let mut relayed = upstream.switch(&mut socket).await;
    let (mut busy, mut asked) = under_way(&process, &mut upstream).await;

    process.terminate();
    process.event("stopping").await;
    process.terminate();
    let lasted = ended(&mut process).await;
    assert!(lasted < Duration::from_secs(2), "{lasted:?}");
    for end in [socket.rest().await, busy.rest().await, relayed.rest().await, asked.rest().await] {
        assert!(end.is_empty());
    }
    assert_eq!(process.count("second signal: cutting what is left"), 1);
    let stopped = process.all("stopped")[0];
    assert_eq!((&stopped["websockets_cut"], &stopped["connections_cut"]), (&Value::from(1), &Value::from(1)));
}

#[tokio::test]
async fn a_frame_under_way_is_finished_before_the_close() {
    // The longer one moves by splice(2) between plain sockets.
    for (tls, size) in [(false, 1000), (true, 1000), (false, 5 << 20), (true, 5 << 20)] {
        let mut upstream = Upstream::start().await;
        let drain = "grace = \"20s\"\nspread = \"100ms\"\ncode = 1012";
        let mut process = Process::start(&front(tls, &upstream.url, "close_timeout = \"20s\"", drain)).await;
        let mut client = process.connect_either().await;
        let mut peer = upstream.switch(&mut client).await;

        let payload = (0..size).map(|at: u32| at.wrapping_mul(31).to_le_bytes()[1]).collect::<Vec<u8>>();
        let sent = frame(BINARY, &payload, None);
        let (half, rest) = sent.split_at(sent.len() / 2);
        let (_, mut got) = tokio::join!(peer.send(half), client.take(half.len()));
        process.terminate();
        // Towards the upstream there is a boundary now: its Close shows that the stop has come to this WebSocket.
        let close_upstream = peer.frame().await.unwrap();
        assert!(close_upstream.masked && close_upstream.code() == Some(1012), "{close_upstream:?}");
        let more = [rest, &frame(TEXT, b"after the Close nobody listens", None)].concat();
        let (_, finished) = tokio::join!(peer.send(more), client.take(rest.len()));
        got.extend(finished);
        assert!(got == sent, "the frame arrives whole and as it was, {size} bytes, tls {tls}");
        assert_eq!(client.expect_close().await, 1012);
        client.send(close(1012, MASK)).await;
        peer.send(close(1012, None)).await;
        assert_eq!((client.frame().await, peer.frame().await), (None, None));
        ended(&mut process).await;
        let end = process.all("websocket ended")[0];
        assert_eq!((&end["reason"], &end["messages_to_client"]), (&Value::from("drain"), &Value::from(1)), "{end}");
        assert_eq!(process.all("stopped")[0]["websockets_cut"], 0);
    }
}
