//! A client's connection, plain or TLS, that never blocks.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::plan::Transport;
use crate::{Error, Result};

/// What a read brought.
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other side is done.
    End,
}

/// Makes links to one address.
#[derive(Clone)]
pub(super) struct Dialler {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Dialler {
    pub(super) fn new(address: SocketAddr, transport: &Transport) -> Result<Self> {
        let tls = match transport {
            Transport::Plain => None,
            Transport::Tls { certificate, resume, http2 } => {
                let certificate = CertificateDer::from_pem_file(certificate)
                    .map_err(|error| format!("cannot read {}: {error}", certificate.display()))?;
                let mut config = client_config(certificate, *resume)?;
                config.alpn_protocols = vec![if *http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
                Some(Arc::new(config))
            }
        };
        Ok(Self { address, tls })
    }

    /// Begins to connect.
    pub(super) fn dial(&self, registry: &Registry, token: Token) -> Result<Link> {
        let mut socket = TcpStream::connect(self.address).map_err(|error| format!("cannot connect: {error}"))?;
        socket.set_nodelay(true)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = match &self.tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                Some(Box::new(ClientConnection::new(Arc::clone(config), name)?))
            }
        };
        Ok(Link { socket, tls })
    }
}

/// One version, one suite, one group, so that every proxy does the same arithmetic.
fn client_config(certificate: CertificateDer<'static>, resume: bool) -> Result<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = if resume { Resumption::in_memory_sessions(4) } else { Resumption::disabled() };
    Ok(config)
}

/// A connection.
pub(super) struct Link {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Link {
    /// Sends what the socket takes now; how many bytes of `bytes` that were, TLS' own buffer included.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        loop {
            let open = self.flush()?;
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() || !open {
                return Ok(taken);
            }
            let count = match &mut self.tls {
                Some(tls) => tls.writer().write(rest)?,
                None => match self.socket.write(rest) {
                    Ok(count) => count,
                    Err(error) if is_for_later(&error) => return Ok(taken),
                    Err(error) => return Err(broken(&error)),
                },
            };
            if count == 0 {
                return Ok(taken);
            }
            taken += count;
        }
    }

    /// Sends what TLS holds. False when the socket would block.
    pub(super) fn flush(&mut self) -> Result<bool> {
        match &mut self.tls {
            Some(tls) => flush(tls, &mut self.socket),
            None => Ok(true),
        }
    }

    /// Reads what there is.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        let Some(tls) = &mut self.tls else { return received(self.socket.read(buffer)) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return received(other),
            }
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Received::End),
                Ok(_) => {}
                Err(error) if is_for_later(&error) => return Ok(Received::Nothing),
                Err(error) => return Err(broken(&error)),
            }
            tls.process_new_packets().map_err(|error| format!("TLS failed: {error}"))?;
            // The second flight of a TLS handshake, an answer to a key update.
            flush(tls, &mut self.socket)?;
        }
    }

    /// Registers it again, under another number.
    pub(super) fn move_to(&mut self, registry: &Registry, token: Token) -> Result<()> {
        Ok(registry.reregister(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)?)
    }

    /// Whether the session was resumed.
    pub(super) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Says goodbye where TLS wants that. Dropping the link closes the socket.
    pub(super) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The measured part is over; a socket that is gone already does not matter.
            let _ = self.flush();
        }
    }
}

fn flush(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if is_for_later(&error) => return Ok(false),
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(true)
}

fn received(result: io::Result<usize>) -> Result<Received> {
    match result {
        Ok(0) => Ok(Received::End),
        Ok(count) => Ok(Received::Bytes(count)),
        Err(error) if is_for_later(&error) => Ok(Received::Nothing),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Received::End),
        Err(error) => Err(broken(&error)),
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

fn broken(error: &io::Error) -> Error {
    format!("the connection broke: {error}").into()
}
