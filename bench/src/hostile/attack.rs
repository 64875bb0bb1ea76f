//! An attacker with a fixed budget of bytes a second.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::kinds::{Door, Kind};
use crate::Result;

/// What a connection costs the attacker beside what is sent on it: packets without a payload, or a TLS handshake.
const CONNECTION_BYTES: usize = 120;
const TLS_BYTES: usize = 700;

/// How long a connection may take to be made, or to take what is sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the attacker sleeps when it has nothing to do.
const PAUSE: Duration = Duration::from_millis(1);

/// What the attacker has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) connections: u64,
    pub(super) pieces: u64,
}

impl Spent {
    pub(super) fn less(self, earlier: &Self) -> Self {
        Self { connections: self.connections - earlier.connections, pieces: self.pieces - earlier.pieces }
    }
}

/// Makes connections to one address.
pub(super) struct Attacker {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Attacker {
    pub(super) fn new(address: SocketAddr, http2: bool, certificate: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self { address, tls: Arc::new(config) })
    }

    fn connect(&self, door: Door) -> Result<Connection> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        let tls = match door {
            Door::Clear | Door::RawTls => None,
            Door::Http2 => {
                socket.set_read_timeout(Some(PATIENCE))?;
                let mut tls = ClientConnection::new(Arc::clone(&self.tls), ServerName::try_from("localhost")?)?;
                tls.complete_io(&mut &socket)?;
                Some(tls)
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Connection { socket, tls })
    }
}

/// A ClientHello as it is sent, for `name`.
pub(super) fn client_hello(name: &'static str) -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes)?;
    Ok(bytes)
}

struct Connection {
    socket: TcpStream,
    tls: Option<ClientConnection>,
}

impl Connection {
    /// False where the other side has ended it.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut encrypted = Vec::new();
        let mut rest = match &mut self.tls {
            None => bytes,
            Some(tls) => {
                if tls.writer().write_all(bytes).is_err() {
                    return false;
                }
                while tls.wants_write() {
                    if tls.write_tls(&mut encrypted).is_err() {
                        return false;
                    }
                }
                &encrypted
            }
        };
        let deadline = Instant::now() + PATIENCE;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    if !self.drain() {
                        return false;
                    }
                    thread::sleep(PAUSE);
                }
                Err(_) => return false,
            }
        }
        self.drain()
    }

    /// Reads what has come. False at the end of the connection.
    fn drain(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    if let Some(tls) = &mut self.tls {
                        let mut rest = buffer.get(..count).unwrap_or_default();
                        while !rest.is_empty() {
                            if tls.read_tls(&mut rest).is_err() || tls.process_new_packets().is_err() {
                                return false;
                            }
                            // What it says does not matter.
                            let _ = io::copy(&mut tls.reader(), &mut io::sink());
                        }
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// One kind of traffic, and how far it has come.
pub(super) struct Attack<'a> {
    kind: &'a Kind,
    rate: usize,
    spent: Spent,
    connection: Option<(Connection, u32)>,
}

impl<'a> Attack<'a> {
    pub(super) fn new(kind: &'a Kind, rate: usize) -> Self {
        Self { kind, rate, spent: Spent::default(), connection: None }
    }

    pub(super) fn spent(&self) -> Spent {
        self.spent
    }

    /// Sends as much as the budget allows for so long.
    pub(super) fn run_for(&mut self, attacker: &Attacker, span: Duration) -> Result<()> {
        let (began, mut sent) = (Instant::now(), 0);
        while began.elapsed() < span {
            let allowed = began.elapsed().as_secs_f64() * self.rate as f64;
            if sent as f64 > allowed {
                if let Some((connection, _)) = &mut self.connection
                    && !connection.drain()
                {
                    self.connection = None;
                }
                thread::sleep(PAUSE);
                continue;
            }
            sent += self.step(attacker)?;
        }
        Ok(())
    }

    /// One connection, or one piece on it; the bytes that it took.
    fn step(&mut self, attacker: &Attacker) -> Result<usize> {
        let Some((mut connection, number)) = self.connection.take() else {
            let mut connection = attacker.connect(self.kind.door)?;
            self.spent.connections += 1;
            let opening = (self.kind.opening)();
            if connection.send(&opening) {
                self.connection = Some((connection, 0));
            }
            let tls = if matches!(self.kind.door, Door::Http2) { TLS_BYTES } else { 0 };
            return Ok(CONNECTION_BYTES + tls + opening.len());
        };
        let piece = (self.kind.piece)(number);
        self.spent.pieces += 1;
        let goes_on = connection.send(&piece) && self.kind.pieces.is_none_or(|most| number + 1 < most);
        if goes_on {
            self.connection = Some((connection, number + 1));
        }
        Ok(piece.len())
    }
}
