//! What HTTP/2 lets a hostile client do, frame by frame: its connection ends, and nobody else's.

mod bounds;
mod raw;

use std::time::Duration;

use tokio::{io::AsyncWriteExt, time::timeout};

use crate::support::{
    Client, Upstream,
    doors::Gate,
    frames::{BINARY, MASK, frame as websocket_frame},
    within,
};
use raw::*;

/// Sends `piece(0)`, `piece(1)`, … until the gate has had enough, and answers how it said so.
async fn flood(gate: &Gate, piece: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let (reader, mut writer) = tokio::io::split(begun(gate).await);
    let reading = tokio::spawn(async move { Client::new(tokio::io::join(reader, tokio::io::sink())).rest().await });
    for number in 0..200_000 {
        // Somebody who has been sent away cannot go on.
        if writer.write_all(&piece(number)).await.is_err() || reading.is_finished() {
            break;
        }
    }
    let said = within("end of a flood", reading).await.unwrap();
    goaway(&said)
}

#[tokio::test]
async fn floods_end_their_connection_and_nobody_elses() {
    let gate = Gate::echo("").await;
    let mut honest = gate.http2().await;
    let mut socket = honest.websocket().await;
    let open = |number: u32, flags: u8| frame(HEADERS, flags | END_HEADERS, number * 2 + 1, &request());
    type Piece = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;
    let floods: [(&str, Piece); 9] = [
        ("ping", Box::new(|_| frame(PING, 0, 0, b"12345678"))),
        ("settings", Box::new(|_| frame(SETTINGS, 0, 0, &[]))),
        (
            "rapid reset",
            Box::new(move |number| {
                [open(number, END_STREAM), frame(RST_STREAM, 0, number * 2 + 1, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "empty data",
            Box::new(move |number| match number {
                0 => open(0, 0),
                _ => frame(DATA, 0, 1, &[]),
            }),
        ),
        ("window updates", Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("priorities", Box::new(|number| frame(PRIORITY, 0, number * 2 + 1, &[0, 0, 0, 0, 1]))),
        (
            "continuations",
            Box::new(|number| match number {
                0 => frame(HEADERS, 0, 1, &request()),
                // A field of one byte each: never the last.
                _ => frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
            }),
        ),
        (
            "empty continuations",
            Box::new(|number| match number {
                0 => frame(HEADERS, 0, 1, &request()),
                _ => frame(CONTINUATION, 0, 1, &[]),
            }),
        ),
        ("unknown frames", Box::new(|_| frame(0xfa, 0, 0, &[]))),
    ];
    for (name, piece) in &floods {
        let code = flood(&gate, piece).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{name}");
        socket.send(websocket_frame(BINARY, name.as_bytes(), MASK)).await;
        assert_eq!(socket.frame().await.unwrap().payload, name.as_bytes());
    }
}

#[tokio::test]
async fn requests_that_are_all_taken_back_at_once_are_no_flood() {
    let gate = Gate::echo("").await;
    let mut client = Client::new(begun(&gate).await);
    // A page that is left while its requests still wait for the network.
    let pieces = (0..100).map(|number| number * 2 + 1).flat_map(|stream| {
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &request()), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
    });
    client.send(pieces.flatten().collect::<Vec<u8>>()).await;
    client.send(frame(PING, 0, 0, b"the next")).await;
    loop {
        match next_frame(&mut client).await {
            (PING, payload) if payload == b"the next" => break,
            (GOAWAY, payload) => panic!("sent away: {payload:x?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_request_that_is_taken_back_before_it_is_read_reaches_no_upstream() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut client = Client::new(begun(&gate).await);
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let request = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &request());
    client.send([request(1), reset(1), request(3), reset(3), frame(PING, 0, 0, b"the next")].concat()).await;
    while next_frame(&mut client).await != (PING, b"the next".to_vec()) {}
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn what_is_no_http2_ends_its_connection() {
    let gate = Gate::echo("").await;
    let request = request();
    for (name, bytes) in [
        ("data on an idle stream", frame(DATA, 0, 1, b"x")),
        ("a frame over the limit", [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 64]].concat()),
        ("an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &request)),
        (
            "a stream below the last one",
            [
                frame(HEADERS, END_HEADERS | END_STREAM, 5, &request),
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &request),
            ]
            .concat(),
        ),
        ("a broken header block", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("another frame in a header block", [frame(HEADERS, 0, 1, &request), frame(PING, 0, 0, b"12345678")].concat()),
        ("a window of zero", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0])),
        ("a window beyond the largest", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a push from a client", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("settings of half an entry", frame(SETTINGS, 0, 0, &[0, 1, 0])),
    ] {
        let mut raw = Client::new(begun(&gate).await);
        raw.send(bytes).await;
        let said = raw.rest().await;
        assert!(goaway(&said).is_some_and(|code| code != 0), "{name}: {said:x?}");
    }
    assert_eq!(
        gate.ask(crate::support::doors::Door::Http2, "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.status,
        200
    );
}

#[tokio::test]
async fn a_stop_and_silence_end_with_a_goaway_without_blame() {
    let gate = Gate::before("builtin:echo", "", "[limits]\nhead_timeout = \"1s\"").await;
    let mut silent = Client::new(begun(&gate).await);
    assert_eq!(goaway(&silent.rest().await), Some(0));
    let patient = Gate::echo("").await;
    let mut idle = Client::new(begun(&patient).await);
    // The gate has our settings: from here on there is a connection to stop.
    while next_frame(&mut idle).await != (SETTINGS, Vec::new()) {}
    let _stopped = patient.proxy.stop();
    assert_eq!(goaway(&idle.rest().await), Some(0));
}

#[tokio::test]
async fn streams_that_are_held_back_hold_back_no_others() {
    let gate = Gate::before("builtin:echo", "", "[limits]\nmax_streams = 100").await;
    let mut client = Client::new(begun(&gate).await);
    let (mut stream, mut connection) = (0, 65_535);
    while connection < 100 * stream || stream == 0 {
        match next_frame(&mut client).await {
            (SETTINGS, entries) => {
                let window = entries.chunks_exact(6).find(|entry| entry[..2] == [0, 4]);
                stream = window.map_or(stream, |entry| u32::from_be_bytes(entry[2..].try_into().unwrap()));
            }
            (WINDOW_UPDATE, more) => connection += u32::from_be_bytes(more.try_into().unwrap()),
            _ => {}
        }
    }
    assert_eq!((stream, connection), (65_536, 6_553_600));
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_go_on() {
    let gate = Gate::before("builtin:echo", "", "[limits]\nmax_streams = 4").await;
    let mut http2 = gate.http2().await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(http2.websocket().await);
    }
    // A client that keeps to the limit waits for a place; it gets one when a WebSocket has ended.
    let mut requests = http2.requests.clone();
    let mut room = std::pin::pin!(std::future::poll_fn(|cx| requests.poll_ready(cx)));
    assert!(futures_util::poll!(&mut room).is_ready());
    let (waiting, _send) = http2
        .requests
        .send_request(crate::support::doors::http2_request("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n"), true)
        .unwrap();
    drop(sockets.pop());
    assert_eq!(within("a place", waiting).await.unwrap().status(), 200);
    for socket in &mut sockets {
        socket.send(websocket_frame(BINARY, b"on", MASK)).await;
        assert_eq!(socket.frame().await.unwrap().payload, b"on");
    }
    // One that does not keep to it is refused, stream by stream.
    let mut raw = Client::new(begun(&gate).await);
    let many: Vec<u8> = (0..12).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &request())).collect();
    raw.send(many).await;
    let mut refused = 0;
    while refused < 8 {
        if next_frame(&mut raw).await == (RST_STREAM, vec![0, 0, 0, 7]) {
            refused += 1;
        }
    }
}

#[tokio::test]
async fn the_settings_of_the_gate_do_not_wait_for_those_of_the_client() {
    let gate = Gate::echo("").await;
    let mut silent = Client::new(gate.secure(&[b"h2"]).await);
    assert_eq!(next_frame(&mut silent).await.0, SETTINGS);
}

#[tokio::test]
async fn wide_windows_of_a_client_that_reads_nothing_hold_back_the_backend() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut client = begun(&gate).await;
    let windows =
        [frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0])];
    let ask = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request());
    client.write_all(&[windows.concat(), ask].concat()).await.unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    let flood = vec![1; 64 * 1024];
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), peer.stream.write(&flood)).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "the backend could send {taken} bytes that nobody reads");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_no_connection() {
    let mut upstream = Upstream::start().await;
    let rest = "[limits]\nwrite_timeout = \"300ms\"\n[drain]\ngrace = \"8s\"";
    let gate = Gate::before(&upstream.url, "", rest).await;
    let mut client = gate.secure(&[b"h2"]).await;
    // Every answer fits into its window, so that nobody waits for room in one.
    let windows =
        [frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0])];
    client.write_all(&[PREFACE, &windows.concat()].concat()).await.unwrap();
    let length = 60_000;
    for number in 0..120 {
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &request());
        client.write_all(&ask).await.unwrap();
        client.flush().await.unwrap();
        let mut peer = upstream.accept().await;
        peer.head().await;
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        peer.send([head.as_bytes(), &vec![1; length]].concat()).await;
    }
    let outcome = within("stop", gate.proxy.stop()).await.unwrap();
    assert_eq!(outcome.cut.connections, 0);
    drop(client);
}

#[tokio::test]
async fn windows_that_are_returned_in_small_steps_are_no_flood() {
    const LENGTH: usize = 20_000_000;
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    // Go's client returns 4 KiB at a time, on the stream and on the connection; behind gzip 2 KiB.
    for step in [4096, 2048, 512] {
        let mut client = Client::new(begun(&gate).await);
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &request())).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        let sending = tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n");
            peer.send(head).await;
            // The test ends earlier when the client is sent away.
            let _sent = peer.stream.write_all(&vec![1; LENGTH]).await;
        });
        let (mut came, mut unread) = (0, 0);
        while came < LENGTH {
            match next_frame(&mut client).await {
                (DATA, payload) => {
                    came += payload.len();
                    unread += payload.len();
                    let by = u32::try_from(step).unwrap().to_be_bytes();
                    let both = [frame(WINDOW_UPDATE, 0, 1, &by), frame(WINDOW_UPDATE, 0, 0, &by)].concat();
                    client.send(both.repeat(unread / step)).await;
                    unread %= step;
                }
                (GOAWAY, payload) => panic!("sent away after {came} bytes in steps of {step}: {payload:x?}"),
                _ => {}
            }
        }
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_ignores_its_window_ends_its_connection() {
    let gate = Gate::echo("").await;
    let mut post = vec![0x83, 0x84, 0x87, 0x41, 9];
    post.extend(b"gate.test");
    let open = |stream: u32| frame(HEADERS, END_HEADERS, stream, &post);
    let data = |stream: u32| frame(DATA, 0, stream, &[7; 16_000]);
    let mut upstream = Upstream::start().await;
    let held = Gate::before(&upstream.url, "", "").await;
    // A body that its upstream does not read; the connection has room for many streams.
    let mut client = Client::new(begun(&held).await);
    client.send(open(1)).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    let (reader, mut writer) = tokio::io::split(client.stream);
    let reading = tokio::spawn(async move { Client::new(tokio::io::join(reader, tokio::io::sink())).rest().await });
    while writer.write_all(&data(1)).await.is_ok() && !reading.is_finished() {}
    assert_eq!(goaway(&within("end", reading).await.unwrap()), Some(FLOW_CONTROL_ERROR));
    // A body that is not wanted: the stream was answered and reset long before.
    let said = flood(&gate, |number| if number == 0 { open(1) } else { data(1) }).await;
    assert_eq!(said, Some(FLOW_CONTROL_ERROR));
    // The same with a further stream each time that its window is used up.
    let said = flood(&gate, |number| match number % 6 {
        0 => open(number / 3 + 1),
        _ => data(number / 6 * 2 + 1),
    })
    .await;
    assert_eq!(said, Some(FLOW_CONTROL_ERROR));
}

#[tokio::test]
async fn data_on_a_stream_that_the_client_has_ended_is_a_flood() {
    let gate = Gate::echo("").await;
    let open = |flags| frame(HEADERS, END_HEADERS | flags, 1, &request());
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let last = frame(DATA, END_STREAM, 1, b"x");
    for (name, begin) in [
        ("ended in its head", open(END_STREAM)),
        ("ended by data", [open(0), last].concat()),
        ("ended by trailers", [open(0), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])].concat()),
        ("reset", [open(0), reset.clone()].concat()),
        ("reset after its end", [open(END_STREAM), reset].concat()),
    ] {
        for (flags, length) in [(0, 16_000), (0, 1), (END_STREAM, 1), (END_STREAM, 0), (0, 0)] {
            let data = frame(DATA, flags, 1, &vec![7; length]);
            let said = flood(&gate, |number| if number == 0 { begin.clone() } else { data.clone() }).await;
            // The library has codes of its own for some of them.
            assert!(said.is_some_and(|code| code != 0), "{name}, {length} bytes, flags {flags}: {said:?}");
        }
    }
}

#[tokio::test]
async fn what_is_never_finished_ends_its_connection_beside_a_live_websocket() {
    let gate = Gate::before("builtin:echo", "", "[limits]\nhead_timeout = \"300ms\"\nbody_timeout = \"400ms\"").await;
    let half = |mut frame: Vec<u8>| {
        frame.truncate(frame.len() - 1);
        frame
    };
    for (name, bytes) in [
        ("a header block", frame(HEADERS, END_STREAM, 3, &request())),
        ("a CONTINUATION", [frame(HEADERS, 0, 3, &request()), frame(CONTINUATION, 0, 3, &[])].concat()),
        ("half of HEADERS", half(frame(HEADERS, END_HEADERS | END_STREAM, 3, &request()))),
        ("trailers", frame(HEADERS, END_STREAM, 1, &[])),
        ("half of SETTINGS", half(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]))),
        ("the head of a frame", half(frame(PING, 0, 0, &[]))),
        ("half of DATA", half(frame(DATA, 0, 1, b"abcd"))),
    ] {
        let mut client = Client::new(begun(&gate).await);
        client.send(frame(HEADERS, END_HEADERS, 1, &websocket_request())).await;
        while next_frame(&mut client).await.0 != HEADERS {}
        // Longer than any of the limits, with nothing unfinished: the WebSocket goes on.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let message = websocket_frame(BINARY, b"on", MASK);
        client.send(frame(DATA, 0, 1, &message)).await;
        while next_frame(&mut client).await != (DATA, websocket_frame(BINARY, b"on", None)) {}
        client.send(bytes).await;
        assert_eq!(goaway(&client.rest().await), Some(ENHANCE_YOUR_CALM), "{name}");
    }
}
