//! The pool over in-memory pipes, on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{future::join, stream};
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    join,
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};

use super::*;
use crate::{
    config::model::{Endpoint, HostHeader, Protocol},
    upstream::DownstreamBodyError,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const IDLE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);

/// A pool of at most two, and the far ends of what it dials.
struct Rig {
    pool: Pool,
    tracker: Tracker,
    dials: mpsc::Sender<DuplexStream>,
    accepts: Mutex<mpsc::Receiver<DuplexStream>>,
    dialled: AtomicUsize,
}

impl Rig {
    fn new() -> Self {
        let upstream = Upstream {
            name: "u".into(),
            endpoint: Endpoint::BuiltinEcho,
            dial_timeout: Duration::from_secs(1),
            response_timeout: Some(ANSWER),
            body_timeout: None,
            event_stream_timeout: None,
            host_header: HostHeader::Preserve,
            protocol: Protocol::Http1,
            proxy_protocol: None,
            pool_idle_timeout: IDLE,
            paths: crate::config::model::PathReading::Any,
            pool_max_idle: 2,
        };
        let tracker = Tracker::default();
        let (dials, accepts) = mpsc::channel(16);
        Self {
            pool: Pool::new(upstream.into(), Duration::from_secs(5), tracker.clone()),
            tracker,
            dials,
            accepts: Mutex::new(accepts),
            dialled: AtomicUsize::new(0),
        }
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Answer>, UpstreamError> {
        let dial = || async {
            let (ours, theirs) = duplex(64 * 1024);
            self.dialled.fetch_add(1, Ordering::Relaxed);
            self.dials.try_send(theirs).unwrap();
            Ok(Wire::boxed(ours))
        };
        timeout(ANSWER * 10, self.pool.exchange(dial, request, None)).await.expect("an answer")
    }

    async fn accept(&self) -> Peer {
        Peer(timeout(ANSWER, async { self.accepts.lock().await.recv().await.unwrap() }).await.expect("a connection"))
    }

    /// So many exchanges at once, answered in the order of the connections that are returned.
    async fn opened(&self, count: usize) -> Vec<Peer> {
        let requests = futures_util::future::join_all((0..count).map(|_| self.send(get())));
        let peers = async {
            let mut peers = Vec::new();
            for _ in 0..count {
                peers.push(self.accept().await);
            }
            for peer in &mut peers {
                peer.answer(OK).await;
                settle().await;
            }
            peers
        };
        let (answers, peers) = join(requests, peers).await;
        for answer in answers {
            assert_eq!(read(answer.unwrap()).await, "ok");
        }
        peers
    }

    /// One exchange, for which this peer and no other is used.
    async fn over(&self, peer: &mut Peer, answer: &str) -> Result<Response<Answer>, UpstreamError> {
        join(self.send(get()), peer.answer(answer)).await.0
    }

    fn idle(&self) -> usize {
        self.pool.0.idle().connections.len()
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }
}

struct Peer(DuplexStream);

impl Peer {
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(ANSWER, self.0.read_u8()).await.expect("a head").unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self, answer: &str) {
        self.head().await;
        self.send(answer).await;
    }

    /// Waits for the end; nothing more may come.
    async fn ended(&mut self) {
        assert_eq!(timeout(IDLE * 10, self.0.read(&mut [0])).await.expect("the end").unwrap_or(0), 0);
    }
}

/// Lets every task do what it can do at this moment.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

fn get() -> Request<Body> {
    request(Method::GET, body::empty())
}

fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/a?b").header("x-some", "1").body(body).unwrap()
}

/// A body of one chunk, which comes after so many seconds.
fn slow(seconds: u64) -> Body {
    let chunk = async move {
        sleep(Duration::from_secs(seconds)).await;
        Ok(Frame::data(Bytes::from_static(b"late")))
    };
    BodyExt::boxed_unsync(StreamBody::new(stream::once(chunk)))
}

async fn read(response: Response<Answer>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_request_line_is_written_as_it_is_given_and_nothing_is_added() {
    let rig = Rig::new();
    let (answer, head) = join!(rig.send(get()), async {
        let mut peer = rig.accept().await;
        let head = peer.head().await;
        peer.send(OK).await;
        head
    });
    answer.unwrap();
    assert_eq!(head, "GET /a?b HTTP/1.1\r\nX-Some: 1\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_was_used_last_is_used_next() {
    let rig = Rig::new();
    let mut peers = rig.opened(2).await;
    assert_eq!(rig.idle(), 2);
    for _ in 0..3 {
        assert_eq!(read(rig.over(&mut peers[1], OK).await.unwrap()).await, "ok");
    }
    assert_eq!((rig.idle(), rig.dialled()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_maximum_are_kept_and_the_oldest_goes() {
    let rig = Rig::new();
    let mut peers = rig.opened(3).await;
    assert_eq!(rig.idle(), 2);
    let begun = Instant::now();
    peers[0].ended().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(rig.over(&mut peers[2], OK).await.is_ok());
    assert_eq!(rig.dialled(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_in_time_without_further_traffic() {
    let rig = Rig::new();
    let mut peers = rig.opened(2).await;
    sleep(IDLE * 2 / 3).await;
    assert!(rig.over(&mut peers[1], OK).await.is_ok());
    let begun = Instant::now();
    peers[0].ended().await;
    assert!(begun.elapsed() <= IDLE / 3, "{:?}", begun.elapsed());
    assert_eq!(rig.idle(), 1);
    peers[1].ended().await;
    assert_eq!(begun.elapsed().as_secs(), IDLE.as_secs());
    assert_eq!(rig.idle(), 0);
    // Whoever closes them starts again with the next.
    let mut peers = rig.opened(1).await;
    let begun = Instant::now();
    peers[0].ended().await;
    assert!(begun.elapsed() <= IDLE + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_closed_in_time_is_not_used_either() {
    let rig = Rig::new();
    let _peers = rig.opened(2).await;
    // The task that would close them does not get to run between this and the next line.
    tokio::time::advance(Duration::ZERO).await;
    for (since, _) in &mut rig.pool.0.idle().connections {
        *since -= IDLE;
    }
    assert!(rig.pool.0.take().is_none());
    assert_eq!(rig.idle(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_closed_by_the_peer_while_idle_is_not_used() {
    for noticed in [true, false] {
        let rig = Rig::new();
        drop(rig.opened(1).await);
        if noticed {
            settle().await;
            assert!(rig.pool.0.take().is_none());
        }
        // Not even what must not be sent twice is lost: none of it was written.
        let (answer, head) = join!(rig.send(request(Method::POST, body::full("late"))), async {
            let mut peer = rig.accept().await;
            let head = peer.head().await;
            peer.send(OK).await;
            head
        });
        assert_eq!(read(answer.unwrap()).await, "ok");
        assert!(head.starts_with("POST /a?b "), "{head}");
        assert_eq!(rig.dialled(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_comes_back_when_the_body_was_read_to_its_end() {
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTrailer: x-end\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 1\r\n\r\n",
    ] {
        let mut response = rig.over(&mut peers[0], answer).await.unwrap().into_body();
        // As hyper reads it: nobody asks again after the last byte announced, or after trailers.
        while !response.is_end_stream() {
            match response.frame().await {
                Some(frame) if frame.as_ref().unwrap().is_data() => {}
                Some(_) | None => break,
            }
        }
        assert_eq!(rig.idle(), 1, "{answer}");
    }
    // In two pieces: not before the second.
    let mut response =
        rig.over(&mut peers[0], "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe").await.unwrap().into_body();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "he");
    assert_eq!(rig.idle(), 0);
    peers[0].send("re").await;
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "re");
    assert_eq!((rig.idle(), rig.dialled()), (1, 1));
    assert!(rig.over(&mut peers[0], OK).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_body_was_not_read_to_its_end_is_not_used_again() {
    for (answer, frames) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe", 0),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe", 1),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0),
    ] {
        let rig = Rig::new();
        let mut peers = rig.opened(1).await;
        let mut response = rig.over(&mut peers[0], answer).await.unwrap().into_body();
        for _ in 0..frames {
            response.frame().await.unwrap().unwrap();
        }
        drop(response);
        settle().await;
        assert_eq!(rig.idle(), 0);
        peers[0].ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_within_a_body_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    ] {
        let rig = Rig::new();
        let mut peers = rig.opened(1).await;
        let mut response = rig.over(&mut peers[0], answer).await.unwrap().into_body();
        peers[0].0.shutdown().await.unwrap();
        while response.frame().await.unwrap().is_ok() {}
        assert!(response.frame().await.is_none_or(|frame| frame.is_err()));
        assert_eq!(rig.idle(), 0, "{answer}");
        peers[0].ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_unsound_framing_is_not_used_again() {
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok";
    let error = rig.over(&mut peers[0], answer).await.err().unwrap();
    assert!(matches!(error, UpstreamError::Framing(_)), "{error}");
    assert_eq!(rig.idle(), 0);
    peers[0].ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_more_than_it_was_asked_or_says_close_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let rig = Rig::new();
        let mut peers = rig.opened(1).await;
        assert_eq!(read(rig.over(&mut peers[0], answer).await.unwrap()).await, "ok");
        assert!(rig.pool.0.take().is_none(), "{answer}");
        peers[0].ended().await;
    }
}

/// What becomes of a request on a connection that was used before and then dies: status or error, and the dials.
async fn after_a_death(sent: Request<Body>, reused: bool, said: &str) -> (Result<u16, String>, usize) {
    let rig = Rig::new();
    let peer = if reused { rig.opened(1).await.pop() } else { None };
    let before = rig.dialled();
    let upstream = async {
        let mut first = match peer {
            Some(peer) => peer,
            None => rig.accept().await,
        };
        first.answer(said).await;
        settle().await;
        drop(first);
        // Later ones answer, when there are any; the test's own end ends this.
        rig.accept().await.answer(OK).await;
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = rig.send(sent) => answer,
        () = upstream => unreachable!(),
    };
    (answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}")), rig.dialled() - before)
}

#[tokio::test(start_paused = true)]
async fn only_an_idempotent_request_without_a_body_goes_out_again_and_only_after_reuse() {
    let with_body = |method| request(method, body::full("late"));
    let without = |method| request(method, body::empty());
    for (sent, reused, said, dials, answered) in [
        (without(Method::GET), true, "", 1, true),
        (without(Method::HEAD), true, "", 1, true),
        (without(Method::DELETE), true, "", 1, true),
        (without(Method::POST), true, "", 0, false),
        (with_body(Method::POST), true, "", 0, false),
        (with_body(Method::PUT), true, "", 0, false),
        // It had begun to answer.
        (without(Method::GET), true, "HTTP/1.1 2", 0, false),
        // A connection that is new has no excuse.
        (without(Method::GET), false, "", 1, false),
    ] {
        let shown = format!("{} reused: {reused}, said: {said}", sent.method());
        let (answer, dialled) = after_a_death(sent, reused, said).await;
        assert_eq!((answer.is_ok(), dialled), (answered, dials), "{shown}: {answer:?}");
        if let Err(error) = answer {
            assert!(error.starts_with("Closed"), "{shown}: {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_out_twice_and_not_more_and_the_second_time_over_a_new_connection() {
    let rig = Rig::new();
    let mut peers = rig.opened(2).await;
    let (error, ()) = join!(rig.send(get()), async {
        peers[1].head().await;
        drop(peers.pop());
        let mut second = rig.accept().await;
        second.head().await;
    });
    assert!(matches!(error, Err(UpstreamError::Closed(_))));
    assert_eq!((rig.dialled(), rig.idle()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_is_garbage_and_not_asked_again() {
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    let error = rig.over(&mut peers[0], "SSH-2.0-x\r\n\r\n").await.err().unwrap();
    assert!(matches!(error, UpstreamError::Garbage(_)), "{error:?}");
    assert_eq!((rig.dialled(), rig.idle()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_breaks_is_told_from_an_upstream_that_takes_nothing() {
    let broken = || Err(BodyError::new(DownstreamBodyError(BodyError::new("gone"))));
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    let body = BodyExt::boxed_unsync(StreamBody::new(stream::once(async move { broken() })));
    let error = rig.send(request(Method::PUT, body)).await.err().unwrap();
    assert!(matches!(error, UpstreamError::RequestBody(_)), "{error:?}");
    peers[0].ended().await;

    let _deaf = rig.opened(1).await;
    let begun = Instant::now();
    let error = rig.send(request(Method::PUT, body::full(vec![0; 1024 * 1024]))).await.err().unwrap();
    assert!(matches!(error, UpstreamError::WriteTimeout(_)), "{error:?}");
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!((rig.dialled(), rig.idle()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_an_answer_begins_anew_with_each_request() {
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    // Each answer comes in time, though the first wait would be over in the middle of the second.
    for _ in 0..3 {
        let (answer, ()) = join!(rig.send(get()), async {
            peers[0].head().await;
            sleep(ANSWER * 3 / 4).await;
            peers[0].send(OK).await;
        });
        assert!(answer.is_ok());
    }
    let begun = Instant::now();
    let error = rig.over(&mut peers[0], "").await.err().unwrap();
    assert!(matches!(error, UpstreamError::ResponseTimeout(limit) if limit == ANSWER), "{error}");
    assert_eq!(begun.elapsed().as_secs(), ANSWER.as_secs());
    peers[0].ended().await;
    assert_eq!((rig.idle(), rig.dialled()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_an_answer_begins_with_the_end_of_the_request() {
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    for answered in [true, false] {
        let begun = Instant::now();
        let (answer, ()) = join!(rig.send(request(Method::PUT, slow(60))), async {
            peers[0].head().await;
            let mut body = [0; 14];
            peers[0].0.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"4\r\nlate\r\n0\r\n\r\n");
            sleep(ANSWER / 2).await;
            if answered {
                peers[0].send(OK).await;
            }
        });
        assert_eq!(answer.is_ok(), answered);
        assert_eq!(begun.elapsed().as_secs(), if answered { 65 } else { 70 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_answers_early_comes_back_after_the_end_of_the_request() {
    let rig = Rig::new();
    let mut peers = rig.opened(1).await;
    let (answer, ()) = join!(rig.send(request(Method::PUT, slow(60))), peers[0].answer(OK));
    assert_eq!(read(answer.unwrap()).await, "ok");
    settle().await;
    assert_eq!(rig.idle(), 0);
    let mut body = [0; 14];
    peers[0].0.read_exact(&mut body).await.unwrap();
    settle().await;
    assert_eq!(rig.idle(), 1);
    assert!(rig.over(&mut peers[0], OK).await.is_ok());
    assert_eq!(rig.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_all() {
    let rig = Rig::new();
    let mut peers = rig.opened(2).await;
    let (answer, mut early) = join!(rig.send(request(Method::PUT, slow(60))), async {
        let mut early = peers.pop().unwrap();
        early.answer(OK).await;
        early
    });
    read(answer.unwrap()).await;
    let begun = Instant::now();
    rig.tracker.start_draining();
    // Waits for every task of the background, for two seconds at most.
    rig.tracker.finish().await;
    early.ended().await;
    peers[0].ended().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(rig.pool.0.take().is_none());
}
