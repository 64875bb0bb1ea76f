//! Plain HTTP through the same stack.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{Proxy, Upstream, handshake, within};

#[tokio::test]
async fn keep_alive_and_pipelining_keep_their_order() {
    let proxy = Proxy::echo("").await;
    let mut client = proxy.connect().await;
    let post = |text: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    client.send(post("one") + &post("two") + &post("three")).await;
    for text in ["one", "two", "three"] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
    }
}

#[tokio::test]
async fn statuses_without_a_body_stay_without() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    let mut peer = None;
    for (method, answer, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "200"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", "304"),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let peer = match &mut peer {
            Some(peer) => peer,
            none => none.insert(upstream.accept().await),
        };
        peer.head().await;
        peer.send(answer).await;
        assert!(client.head().await.starts_with(&format!("HTTP/1.1 {status} ")));
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
        .await;
    let mut peer = upstream.accept().await;
    assert!(peer.head().await.to_lowercase().contains("te: trailers"));
    let body = String::from_utf8(peer.take("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n".len()).await).unwrap();
    assert!(body.to_lowercase().ends_with("0\r\nx-sum: 1\r\n\r\n"), "{body:?}");
    peer.send(
        "HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: 2\r\n\r\n",
    )
    .await;
    client.head().await;
    let body = String::from_utf8(client.take("2\r\nok\r\n0\r\nx-end: 2\r\n\r\n".len()).await).unwrap();
    assert!(body.to_lowercase().ends_with("x-end: 2\r\n\r\n"), "{body:?}");
}

#[tokio::test]
async fn a_trailer_cannot_say_what_the_head_may_not() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    let said = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nCookie: admin=1\r\nOrigin: http://evil\r\n\
                Connection: close\r\nContent-Length: 9\r\n";
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-forwarded-for, forwarded, cookie, origin, connection, x-ok\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{said}X-Ok: 1\r\n\r\n"
        ))
        .await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    let expected = "1\r\na\r\n0\r\nx-ok: 1\r\n\r\n";
    let body = String::from_utf8(peer.take(expected.len()).await).unwrap();
    assert_eq!(body.to_lowercase(), expected);
}

#[tokio::test]
async fn a_response_may_take_longer_than_the_wait_for_a_further_request() {
    let mut upstream = Upstream::start().await;
    let limits = "[limits]\nkeep_alive_timeout = \"100ms\"\nhead_timeout = \"100ms\"";
    let proxy = Proxy::before(&upstream.url, "", limits).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    client.head().await;
    assert_eq!(client.take(4).await, b"half");
    let early = timeout(Duration::from_millis(400), client.stream.read_u8()).await;
    assert!(early.is_err(), "ended in the middle of its body: {early:?}");
    peer.send("rest").await;
    assert_eq!(client.take(4).await, b"rest");
    // Now the wait has begun, and it ends.
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn an_upload_that_the_upstream_does_not_take_ends_with_504() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "[limits]\nwrite_timeout = \"200ms\"").await;
    let client = proxy.connect().await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let upload = tokio::spawn(async move {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut writer, head.as_bytes()).await.unwrap();
        while tokio::io::AsyncWriteExt::write_all(&mut writer, &[b'x'; 65536]).await.is_ok() {}
    });
    let mut peer = upstream.accept().await;
    peer.head().await;
    let mut start = [0; 12];
    within("answer", reader.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 504");
    within("end of the upload", upload).await.unwrap();
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_a_502() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    for lines in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "Content-Length: 2, 2\r\n\r\nab",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        // Each comes over a connection of its own: the one before was not used again.
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send(format!("HTTP/1.1 200 OK\r\n{lines}")).await;
        assert_eq!(client.answer().await.status, 502, "{lines}");
    }
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let proxy = Proxy::echo("").await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("ok").await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test]
async fn a_large_upload_comes_back_whole() {
    let proxy = Proxy::echo("").await;
    let mut client = proxy.connect().await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len())).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let body = sent.clone();
    let write = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut writer, &body).await.unwrap() });
    let mut got = vec![0; sent.len()];
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap());
        }
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut got).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    assert!(within("echo", read).await.starts_with("HTTP/1.1 200"));
    assert!(got == sent);
    write.await.unwrap();
}

#[tokio::test]
async fn a_get_meets_a_dead_pooled_connection_and_is_sent_once_more() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    client.send(get).await;
    let mut first = upstream.accept().await;
    first.head().await;
    first.send(ok).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(get).await;
    // The request arrives on the reused connection, which dies without a byte.
    first.head().await;
    drop(first);
    let mut second = upstream.accept().await;
    second.head().await;
    second.send(ok).await;
    assert_eq!(client.answer().await.status, 200);
    // A POST is not sent twice.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    second.head().await;
    drop(second);
    assert_eq!(client.answer().await.status, 502);
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn an_upstream_connection_serves_many_clients_and_is_closed_when_none_comes() {
    let mut upstream = Upstream::start().await;
    // Each worker has a pool of its own.
    let proxy = Proxy::start(&format!(
        "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"{}\"\npool_idle_timeout = \"300ms\"\n",
        upstream.url
    ))
    .await;
    let mut peer = None;
    for _ in 0..3 {
        let mut client = proxy.connect().await;
        client.send("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let peer = match &mut peer {
            Some(peer) => peer,
            none => none.insert(upstream.accept().await),
        };
        assert!(peer.head().await.starts_with("GET /a?b HTTP/1.1\r\n"));
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        client.head().await;
        client.take("2\r\nok\r\n0\r\n\r\n".len()).await;
    }
    assert!(!upstream.was_dialled());
    assert!(peer.unwrap().rest().await.is_empty());
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let proxy = Proxy::echo("").await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(all.starts_with("HTTP/1.0 200") || all.starts_with("HTTP/1.1 200"), "{all}");
    assert!(all.ends_with("ok"), "{all}");
}

#[tokio::test]
async fn no_route_is_a_404() {
    let proxy = Proxy::echo("host = \"only.test\"").await;
    assert_eq!(proxy.connect().await.ask("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await.status, 404);
    assert_eq!(proxy.connect().await.ask("GET / HTTP/1.1\r\nHost: ONLY.test.:80\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn a_request_that_goes_in_a_circle_ends() {
    // The upstream's address leads back to the gate.
    let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::before(&format!("http://{}", back.local_addr().unwrap()), "", "").await;
    let gate = proxy.addresses[0];
    tokio::spawn(async move {
        while let Ok((mut from, _)) = back.accept().await {
            let mut to = TcpStream::connect(gate).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut from, &mut to).await });
        }
    });
    for request in [handshake(""), "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n".to_owned()] {
        assert_eq!(proxy.connect().await.ask(&request).await.status, 508, "{request}");
    }
}
