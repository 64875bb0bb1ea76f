//! HTTP/1.1 connections on in-memory pipes, with a service that the test writes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::LINK};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::Semaphore,
    task::yield_now,
    time::timeout,
};
use tower::service_fn;

use super::{Connection, ConnectionLimits, serve};
use crate::{
    drain::Tracker,
    interim::Interims,
    net::Wire,
    protocol::{
        address::PeerAddress,
        body::{self, Body},
        interim::Interim,
    },
};

const PATIENT: Duration = Duration::from_secs(600);

/// The client's end of a connection with room for so many bytes each way; every response has a body of this length.
fn connect(room: usize, length: usize) -> (DuplexStream, impl Future<Output = ()>) {
    let (client, ours) = duplex(room);
    let limits = ConnectionLimits {
        head_timeout: PATIENT,
        keep_alive_timeout: PATIENT,
        max_head_size: 16 * 1024,
        max_header_count: 100,
        max_early_bytes: 1024,
        body_timeout: PATIENT,
        write_timeout: PATIENT,
    };
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let connection = Connection::new("test".into(), PeerAddress::Local, None, permit);
    let service = service_fn(move |request: Request<Body>| async move {
        // So many hints before the response as the path says.
        let hints = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
        let interims = request.extensions().get::<Interims>().cloned();
        drop(request);
        for number in 0..hints {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from(number));
            let interim = Interim::forwarded(StatusCode::EARLY_HINTS, headers).unwrap();
            interims.as_ref().unwrap().push(interim);
            if number % 2 == 0 {
                yield_now().await;
            }
        }
        Ok::<_, Infallible>(Response::new(body::full(vec![b'y'; length])))
    });
    let served = async move {
        serve(Wire::boxed(ours), connection, Arc::new(limits), service, &Tracker::default()).await;
    };
    (client, served)
}

#[tokio::test(start_paused = true)]
async fn a_response_is_written_to_its_end_when_an_upload_with_an_upgrade_offer_is_not_read() {
    let offer = "Connection: Upgrade\r\nUpgrade: h2c\r\n";
    let refused = format!("GET / HTTP/1.1\r\nHost: a\r\n{offer}\r\n");
    for (before, offer) in [("", ""), ("", offer), (&*refused, "")] {
        let length = 10_000;
        let (mut client, served) = connect(2_000, length);
        let upload = format!("POST / HTTP/1.1\r\nHost: a\r\n{offer}Content-Length: 5000\r\n\r\nx");
        let asks = async {
            client.write_all(before.as_bytes()).await.unwrap();
            client.write_all(upload.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            timeout(Duration::from_secs(60), client.read_to_end(&mut all)).await.expect("an end").unwrap();
            all
        };
        let (all, ()) = tokio::join!(asks, served);
        let bodies = all.iter().filter(|&&byte| byte == b'y').count();
        assert!(
            bodies >= if before.is_empty() { length } else { 2 * length },
            "{bodies} bytes with {before:?} {offer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn interim_responses_stand_between_responses_whatever_the_client_takes_at_a_time() {
    let hints = [0, 3, 0, 1, 2, 0];
    for room in [1, 7, 100, 1000, 1_000_000] {
        let length = 5000;
        let (mut client, served) = connect(room, length);
        let requests: String = hints.iter().map(|hints| format!("GET /{hints} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let asks = async {
            writer.write_all((requests + last).as_bytes()).await.unwrap();
        };
        let reads = async {
            let mut all = Vec::new();
            timeout(Duration::from_secs(60), reader.read_to_end(&mut all)).await.expect("an end").unwrap();
            String::from_utf8(all).unwrap()
        };
        let (all, (), ()) = tokio::join!(reads, asks, served);
        let mut rest = all.as_str();
        for hints in hints.into_iter().chain([0]) {
            for number in 0..hints {
                let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {number}\r\n\r\n");
                rest = rest.strip_prefix(hint.as_str()).unwrap_or_else(|| panic!("{room}: no hint at {rest:.200}"));
            }
            assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{room}: {rest:.200}");
            let body = rest.find("\r\n\r\n").unwrap() + 4;
            assert!(rest.as_bytes()[body..body + length].iter().all(|byte| *byte == b'y'), "{room}");
            rest = rest.split_at(body + length).1;
        }
        assert_eq!(rest, "");
    }
}
