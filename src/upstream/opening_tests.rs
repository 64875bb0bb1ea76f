use std::time::Duration;

use http::header::{COOKIE, HOST, SEC_WEBSOCKET_ACCEPT, SET_COOKIE};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    runtime::Handle,
    task::yield_now,
    time::timeout,
};

use super::*;
use crate::protocol::interim::MAX_COUNT;

const PIPE: usize = 128 * 1024;

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const HEAD: &str = "GET /chat?a=%20b HTTP/1.1\r\nHost: gate.test\r\nX-Forwarded-For: 192.0.2.1\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: a=1\r\nCookie: b=\u{fc}\r\n\r\n";

fn request() -> Request<Body> {
    let mut request = Request::new(body::empty());
    *request.uri_mut() = "/chat?a=%20b".parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("gate.test"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
    headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
    headers.insert(COOKIE, HeaderValue::from_static("a=1"));
    headers.append(COOKIE, HeaderValue::from_bytes("b=\u{fc}".as_bytes()).unwrap());
    request
}

type Answered = Result<Response<Body>, UpstreamError>;

/// One exchange with a peer that does as `script` says.
async fn exchange<F: Future>(pipe: usize, script: impl FnOnce(DuplexStream) -> F) -> (Answered, F::Output) {
    let (ours, theirs) = duplex(pipe);
    let tracker = Tracker::default();
    let both = async { tokio::join!(open(Wire::boxed(ours), request(), &tracker, "u"), script(theirs)) };
    timeout(Duration::from_secs(10), both).await.expect("an end")
}

/// One exchange with a peer that reads the request, says `answer` and stays.
async fn answered(answer: impl AsRef<[u8]>) -> (Answered, DuplexStream) {
    exchange(PIPE, async |mut peer| {
        asked(&mut peer).await;
        peer.write_all(answer.as_ref()).await.unwrap();
        peer
    })
    .await
}

async fn asked(peer: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(peer.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn body(response: Response<Body>) -> Result<Bytes, BodyError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

#[tokio::test(start_paused = true)]
async fn the_request_is_written_with_the_capitals_of_the_rfcs() {
    let (answer, head) = exchange(PIPE, async |mut peer| {
        let head = asked(&mut peer).await;
        peer.write_all(ACCEPTED.as_bytes()).await.unwrap();
        head
    })
    .await;
    assert_eq!(head, HEAD);
    assert_eq!(answer.unwrap().status(), 101);
    for (uri, line) in [("/", "GET / HTTP/1.1\r\n"), ("http://a?q", "GET /?q HTTP/1.1\r\n")] {
        let mut request = request();
        *request.uri_mut() = http::Uri::from(uri.parse::<http::Uri>().unwrap().into_parts().path_and_query.unwrap());
        assert!(request_head(&request).starts_with(line.as_bytes()), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_101_gives_its_fields_and_once_the_stream_with_what_stood_behind_it() {
    let repeated = ACCEPTED.replace("\r\n\r\n", "\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n");
    let (answer, mut peer) = answered(format!("{repeated}\u{1}frames")).await;
    let mut response = answer.unwrap();
    assert_eq!(response.version(), Version::HTTP_11);
    assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.headers().get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(response.headers().len(), 5);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);

    let mut copy = Response::new(());
    *copy.extensions_mut() = response.extensions().clone();
    let (mut stream, early) = take_stream(&mut response).unwrap();
    assert!(take_stream(&mut response).is_none() && take_stream(&mut copy).is_none());
    assert_eq!(early, "\u{1}frames");
    peer.write_all(b"more").await.unwrap();
    let mut more = [0; 4];
    stream.read_exact(&mut more).await.unwrap();
    assert_eq!(&more, b"more");
    stream.write_all(b"back").await.unwrap();
    peer.read_exact(&mut more).await.unwrap();
    assert_eq!(&more, b"back");
}

#[tokio::test(start_paused = true)]
async fn heads_that_come_byte_by_byte_are_the_same() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for before in ["", interim, "\r\n\n", "HTTP/1.1 102 \n\n"] {
        for whole in [true, false] {
            let (answer, _peer) = exchange(PIPE, async |mut peer| {
                asked(&mut peer).await;
                let answer = [before.as_bytes(), ACCEPTED.as_bytes()].concat();
                for part in answer.chunks(if whole { answer.len() } else { 1 }) {
                    peer.write_all(part).await.unwrap();
                    yield_now().await;
                }
                peer
            })
            .await;
            let mut response = answer.unwrap();
            assert_eq!((response.status().as_u16(), response.headers().len()), (101, 3), "{before:?} {whole}");
            assert!(take_stream(&mut response).unwrap().1.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_passes_with_its_body_however_that_ends() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    for before in ["", interim] {
        for (fields, text) in [
            ("Content-Length: 4\r\n\r\nbody", "body"),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", "body"),
            ("\r\nuntil the close", "until the close"),
            ("Content-Length: 0\r\n\r\n", ""),
        ] {
            for status in ["200 OK", "302 Found", "401 Unauthorized", "503 Later"] {
                let (answer, peer) = answered(format!("{before}HTTP/1.1 {status}\r\nX: 1\r\nX: 2\r\n{fields}")).await;
                let mut response = answer.unwrap();
                drop(peer);
                assert!(status.starts_with(response.status().as_str()));
                assert_eq!(response.headers().get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
                assert!(take_stream(&mut response).is_none());
                assert_eq!(body(response).await.unwrap(), text, "{fields:?}");
            }
        }
    }
    for status in [204, 304] {
        let (answer, _peer) = answered(format!("HTTP/1.1 {status} X\r\n\r\n")).await;
        assert_eq!(body(answer.unwrap()).await.unwrap(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_refusal_is_not_waited_for_and_a_torn_one_says_so() {
    let (answer, mut peer) = answered("HTTP/1.1 503 X\r\nContent-Length: 70000\r\n\r\nbegin").await;
    let mut content = answer.unwrap().into_body();
    assert_eq!(content.frame().await.unwrap().unwrap().into_data().unwrap(), "begin");
    let rest = async {
        peer.write_all(&[b'x'; 60_000]).await.unwrap();
        drop(peer);
    };
    let (rest, ()) = tokio::join!(content.collect(), rest);
    rest.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_sound_answer_is_named() {
    let fields = |count: usize| format!("HTTP/1.1 101 X\r\n{}\r\n", "A: b\r\n".repeat(count));
    let garbage: fn(&UpstreamError) -> bool = |error| matches!(error, UpstreamError::Garbage(_));
    let closed: fn(&UpstreamError) -> bool = |error| matches!(error, UpstreamError::Closed(_));
    let framing: fn(&UpstreamError) -> bool = |error| matches!(error, UpstreamError::Framing(_));
    for (answer, expected) in [
        (String::new(), closed),
        ("\r\n".to_owned(), closed),
        ("HTTP/1.1 101 Swi".to_owned(), closed),
        ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), closed),
        (ACCEPTED.strip_suffix("\n").unwrap().to_owned(), closed),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), garbage),
        (ACCEPTED.replace("HTTP/1.1", "HTTP/2.0"), garbage),
        (ACCEPTED.replace("HTTP/1.1", "HTTP/0.9"), garbage),
        (ACCEPTED.replace("Upgrade:", "Upgrade :"), garbage),
        (ACCEPTED.replace("101", "099"), garbage),
        (ACCEPTED.replace("101", "1O1"), garbage),
        (ACCEPTED.replace("\r\nConnection", "\r\n Connection"), garbage),
        (ACCEPTED.replace("Accept: ", "Accept: \0"), garbage),
        (ACCEPTED.replace("Accept: ", "Accept: \r"), garbage),
        (fields(101), garbage),
        (fields(101).replace("101", "401"), garbage),
        (fields(101).replace("101", "103"), garbage),
        (fields(1).replace("A: b", "Content-Length: 1\r\nContent-Length: 1"), framing),
        (fields(1).replace("A: b", "Content-Length: 1\r\nTransfer-Encoding: chunked"), framing),
        (fields(1).replace("A: b", "Transfer-Encoding: gzip").replace("101", "401"), framing),
    ] {
        let (answered, ()) = exchange(PIPE, async |mut peer| {
            asked(&mut peer).await;
            peer.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let error = answered.unwrap_err();
        assert!(expected(&error), "{answer:?}: {error:?}");
    }
    assert_eq!(answered(fields(100)).await.0.unwrap().headers().len(), 100);
    let old = answered(ACCEPTED.replace("HTTP/1.1", "HTTP/1.0")).await.0.unwrap();
    assert_eq!(old.version(), Version::HTTP_10, "for those to refuse who verify it");
}

#[tokio::test(start_paused = true)]
async fn a_head_without_end_is_given_up_at_its_limit() {
    for (begin, more) in [("HTTP/1.1 101 X\r\nA: ", "a"), ("HTTP/1.1 401 X\r\nA: ", "a"), ("", "\r\n")] {
        let (answer, taken) = exchange(1024, async |mut peer| {
            asked(&mut peer).await;
            peer.write_all(begin.as_bytes()).await.unwrap();
            let mut taken = begin.len();
            while peer.write_all(more.as_bytes()).await.is_ok() {
                taken += more.len();
            }
            taken
        })
        .await;
        assert!(matches!(answer.unwrap_err(), UpstreamError::Garbage(_)), "{more:?}");
        assert!((MAX_BUFFER - 32..=MAX_BUFFER + 1024).contains(&taken), "{more:?}: {taken}");
    }
    // Interim responses have a limit of their own, and are named.
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    for (count, within) in [(MAX_COUNT, true), (MAX_COUNT + 1, false)] {
        match answered(interim.repeat(count) + ACCEPTED).await.0 {
            Ok(_) => assert!(within, "{count}"),
            Err(error) => assert!(!within && matches!(error, UpstreamError::Interim(_)), "{count}: {error}"),
        }
    }
    // The largest head that fits, with bytes behind it.
    let filled = |length: usize| ACCEPTED.replace("\r\n\r\n", &format!("\r\nA: {}\r\n\r\n", "a".repeat(length)));
    let most = MAX_BUFFER - filled(0).len();
    let mut response = answered(format!("{}frame", filled(most))).await.0.unwrap();
    assert_eq!(take_stream(&mut response).unwrap().1, "");
    assert!(matches!(answered(filled(most + 1)).await.0.unwrap_err(), UpstreamError::Garbage(_)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_within_the_request_has_closed() {
    for read in [0, 20] {
        let (answer, ()) = exchange(32, async |mut peer| {
            let mut begin = vec![0; read];
            peer.read_exact(&mut begin).await.unwrap();
        })
        .await;
        assert!(matches!(answer.unwrap_err(), UpstreamError::Closed(_)), "{read}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_exchange_closes_its_connection_and_leaves_no_task() {
    for read in [0, HEAD.len()] {
        let (ours, mut theirs) = duplex(32);
        let tracker = Tracker::default();
        let mut opened = Box::pin(open(Wire::boxed(ours), request(), &tracker, "u"));
        let mut begin = vec![0; read];
        let silent = async {
            theirs.read_exact(&mut begin).await.unwrap();
            std::future::pending::<()>().await;
        };
        let ended = timeout(Duration::from_secs(3600), async {
            tokio::select! { _ = &mut opened => {} () = silent => {} }
        });
        ended.await.unwrap_err();
        drop(opened);
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.unwrap();
        assert_eq!([begin, rest].concat(), &HEAD.as_bytes()[..if read == 0 { 32 } else { read }]);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_may_come_before_the_upstream_has_read_the_request() {
    for stays in [true, false] {
        let (answer, peer) = exchange(64, async |mut peer| {
            let mut begin = [0; 10];
            peer.read_exact(&mut begin).await.unwrap();
            peer.write_all(b"HTTP/1.1 431 X\r\nContent-Length: 4\r\n\r\nbody").await.unwrap();
            stays.then_some(peer)
        })
        .await;
        let response = answer.unwrap();
        assert_eq!(response.status(), 431);
        let Some(mut peer) = peer else { continue };
        let rest = async { format!("GET /chat?{}", asked(&mut peer).await) };
        let (text, head) = tokio::join!(body(response), rest);
        assert_eq!((text.unwrap().as_ref(), head.as_str()), (&b"body"[..], HEAD), "the rest still went out");
    }
}

#[tokio::test(start_paused = true)]
async fn no_frame_gets_into_the_middle_of_the_request() {
    let (answer, mut peer) = exchange(ACCEPTED.len(), async |mut peer| {
        assert!(HEAD.len() > ACCEPTED.len(), "part of the head is still to be written");
        peer.write_all(ACCEPTED.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(asked(&mut peer).await, HEAD);
        peer
    })
    .await;
    let (mut stream, _) = take_stream(&mut answer.unwrap()).unwrap();
    stream.write_all(b"frame").await.unwrap();
    drop(stream);
    let mut after = String::new();
    peer.read_to_string(&mut after).await.unwrap();
    assert_eq!(after, "frame");
}

/// What becomes of an answer, in words that can be compared.
fn verdict(answer: Result<Response<()>, UpstreamError>) -> String {
    match answer {
        Ok(response) => format!("{} {:?} {:?}", response.status(), response.version(), response.headers()),
        Err(UpstreamError::Garbage(_)) => "garbage".to_owned(),
        Err(UpstreamError::Closed(_)) => "closed".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn heads_are_judged_as_hyper_judges_them() {
    let answers = [
        ACCEPTED,
        "HTTP/1.1 101\r\n\r\n",
        "HTTP/1.1 101 \r\n\r\n",
        "HTTP/1.1 101X\r\n\r\n",
        "HTTP/1.1  101 X\r\n\r\n",
        "HTTP/1.1 101 X\n\n",
        "HTTP/1.1 101 X\nA: b\nC:d\n\n",
        "HTTP/1.1 101 X\r\nA:\r\nA: \t \r\nA: a b \t\r\n\r\n",
        "HTTP/1.1 101 X\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 101 X\r\nA: \u{fc}\r\n\r\n",
        "HTTP/1.1 101 \u{fc}\r\n\r\n",
        "HTTP/1.1 101 X\r\n: b\r\n\r\n",
        "HTTP/1.1 101 X\r\nA\r\n\r\n",
        "HTTP/1.1 101 X\r\nA b: c\r\n\r\n",
        "HTTP/1.1 101 X\r\nA: b\rC: d\r\n\r\n",
        "HTTP/1.1 101 X\r\nA: b\r\r\n\r\n",
        "HTTP/1.0 101 X\r\n\r\n",
        "HTTP/1.2 101 X\r\n\r\n",
        "http/1.1 101 X\r\n\r\n",
        "\r\n\r\n\nHTTP/1.1 101 X\r\n\r\n",
        "\r\rHTTP/1.1 101 X\r\n\r\n",
        " HTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.1 199 X\r\nA: b\r\n\r\n\r\nHTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.0 100 X\r\n\r\nHTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.1 000 X\r\n\r\n",
        "HTTP/1.1 999 X\r\n\r\n",
        "HTTP/1.1 401 X\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 401 X\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.0 401 X\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 X\r\nContent-Length: x\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "{}",
    ];
    for answer in answers {
        let script = async |mut peer: DuplexStream| {
            asked(&mut peer).await;
            peer.write_all(answer.as_bytes()).await.unwrap();
        };
        let (ours, ()) = exchange(PIPE, script).await;

        let (io, theirs) = duplex(PIPE);
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_BUFFER).handshake::<_, Body>(TokioIo::new(io)).await.unwrap();
        let asking = sender.send_request(request());
        let known = async {
            let response = asking.await.map_err(failed)?;
            response_framing::check(response.headers()).map_err(UpstreamError::Framing)?;
            Ok(response.map(drop))
        };
        let (known, (), _) = tokio::join!(known, script(theirs), connection.with_upgrades());
        assert_eq!(verdict(ours.map(|response| response.map(drop))), verdict(known), "{answer:?}");
    }
}

#[test]
fn a_head_is_parsed_at_first_and_when_an_empty_line_has_come() {
    for (known, news, worth) in [
        ("", "", false),
        ("", "H", true),
        ("HTTP/1.1 101 X", "\r\n", false),
        ("HTTP/1.1 101 X\r\n", "A: b\r", false),
        ("HTTP/1.1 101 X\r\n", "\r", false),
        ("HTTP/1.1 101 X\r\n\r", "\n", true),
        ("HTTP/1.1 101 X\r\n", "\r\nframes", true),
        ("HTTP/1.1 101 X\n", "\n", true),
        ("HTTP/1.1 101 X\n", "A: b\n", false),
        ("HTTP/1.1 101 X", "\r\nA: b\r\n\r\n", true),
    ] {
        assert_eq!(may_be_whole(format!("{known}{news}").as_bytes(), known.len()), worth, "{known:?} {news:?}");
    }
}
