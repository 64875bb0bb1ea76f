//! The relay between real sockets, which it reads and writes by itself.

use std::pin::pin;

use futures_util::future::join;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

impl Link for TcpStream {
    fn as_tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Nothing here waits for a clock; a test that gets so far hangs.
const HANG: Duration = Duration::from_secs(20);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = join(dialled, listener.accept()).await;
    (near.unwrap(), far.unwrap().0)
}

struct Sockets {
    client: TcpStream,
    server: TcpStream,
    control: Arc<Control>,
    relay: Relay<TcpStream, TcpStream, Arc<Control>>,
}

async fn sockets(policy: Policy) -> Sockets {
    let ((client, down), (server, up)) = join(pair(), pair()).await;
    let control = Arc::new(Control::default());
    let leg = |stream| Leg { stream, early: Bytes::new() };
    let relay = relay(leg(down), leg(up), Arc::new(policy), Session::default(), Arc::clone(&control));
    Sockets { client, server, control, relay }
}

async fn crosses(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    let done = join(from.write_all(bytes), to.read_exact(&mut got));
    let (sent, read) = timeout(HANG, done).await.expect("the relay was not woken");
    sent.unwrap();
    read.unwrap();
    assert!(got == bytes);
}

#[tokio::test]
async fn either_side_is_heard_after_any_silence_and_any_amount() {
    let Sockets { mut client, mut server, relay, .. } = sockets(off()).await;
    let relay = tokio::spawn(relay);
    // One byte, a scratch buffer to the byte and one beyond, and more than the kernel takes at once.
    for size in [1, 64 * 1024, 64 * 1024 + 1, 8 * 1024 * 1024, 1] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for _ in 0..3 {
            crosses(&mut client, &mut server, &bytes).await;
        }
        crosses(&mut server, &mut client, &bytes).await;
        crosses(&mut client, &mut server, &bytes).await;
    }
    client.shutdown().await.unwrap();
    assert_eq!(timeout(HANG, server.read(&mut [0])).await.unwrap().unwrap(), 0);
    crosses(&mut server, &mut client, b"half closed").await;
    drop(server);
    assert!(matches!(timeout(HANG, relay).await.unwrap().unwrap().end, End::Closed));
}

#[tokio::test]
async fn a_relay_that_moves_to_another_task_is_woken_there() {
    let Sockets { mut client, mut server, mut relay, .. } = sockets(off()).await;
    {
        // Here the test's own task polls it, and both sockets are told to wake that.
        let mut carried = pin!(async {
            crosses(&mut client, &mut server, b"here").await;
            crosses(&mut server, &mut client, b"there").await;
        });
        tokio::select! {
            () = carried.as_mut() => {}
            report = &mut relay => panic!("{report:?}"),
        }
        assert!(futures_util::poll!(&mut relay).is_pending());
    }
    let relay = tokio::spawn(relay);
    tokio::task::yield_now().await;
    crosses(&mut client, &mut server, b"one").await;
    crosses(&mut server, &mut client, b"two").await;
    drop((client, server));
    timeout(HANG, relay).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cut_is_heard_after_a_close_that_nobody_answers() {
    let Sockets { client, server, control, relay } = sockets(Policy::default()).await;
    let relay = tokio::spawn(relay);
    tokio::task::yield_now().await;
    control.close(1001, Cause::Drain);
    tokio::task::yield_now().await;
    control.cut();
    let report = timeout(HANG, relay).await.expect("the cut was not heard").unwrap();
    assert!(matches!(report.end, End::Asked(1001, Cause::Drain)), "{report:?}");
    drop((client, server));
}
