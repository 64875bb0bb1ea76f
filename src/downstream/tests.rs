//! HTTP/1.1 connections on in-memory pipes, with a service that the test writes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::Semaphore,
    time::timeout,
};
use tower::service_fn;

use super::{Connection, ConnectionLimits, serve};
use crate::{
    drain::Tracker,
    net::Wire,
    protocol::{
        address::PeerAddress,
        body::{self, Body},
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
        drop(request);
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
