//! What those who share a connection have of each other, and how long anybody is waited for.

use super::*;

/// Like [`before`], and the answers may take their time.
async fn patient(upstream: &Http2Upstream, keys: &str) -> Proxy {
    Proxy::start(&format!(
        "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"\n{keys}\n",
        upstream.port
    ))
    .await
}

#[tokio::test]
async fn a_crowd_opens_one_connection_and_more_than_a_hundred_open_another() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let proxy = patient(&upstream, "").await;
    let (mut pairs, mut held) = (Vec::new(), Vec::new());
    for (crowd, connections) in [(20, 1), (80, 1), (1, 2)] {
        let mut clients = Vec::new();
        for _ in 0..crowd {
            let mut client = proxy.connect().await;
            client.send(handshake("")).await;
            clients.push(client);
        }
        for _ in 0..crowd {
            pairs.push(accept_websocket(upstream.accept().await));
        }
        for client in &mut clients {
            assert_eq!(client.answer().await.status, 101);
        }
        assert_eq!(upstream.connections(), connections, "for {}", pairs.len());
        held.push(clients);
    }
}

#[tokio::test]
async fn a_connection_with_a_websocket_or_half_an_answer_is_not_idle() {
    for websocket in [true, false] {
        let mut upstream = Http2Upstream::with_websockets().await;
        let proxy = patient(&upstream, "pool_idle_timeout = \"100ms\"").await;
        let mut client = proxy.connect().await;
        client.send(if websocket { handshake("") } else { GET.to_owned() }).await;
        let asked = upstream.accept().await;
        let mut held = None;
        let mut peer = None;
        if websocket {
            peer = Some(accept_websocket(asked));
        } else {
            let (_request, mut respond) = asked;
            held = Some(respond.send_response(http::Response::new(()), false).unwrap());
        }
        client.head().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut other = proxy.connect().await;
        other.send(GET).await;
        let (_request, mut respond) = upstream.accept().await;
        answer(&mut respond, 200, "");
        other.head().await;
        assert_eq!(upstream.connections(), 1, "websocket: {websocket}");
        drop((client, held, peer));
    }
}

#[tokio::test]
async fn the_wait_for_an_answer_begins_when_all_is_sent() {
    let mut upstream = Http2Upstream::start(|_| {}).await;
    let proxy = before(&upstream, "").await;
    let head = "POST / HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (answers, status) in [(true, "HTTP/1.1 200 "), (false, "HTTP/1.1 504 ")] {
        let mut client = proxy.connect().await;
        client.send(head).await;
        let (_request, mut respond) = upstream.accept().await;
        // Longer than the wait for an answer.
        tokio::time::sleep(Duration::from_millis(800)).await;
        client.send("0\r\n\r\n").await;
        if answers {
            answer(&mut respond, 200, "");
        }
        let head = client.head().await;
        assert!(head.starts_with(status), "{head}");
    }
}

#[tokio::test]
async fn whoever_takes_the_connection_and_says_nothing_is_a_504() {
    let silent = authority::raw(|mut stream| async move {
        use tokio::io::AsyncReadExt;
        while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let proxy = Proxy::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"http://127.0.0.1:{silent}\"\nprotocol = \"h2\"\ndial_timeout = \"300ms\"\n"
    ))
    .await;
    for request in [GET.to_owned(), handshake("")] {
        assert_eq!(proxy.connect().await.ask(request).await.status, 504);
    }
}

#[tokio::test]
async fn nothing_is_to_be_pushed() {
    let mut upstream = Http2Upstream::start(|_| {}).await;
    let proxy = before(&upstream, "").await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let (_request, mut respond) = upstream.accept().await;
    let unasked = http::Request::get("http://gate.test/unasked").body(()).unwrap();
    assert!(respond.push_request(unasked).is_err());
    answer(&mut respond, 200, "");
    client.head().await;
}
