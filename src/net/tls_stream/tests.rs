//! Against tokio-rustls and bare rustls, over loopback sockets.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf, split},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::*;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Configs { server: Arc::new(server), client: Arc::new(client) }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

type Peer = client::TlsStream<TcpStream>;

/// A client of tokio-rustls and our server.
async fn pair(configs: &Configs) -> (Peer, Box<ServerStream>) {
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(Arc::clone(&configs.client));
    let (peer, ours) = tokio::join!(connector.connect(name(), near), accept(Arc::clone(&configs.server), far));
    (peer.unwrap(), ours.unwrap())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at.wrapping_mul(31) >> 3 & 0xff).unwrap()).collect()
}

/// What an idle stream owns besides itself and rustls.
fn owned<E>(stream: &TlsStream<E>) -> usize {
    stream.inbound.capacity() + stream.plain.bytes.capacity() + stream.outbound.bytes.capacity()
}

async fn echo<E: Engine>(mut stream: Box<TlsStream<E>>) -> Box<TlsStream<E>> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            stream.shutdown().await.unwrap();
            return stream;
        }
        stream.write_all(&buffer[..count]).await.unwrap();
        stream.flush().await.unwrap();
    }
}

#[tokio::test]
async fn every_length_comes_back_and_leaves_no_buffer() {
    for version in VERSIONS {
        let configs = configs(version);
        let (peer, ours) = pair(&configs).await;
        let (mut read, mut write) = split(peer);
        let check = async {
            for length in [1, 2, 100, 4096, 16_383, 16_384, 16_385, 65_536, 65_537, 1 << 20] {
                let sent = pattern(length);
                let mut got = vec![0; length];
                let writing = async {
                    write.write_all(&sent).await.unwrap();
                    write.flush().await.unwrap();
                };
                tokio::join!(writing, async { read.read_exact(&mut got).await.unwrap() });
                assert!(got == sent, "{version:?}, {length} bytes");
            }
            write.shutdown().await.unwrap();
            assert_eq!(read.read(&mut [0; 8]).await.unwrap(), 0);
        };
        let ((), ours) = within(async { tokio::join!(check, echo(ours)) }).await;
        assert_eq!(owned(&ours), 0);
        assert!(size_of::<ServerStream>() < 1600, "{}", size_of::<ServerStream>());
    }
}

#[tokio::test]
async fn our_client_and_their_server_agree() {
    for version in VERSIONS {
        let configs = configs(version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (near, far) = sockets().await;
            let acceptor = TlsAcceptor::from(Arc::clone(&configs.server));
            let (ours, theirs) = tokio::join!(connect(Arc::clone(&configs.client), name(), near), acceptor.accept(far));
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            let sent = pattern(100_000);
            let mut got = vec![0; sent.len()];
            let exchange = async {
                tokio::join!(async { ours.write_all(&sent).await.unwrap() }, theirs.read_exact(&mut got)).1.unwrap();
                assert!(got == sent);
                // TLS 1.3 sends its tickets behind the handshake: they must not be taken for bytes.
                theirs.write_all(b"back").await.unwrap();
                theirs.shutdown().await.unwrap();
                let mut back = Vec::new();
                ours.read_to_end(&mut back).await.unwrap();
                assert_eq!(back, b"back");
                ours.shutdown().await.unwrap();
                assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
            };
            within(exchange).await;
            assert_eq!(ours.facts().handshake_kind(), Some(kind), "{version:?}");
            assert_eq!(owned(&ours), 0);
        }
    }
}

#[tokio::test]
async fn our_server_resumes_by_ticket() {
    for version in VERSIONS {
        let configs = configs(version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (mut peer, mut ours) = pair(&configs).await;
            ours.write_all(b"x").await.unwrap();
            peer.read_exact(&mut [0]).await.unwrap();
            assert_eq!(peer.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
            assert_eq!(ours.facts().handshake_kind(), Some(kind), "{version:?}");
        }
    }
}

/// A client without I/O, of which each byte goes out as the test likes.
struct Bare {
    tls: ClientConnection,
    socket: TcpStream,
}

impl Bare {
    fn new(configs: &Configs, socket: TcpStream) -> Self {
        Self { tls: ClientConnection::new(Arc::clone(&configs.client), name()).unwrap(), socket }
    }

    fn ciphertext(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        io::Write::write_all(&mut self.tls.writer(), plain).unwrap();
        self.ciphertext()
    }

    async fn send(&mut self, bytes: &[u8], chunk: usize) {
        for part in bytes.chunks(chunk) {
            self.socket.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    async fn hear(&mut self) -> Result<usize, rustls::Error> {
        let mut bytes = vec![0; 4096];
        let count = self.socket.read(&mut bytes).await.unwrap();
        self.tls.read_tls(&mut &bytes[..count]).unwrap();
        self.tls.process_new_packets().map(|_| count)
    }

    /// Ends with what belongs behind the handshake still to be sent.
    async fn shake_hands(&mut self, chunk: usize) {
        while self.tls.is_handshaking() {
            let bytes = self.ciphertext();
            self.send(&bytes, chunk).await;
            if self.tls.is_handshaking() {
                self.hear().await.unwrap();
            }
        }
    }
}

async fn bare_pair(configs: &Configs) -> (Bare, Box<ServerStream>) {
    let (near, far) = sockets().await;
    let mut bare = Bare::new(configs, near);
    let shake = async {
        bare.shake_hands(usize::MAX).await;
        let rest = bare.ciphertext();
        bare.send(&rest, usize::MAX).await;
    };
    let ((), ours) = tokio::join!(shake, accept(Arc::clone(&configs.server), far));
    (bare, ours.unwrap())
}

#[tokio::test]
async fn a_peer_that_dribbles_is_understood() {
    for version in VERSIONS {
        let configs = configs(version);
        let (near, far) = sockets().await;
        let mut bare = Bare::new(&configs, near);
        let sent = pattern(20_000);
        let speak = async {
            bare.shake_hands(1).await;
            let mut rest = bare.ciphertext();
            rest.extend(bare.seal(&sent));
            bare.tls.send_close_notify();
            rest.extend(bare.ciphertext());
            bare.send(&rest, 1).await;
        };
        let listen = async {
            let mut ours = accept(Arc::clone(&configs.server), far).await.unwrap();
            let mut got = Vec::new();
            ours.read_to_end(&mut got).await.unwrap();
            (got, owned(&ours))
        };
        let ((), (got, owned)) = within(async { tokio::join!(speak, listen) }).await;
        assert!(got == sent, "{version:?}");
        assert_eq!(owned, 0);
    }
}

#[tokio::test]
async fn bytes_sent_with_the_last_flight_of_the_handshake_come_first() {
    let configs = configs(&TLS13);
    let (near, far) = sockets().await;
    let mut bare = Bare::new(&configs, near);
    let speak = async {
        let hello = bare.ciphertext();
        bare.send(&hello, usize::MAX).await;
        while bare.tls.is_handshaking() {
            bare.hear().await.unwrap();
        }
        let mut flight = bare.ciphertext();
        flight.extend(bare.seal(b"early"));
        let torn = bare.seal(b"torn");
        flight.extend(&torn[..7]);
        bare.send(&flight, usize::MAX).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        bare.send(&torn[7..], usize::MAX).await;
    };
    let listen = async {
        let mut ours = accept(Arc::clone(&configs.server), far).await.unwrap();
        let mut got = [0; 9];
        ours.read_exact(&mut got).await.unwrap();
        got
    };
    let ((), got) = within(async { tokio::join!(speak, listen) }).await;
    assert_eq!(&got, b"earlytorn");
}

#[tokio::test]
async fn a_stream_cut_short_is_no_end() {
    for version in VERSIONS {
        // Between two records, within a header, within a record.
        for cut in [0, 3, 20] {
            let (mut bare, mut ours) = bare_pair(&configs(version)).await;
            let mut bytes = bare.seal(b"whole");
            bytes.extend(&bare.seal(b"the other")[..cut]);
            bare.send(&bytes, usize::MAX).await;
            bare.socket.shutdown().await.unwrap();
            let mut got = Vec::new();
            let error = within(ours.read_to_end(&mut got)).await.unwrap_err();
            assert_eq!((error.kind(), got.as_slice()), (ErrorKind::UnexpectedEof, &b"whole"[..]), "{version:?}, {cut}");
            assert_eq!(ours.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }
}

#[tokio::test]
async fn either_half_can_be_closed_first() {
    for version in VERSIONS {
        let configs = configs(version);
        let (mut peer, mut ours) = pair(&configs).await;
        peer.write_all(b"last").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut got = Vec::new();
        within(ours.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"last");
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        ours.write_all(&pattern(40_000)).await.unwrap();
        ours.shutdown().await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(ours.write(b"late").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        got.clear();
        within(peer.read_to_end(&mut got)).await.unwrap();
        assert!(got == pattern(40_000));

        let (mut peer, mut ours) = pair(&configs).await;
        ours.shutdown().await.unwrap();
        assert_eq!(within(peer.read(&mut [0; 8])).await.unwrap(), 0);
        peer.write_all(b"still there").await.unwrap();
        peer.shutdown().await.unwrap();
        got.clear();
        within(ours.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"still there", "{version:?}");
    }
}

#[tokio::test]
async fn new_keys_are_taken_and_answered() {
    let (mut bare, mut ours) = bare_pair(&configs(&TLS13)).await;
    for round in 0..100 {
        bare.tls.refresh_traffic_keys().unwrap();
        let mut bytes = bare.ciphertext();
        bytes.extend(bare.seal(b"ping"));
        bare.send(&bytes, 7).await;
        let mut got = [0; 4];
        within(ours.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"ping", "round {round}");
        ours.write_all(b"pong").await.unwrap();
        while io::Read::read(&mut bare.tls.reader(), &mut got).is_err() {
            within(bare.hear()).await.unwrap();
        }
        assert_eq!(&got, b"pong", "round {round}");
    }
    // And nothing but new keys is too much of a good thing.
    for _ in 0..40 {
        bare.tls.refresh_traffic_keys().unwrap();
    }
    let bytes = bare.ciphertext();
    bare.send(&bytes, usize::MAX).await;
    assert_eq!(within(ours.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::InvalidData);
}

/// rustls keeps a place in what it was shown of a message that is not all there; a write in between must not lose it.
#[tokio::test]
async fn a_write_between_the_parts_of_a_ticket_works() {
    let configs = configs(&TLS13);
    let mut server = (*configs.server).clone();
    server.max_fragment_size = Some(64);
    let server = Arc::new(server);
    // Within the first record, at its end, within the second, between tickets.
    for cut in [1, 5, 30, 64, 65, 70, 128, 129, 200, 300] {
        let (near, mut far) = sockets().await;
        let mut theirs = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
        let mut heard = vec![0; 4096];
        let shake = async {
            while theirs.is_handshaking() {
                let count = far.read(&mut heard).await.unwrap();
                theirs.read_tls(&mut &heard[..count]).unwrap();
                theirs.process_new_packets().unwrap();
                let mut flight = Vec::new();
                while theirs.is_handshaking() && theirs.wants_write() {
                    theirs.write_tls(&mut flight).unwrap();
                }
                far.write_all(&flight).await.unwrap();
            }
        };
        let ((), ours) =
            within(async { tokio::join!(shake, connect(Arc::clone(&configs.client), name(), near)) }).await;
        let mut ours = ours.unwrap();
        io::Write::write_all(&mut theirs.writer(), b"data").unwrap();
        let mut late = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut late).unwrap();
        }
        assert!(late.len() > 400, "{}", late.len());
        far.write_all(&late[..cut]).await.unwrap();
        let mut got = [0; 4];
        assert!(timeout(Duration::from_millis(20), ours.read(&mut got)).await.is_err(), "{cut}");
        ours.write_all(b"more").await.unwrap();
        let count = far.read(&mut heard).await.unwrap();
        theirs.read_tls(&mut &heard[..count]).unwrap();
        theirs.process_new_packets().unwrap();
        io::Read::read_exact(&mut theirs.reader(), &mut got).unwrap();
        assert_eq!(&got, b"more");
        far.write_all(&late[cut..]).await.unwrap();
        within(ours.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"data");
        assert_eq!(owned(&ours), 0);
    }
}

#[tokio::test]
async fn what_is_no_tls_is_answered_with_an_alert() {
    let mut oversized = vec![0x16, 3, 1, 0xff, 0xff];
    oversized.resize(100, 0);
    for bytes in [b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), oversized] {
        let (mut near, far) = sockets().await;
        near.write_all(&bytes).await.unwrap();
        let error = within(accept(configs(&TLS13).server, far)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert!(matches!(inner, Some(Error::InvalidMessage(_))), "{inner:?}");
        let mut alert = Vec::new();
        within(near.read_to_end(&mut alert)).await.unwrap();
        assert_eq!((alert[0], alert[5]), (0x15, 2), "a fatal alert");
    }
}

#[tokio::test]
async fn a_request_in_clear_is_answered_in_clear_however_it_is_cut() {
    for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\n"] {
        for cut in 0..8 {
            let (mut near, far) = sockets().await;
            near.set_nodelay(true).unwrap();
            let asking = async {
                near.write_all(&request[..cut]).await.unwrap();
                // Seen alone, or the cut is none.
                tokio::task::yield_now().await;
                let _ = near.write_all(&request[cut..]).await;
            };
            let accepting = within(accept(configs(&TLS13).server, far));
            let error = tokio::join!(accepting, asking).0.unwrap_err();
            assert!(error.get_ref().unwrap().is::<super::Plaintext>(), "{error}");
            let mut answer = Vec::new();
            let _ = within(near.read_to_end(&mut answer)).await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{cut}: {answer}");
            if let Some((head, body)) = answer.split_once("\r\n\r\n") {
                assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_handshake_that_stops_is_an_unexpected_end() {
    let (near, far) = sockets().await;
    let configs = configs(&TLS13);
    let mut bare = Bare::new(&configs, near);
    let hello = bare.ciphertext();
    bare.send(&hello[..50], usize::MAX).await;
    drop(bare);
    let error = within(accept(configs.server, far)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_forged_record_ends_the_stream_behind_what_was_good() {
    for version in VERSIONS {
        let (mut bare, mut ours) = bare_pair(&configs(version)).await;
        let mut bytes = bare.seal(b"good");
        let mut forged = bare.seal(b"forged");
        *forged.last_mut().unwrap() ^= 1;
        bytes.extend(forged);
        bare.send(&bytes, usize::MAX).await;
        let mut got = Vec::new();
        let error = within(ours.read_to_end(&mut got)).await.unwrap_err();
        assert_eq!((error.kind(), got.as_slice()), (ErrorKind::InvalidData, &b"good"[..]));
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert!(matches!(inner, Some(Error::DecryptError)), "{inner:?}");
        assert_eq!(ours.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let heard = within(async {
            loop {
                if let Err(error) = bare.hear().await {
                    return error;
                }
            }
        });
        assert!(matches!(heard.await, Error::AlertReceived(_)), "{version:?}");
    }
}

#[tokio::test]
async fn handshake_messages_in_endless_parts_are_refused() {
    let (mut near, far) = sockets().await;
    // A ClientHello that says it has 60 KiB, a byte a record.
    let flood = async {
        let mut record = vec![0x16, 3, 1, 0, 4, 1, 0, 0xf0, 0];
        for _ in 0..70_000 {
            if near.write_all(&record).await.is_err() {
                break;
            }
            record = vec![0x16, 3, 1, 0, 1, 0];
        }
    };
    let (_, error) = within(async { tokio::join!(flood, accept(configs(&TLS13).server, far)) }).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader() {
    for version in VERSIONS {
        let (mut peer, mut ours) = pair(&configs(version)).await;
        let sent = pattern(1 << 18);
        let mut taken = 0;
        let most = std::future::poll_fn(|cx| {
            let mut most = 0;
            while let Poll::Ready(count) = Pin::new(&mut *ours).poll_write(cx, &sent[taken % sent.len()..]) {
                taken += count.unwrap();
                most = most.max(ours.outbound.bytes.len());
                assert!(taken < 64 << 20, "nobody reads");
            }
            Poll::Ready(most)
        })
        .await;
        assert!(most <= MAX_WRITE + 4 * 64, "{most}");
        assert!(owned(&ours) <= 2 * MAX_WRITE);
        let reading = async {
            let mut got = vec![0; taken];
            peer.read_exact(&mut got).await.unwrap();
            let right = got.iter().enumerate().all(|(at, byte)| *byte == sent[at % sent.len()]);
            assert!(right, "{version:?}");
        };
        within(async { tokio::join!(reading, async { ours.flush().await.unwrap() }) }).await;
        assert_eq!(owned(&ours), 0);
    }
}

#[tokio::test]
async fn a_reader_of_single_bytes_gets_them_all() {
    let (mut peer, mut ours) = pair(&configs(&TLS13)).await;
    let sent = pattern(40_000);
    let reading = async {
        let mut got = Vec::new();
        while got.len() < sent.len() {
            got.push(ours.read_u8().await.unwrap());
            assert!(owned(&ours) <= 64 * 1024);
        }
        got
    };
    let ((), got) = within(async { tokio::join!(async { peer.write_all(&sent).await.unwrap() }, reading) }).await;
    assert!(got == sent);
    assert_eq!(owned(&ours), 0);
}

#[tokio::test]
async fn nested_borrows_get_buffers_of_their_own() {
    scratch::inbound(|outer| {
        scratch::outbound(|outer_out| {
            outer_out.push(1);
            scratch::inbound(|inner| assert_eq!(inner.len(), outer.len()));
            scratch::outbound(|inner_out| assert!(inner_out.is_empty()));
        });
    });
}

#[derive(Clone, Debug)]
struct Case {
    version: &'static SupportedProtocolVersion,
    writes: Vec<usize>,
    chunk: usize,
    reads: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let size = || prop_oneof![1..40usize, 1..5_000usize, 16_000..17_000usize, 30_000..70_000usize];
    let sizes = move || prop::collection::vec(size(), 1..6);
    (any::<bool>(), sizes(), size(), sizes()).prop_map(|(old, writes, chunk, reads)| Case {
        version: VERSIONS[usize::from(!old)],
        writes,
        chunk: chunk.max(16),
        reads,
    })
}

async fn carries(case: Case) {
    let (mut bare, mut ours) = bare_pair(&configs(case.version)).await;
    let mut sent = Vec::new();
    let mut bytes = Vec::new();
    for length in &case.writes {
        let part = pattern(*length);
        for piece in part.chunks(16_384) {
            bytes.extend(bare.seal(piece));
        }
        sent.extend(part);
    }
    bare.tls.send_close_notify();
    bytes.extend(bare.ciphertext());
    let reading = async {
        let mut got = Vec::new();
        for size in case.reads.iter().cycle() {
            let mut buffer = vec![0; *size];
            let mut buffer = ReadBuf::new(&mut buffer);
            std::future::poll_fn(|cx| Pin::new(&mut *ours).poll_read(cx, &mut buffer)).await.unwrap();
            if buffer.filled().is_empty() {
                break;
            }
            got.extend_from_slice(buffer.filled());
            assert!(ours.plain.bytes.len() <= MAX_WRITE + LEAST_READ);
        }
        got
    };
    let ((), got) = within(async { tokio::join!(bare.send(&bytes, case.chunk), reading) }).await;
    assert!(got == sent);
    assert_eq!(owned(&ours), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_goes_in_comes_out_however_it_is_cut(case in case()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(carries(case));
    }
}
