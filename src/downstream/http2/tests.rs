//! A connection and its batches, on a wire that does only what the test lets it.

use std::{
    io,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard},
    task::Waker,
};

use futures_util::poll;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, Semaphore},
};
use tower::service_fn;

use super::*;
use crate::{net::Io, protocol::body};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const PATIENT: Duration = Duration::from_secs(600);

/// `GET / ` for `gate.test` on each of so many streams, behind the preface.
fn requests(count: u8) -> Vec<u8> {
    let one = |number: u8| {
        let head = [0, 0, 14, 1, 5, 0, 0, 0, number * 2 + 1];
        [&head[..], &[0x82, 0x84, 0x87, 0x41, 9], b"gate.test"].concat()
    };
    [PREFACE.to_vec(), (0..count).flat_map(one).collect()].concat()
}

#[derive(Default)]
struct Line {
    incoming: Vec<u8>,
    /// Of `incoming`.
    read: usize,
    reads: usize,
    written: Vec<u8>,
    writes: usize,
    /// Of `written`: the rest is held, as by a layer of TLS.
    flushed: usize,
    /// For all that is written.
    room: usize,
    writer: Option<Waker>,
}

/// Gives so much at a time, and takes so much in all.
#[derive(Clone)]
struct FakeWire {
    line: Arc<Mutex<Line>>,
    at_a_time: usize,
    /// Told when something has left.
    left: Arc<Notify>,
}

impl FakeWire {
    fn new(incoming: Vec<u8>, at_a_time: usize, room: usize) -> Self {
        let line = Line { incoming, room, ..Line::default() };
        Self { line: Arc::new(Mutex::new(line)), at_a_time, left: Arc::default() }
    }

    fn make_room(&self) {
        let mut line = self.line();
        line.room = usize::MAX;
        if let Some(writer) = line.writer.take() {
            writer.wake();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap()
    }

    /// The streams of all frames of this kind that have left.
    fn streams(&self, kind: u8) -> usize {
        let line = self.line();
        let (mut rest, mut count) = (&line.written[..line.flushed], 0);
        while let Some((head, after)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(next) = after.get(length..) else { break };
            count += usize::from(head[3] == kind);
            rest = next;
        }
        count
    }
}

impl AsyncRead for FakeWire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        line.reads += 1;
        let end = line.incoming.len().min(line.read + self.at_a_time.min(buffer.remaining()));
        if end == line.read {
            return Poll::Pending;
        }
        buffer.put_slice(&line.incoming[line.read..end]);
        line.read = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FakeWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.line();
        let count = bytes.len().min(line.room - line.written.len());
        if count == 0 {
            line.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        line.written.extend_from_slice(&bytes[..count]);
        line.writes += 1;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        line.flushed = line.written.len();
        drop(line);
        self.left.notify_one();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Io for FakeWire {}

/// Serves it; every answer has a body of this length.
async fn serve(wire: FakeWire, length: usize, write_timeout: Duration) {
    serve_idle(wire, length, write_timeout, PATIENT).await;
}

async fn serve_idle(wire: FakeWire, length: usize, write_timeout: Duration, keep_alive_timeout: Duration) {
    let far = PATIENT;
    let limits = ConnectionLimits {
        head_timeout: far,
        keep_alive_timeout,
        max_head_size: 16 * 1024,
        max_header_count: 100,
        max_early_bytes: 1024,
        body_timeout: far,
        write_timeout,
    };
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let peer = crate::protocol::address::PeerAddress::Local;
    let connection = Connection::new("test".into(), peer, None, permit);
    let options = Http2Options { max_streams: 100, websocket: false, limit_reached: Arc::default() };
    let service =
        service_fn(
            move |_: Request<Body>| async move { Ok::<_, Infallible>(Response::new(body::full(vec![1; length]))) },
        );
    serve_http2(Wire::boxed(wire), connection, Arc::new(limits), options, service, &Tracker::default()).await;
}

/// Until so many answers have left, each with its end.
async fn answered(wire: &FakeWire, count: usize) {
    let all = async {
        // HEADERS and DATA.
        while wire.streams(1) < count || wire.streams(0) < count {
            wire.left.notified().await;
        }
    };
    timeout(Duration::from_secs(10), all).await.unwrap_or_else(|_| panic!("{} answers left", wire.streams(1)));
}

#[tokio::test]
async fn a_client_that_has_always_more_to_say_is_read_a_turn_at_a_time() {
    let wire = FakeWire::new(requests(50), 1, usize::MAX);
    let mut serving = pin!(serve(wire.clone(), 10, PATIENT));
    assert!(poll!(&mut serving).is_pending());
    let first_turn = wire.line().reads - PREFACE.len();
    assert!((1..=20).contains(&first_turn), "{first_turn}");
    // Nobody wakes it but itself.
    tokio::select! {
        () = serving => panic!("it ended"),
        () = answered(&wire, 50) => {}
    }
}

#[tokio::test]
async fn the_answers_of_a_turn_leave_together() {
    let wire = FakeWire::new(requests(20), usize::MAX, usize::MAX);
    let serving = pin!(serve(wire.clone(), 2000, PATIENT));
    tokio::select! {
        () = serving => panic!("it ended"),
        () = answered(&wire, 20) => {}
    }
    let writes = wire.line().writes;
    assert!(writes <= 5, "{writes} writes for 20 answers");
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_little_is_not_waited_for_either() {
    // Less than what is gathered before anybody waits: no writer of h2's hears of it.
    let wire = FakeWire::new(requests(2), usize::MAX, 200);
    timeout(Duration::from_secs(10), serve(wire, 2000, Duration::from_millis(50))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_to_take_an_answer_gets_its_end_before_the_connection_ends() {
    // In the batch, and of the longest some in the library that sees no room in it. More would wait for the window.
    for (count, length, room) in [(1, 40_000, 10_000), (3, 20_000, 10_000), (1, 65_500, 10_000), (1, 2_000, 100)] {
        let wire = FakeWire::new(requests(count), usize::MAX, room);
        let mut serving = pin!(serve_idle(wire.clone(), length, PATIENT, Duration::from_secs(1)));
        let slow = Duration::from_secs(30);
        assert!(timeout(slow, &mut serving).await.is_err(), "it ended with {count} answers of {length} bytes unsent");
        wire.make_room();
        timeout(slow, serving).await.expect("an end, as the connection is idle");
        let line = wire.line();
        let bodies = line.written[..line.flushed].iter().filter(|&&byte| byte == 1).count();
        assert!(bodies >= usize::from(count) * length, "{bodies} bytes of {count} answers of {length}");
    }
}
