//! Limits of a connection and of its streams, and what a client sees that reaches them.

use std::time::Duration;

use switchgate::net::tls;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;

use super::raw::*;
use crate::support::{
    Client,
    doors::Gate,
    frames::{BINARY, MASK, frame as websocket_frame},
    process::{DEVELOPMENT, Process},
};

#[tokio::test]
async fn a_head_over_the_limit_is_answered_and_its_stream_ends_cleanly() {
    let gate = Gate::echo("").await;
    let mut client = Client::new(begun(&gate).await);
    let long = |size: usize| field("x-long", &"a".repeat(size));
    let many = |size: usize| (0..size / 40).flat_map(|i| field(&format!("x-{i}"), "1234567890")).collect();
    let blocks: [(&str, Vec<u8>, bool); 7] = [
        ("within", long(15_000), false),
        ("just over", long(16_384), true),
        ("one field", long(100_000), true),
        ("one large field", long(250_000), true),
        ("many fields", many(100_000), true),
        ("many more", many(200_000), true),
        ("within again", long(15_000), false),
    ];
    for (number, (name, more, too_large)) in (0..).zip(blocks) {
        for (ends, stream) in [(END_STREAM, number * 4 + 1), (0, number * 4 + 3)] {
            let block = [request(), more.clone()].concat();
            let mut pieces = block.chunks(16_384).peekable();
            let mut frames = frame(HEADERS, ends, stream, pieces.next().unwrap());
            while let Some(piece) = pieces.next() {
                let flag = if pieces.peek().is_none() { END_HEADERS } else { 0 };
                frames.extend(frame(CONTINUATION, flag, stream, piece));
            }
            if block.len() <= 16_384 {
                frames[4] |= END_HEADERS;
            }
            client.send(frames).await;
            let (mut ended, mut body) = (false, Vec::new());
            while !ended {
                let head = client.take(9).await;
                let payload = client.take(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize).await;
                match head[3] {
                    DATA | HEADERS => {
                        ended |= head[4] & END_STREAM != 0;
                        body.extend(payload);
                    }
                    // No more of a body is wanted (RFC 9113 section 8.1), perhaps of the stream before.
                    RST_STREAM => assert_eq!(payload, [0, 0, 0, 0], "{name}"),
                    GOAWAY => panic!("{name}: sent away: {payload:x?}"),
                    _ => {}
                }
            }
            let text = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(text.contains("larger than limits.max_head_size"), too_large, "{name}: {text}");
        }
    }
}

#[tokio::test]
async fn a_connection_may_have_256_streams() {
    let gate = Gate::echo("").await;
    let mut client = Client::new(begun(&gate).await);
    let settings = loop {
        if let (SETTINGS, entries) = next_frame(&mut client).await {
            break entries;
        }
    };
    assert!(settings.chunks_exact(6).any(|entry| entry == [0, 3, 0, 0, 1, 0]), "{settings:?}");
    let sockets = (0..256).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &websocket_request()));
    client.send(sockets.collect::<Vec<u8>>()).await;
    let mut open = 0;
    while open < 256 {
        match next_frame(&mut client).await {
            (HEADERS, _) => open += 1,
            (RST_STREAM | GOAWAY, payload) => panic!("refused after {open}: {payload:x?}"),
            _ => {}
        }
    }
    // A browser that leaves its page takes all of them back, and the next page opens as many.
    let resets = (0..256).flat_map(|number| frame(RST_STREAM, 0, number * 2 + 1, &[0, 0, 0, 8]));
    let again = (256..512).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &websocket_request()));
    client.send(resets.chain(again).collect::<Vec<u8>>()).await;
    while open < 512 {
        match next_frame(&mut client).await {
            (HEADERS, _) => open += 1,
            (RST_STREAM | GOAWAY, payload) => panic!("refused after {open}: {payload:x?}"),
            _ => {}
        }
    }
}

/// A connection to the program, for HTTP/2.
async fn secure(gate: &Process) -> Client<TlsStream<TcpStream>> {
    let config = tls::client_config(Some(&gate.folder.path().join("ca.pem"))).unwrap();
    let mut config = rustls::ClientConfig::clone(&config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Client::new(crate::support::tls_client::connect(&gate.addresses[0], "localhost", config).await.unwrap())
}

#[tokio::test]
async fn a_connection_holds_no_more_memory_than_the_docs_say() {
    const STREAMS: u32 = 256;
    const MOST: u64 = 40 << 20;
    let gate = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n"
    ))
    .await;
    let mut client = secure(&gate).await;
    // It lets the gate send what it likes, and reads nothing of it.
    let windows =
        [frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0])];
    let sockets = (0..STREAMS).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &websocket_request()));
    client.send([PREFACE.to_vec(), windows.concat(), sockets.collect()].concat()).await;
    let mut open = 0;
    while open < STREAMS {
        open += u32::from(next_frame(&mut client).await.0 == HEADERS);
    }
    let before = gate.private_memory();
    let (_reader, mut writer) = tokio::io::split(client.stream);
    // All that the windows allow.
    let messages = websocket_frame(BINARY, b"small", MASK).repeat(16_384 / 11);
    let mut most = 0;
    for _ in 0..4 {
        for number in 0..STREAMS {
            let bytes = frame(DATA, 0, number * 2 + 1, &messages);
            // Where the gate waits for its client it reads no further.
            if timeout(Duration::from_secs(1), writer.write_all(&bytes)).await.is_err() {
                break;
            }
        }
        most = most.max(gate.private_memory().saturating_sub(before));
    }
    eprintln!("{STREAMS} streams held {most} bytes");
    assert!(most < MOST, "{most} bytes");
}

#[tokio::test]
async fn the_log_names_a_client_that_has_all_its_streams_once_in_a_while() {
    let mut gate = Process::start(&format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n[limits]\nmax_streams = 3\n"
    ))
    .await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = secure(&gate).await;
        let sockets = (0..3).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &websocket_request()));
        client.send([PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), sockets.collect()].concat()).await;
        for _ in 0..3 {
            while next_frame(&mut client).await.0 != HEADERS {}
        }
        clients.push(client);
    }
    drop(clients);
    gate.terminate();
    gate.exit_code().await;
    let reached: Vec<_> = gate
        .seen
        .iter()
        .filter(|event| event["message"].as_str().is_some_and(|message| message.starts_with("max_streams reached")))
        .collect();
    assert_eq!(reached.len(), 1, "{:#?}", gate.seen);
    let event = reached[0];
    assert_eq!((&event["listener"], &event["limit"], &event["level"]), (&"edge".into(), &3.into(), &"WARN".into()));
    assert!(event["client"].as_str().unwrap().starts_with("127.0.0.1"), "{event}");
    assert!(event["hint"].as_str().unwrap().contains("limits.max_streams"), "{event}");
}

/// `POST /../`, which is refused whatever its body.
fn refused_post() -> Vec<u8> {
    let mut block = vec![0x83, 0x44, 4];
    block.extend(b"/../");
    block.extend([0x87, 0x41, 9]);
    block.extend(b"gate.test");
    block
}

#[tokio::test]
async fn a_body_that_nobody_wants_may_end_before_its_stream_is_reset() {
    let gate = Gate::echo("").await;
    let mut client = Client::new(begun(&gate).await);
    client.send(frame(HEADERS, END_HEADERS, 1, &refused_post())).await;
    while next_frame(&mut client).await.0 != DATA {}
    // More than a window: it is opened again for what is not wanted.
    let mut window = 65_535;
    for _ in 0..12 {
        client.send(frame(DATA, 0, 1, &[7; 16_000])).await;
        window -= 16_000;
        while window < 16_000 {
            match next_frame(&mut client).await {
                (WINDOW_UPDATE, more) => window += u32::from_be_bytes(more.try_into().unwrap()),
                (RST_STREAM | GOAWAY, payload) => panic!("{payload:x?}"),
                _ => {}
            }
        }
    }
    client.send([frame(DATA, END_STREAM, 1, b"end"), frame(PING, 0, 0, b"the last")].concat()).await;
    loop {
        match next_frame(&mut client).await {
            (PING, payload) if payload == b"the last" => break,
            (RST_STREAM | GOAWAY, payload) => panic!("{payload:x?}"),
            _ => {}
        }
    }
    // One that does not end is not waited for.
    client.send(frame(HEADERS, END_HEADERS, 3, &refused_post())).await;
    while next_frame(&mut client).await != (RST_STREAM, vec![0, 0, 0, 0]) {}
}

#[tokio::test]
async fn uploads_that_are_all_refused_are_no_fault_of_their_client() {
    let gate = Gate::echo("").await;
    // Each sends its whole window before it learns of the refusal, and that takes longer than all the others.
    let mut client = Client::new(begun(&gate).await);
    let open = (0..256).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &refused_post()));
    client.send(open.collect::<Vec<u8>>()).await;
    let mut refused = 0;
    while refused < 256 {
        refused += u32::from(next_frame(&mut client).await.0 == RST_STREAM);
    }
    for number in 0..256 {
        client.send(frame(DATA, 0, number * 2 + 1, &[7; 16_000]).repeat(4)).await;
    }
    client.send(frame(PING, 0, 0, b"the next")).await;
    loop {
        match next_frame(&mut client).await {
            (PING, payload) if payload == b"the next" => break,
            (GOAWAY, payload) => panic!("sent away: {payload:x?}"),
            _ => {}
        }
    }
}
