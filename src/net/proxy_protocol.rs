//! Reads the PROXY header in front of a connection, and not one byte of what follows it.

use std::{io, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::{
    config::model::ProxyProtocol,
    protocol::{
        address::PeerAddress,
        client_address::TrustedPeer,
        proxy_header::{self, HeaderError, Progress, ProxyHeader, Source},
    },
};

/// Who opened a connection.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// Its address.
    pub remote: PeerAddress,
    /// The address that it came to, where the balancer told.
    pub local: Option<SocketAddr>,
    /// The balancer's own name for the connection.
    pub unique_id: Option<Box<[u8]>>,
    /// Whether the balancer has taken TLS off it.
    pub tls: bool,
    /// It may be a balancer that only wants to see whether we live.
    pub probe: bool,
}

impl Introduced {
    /// Whoever has connected.
    pub fn by_itself(peer: PeerAddress) -> Self {
        Self { remote: peer, local: None, unique_id: None, tls: false, probe: false }
    }
}

/// Why a connection is not served.
#[derive(Debug, Error)]
pub enum ProxyProtocolError {
    /// Whoever may send no header, may send nothing.
    #[error("the peer is not in proxy_protocol.from; list it there if it is a balancer of yours")]
    Stranger,
    /// It connected and left.
    #[error("the peer sent nothing")]
    Silent,
    /// It left in the middle of the header.
    #[error("the PROXY header breaks off")]
    Cut,
    /// The time is over.
    #[error("no PROXY header within {0:?} (proxy_protocol.timeout)")]
    Slow(Duration),
    /// It is something else.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The socket failed.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// The header of a connection that `peer` made; its first byte after that is the first one that `stream` still has.
///
/// # Errors
/// See [`ProxyProtocolError`].
pub async fn accept(
    stream: &mut (impl AsyncRead + Unpin),
    peer: PeerAddress,
    rules: &ProxyProtocol,
) -> Result<Introduced, ProxyProtocolError> {
    if !TrustedPeer::any(&rules.from, peer) {
        return Err(ProxyProtocolError::Stranger);
    }
    let ProxyHeader { source, unique_id, tls } =
        timeout(rules.timeout, read(stream)).await.map_err(|_| ProxyProtocolError::Slow(rules.timeout))??;
    let (remote, local) = match source {
        Source::Address { from, to } => (from.into(), Some(to)),
        Source::Untold | Source::Balancer => (peer, None),
    };
    // Version 1 has no word of its own for a probe: it says UNKNOWN.
    let probe = matches!(source, Source::Untold | Source::Balancer);
    Ok(Introduced { remote, local, unique_id, tls, probe })
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProxyHeader, ProxyProtocolError> {
    // Its length is bounded by what `proxy_header` calls too long.
    let mut header = Vec::new();
    loop {
        let missing = match proxy_header::read(&header)? {
            Progress::Complete(header) => return Ok(header),
            Progress::Missing(missing) => u64::try_from(missing).unwrap_or(0),
        };
        // The socket keeps the rest: a ClientHello may have come in the same segment.
        match (&mut *stream).take(missing).read_buf(&mut header).await {
            Ok(0) if header.is_empty() => return Err(ProxyProtocolError::Silent),
            Ok(0) => return Err(ProxyProtocolError::Cut),
            Ok(_) => {}
            Err(error) if header.is_empty() && error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(ProxyProtocolError::Silent);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    fn rules() -> ProxyProtocol {
        ProxyProtocol { from: vec!["10.0.0.0/8".parse().unwrap()], timeout: Duration::from_secs(5) }
    }

    const BALANCER: PeerAddress = PeerAddress::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    #[tokio::test(start_paused = true)]
    async fn a_header_that_never_ends_is_not_waited_for_however_it_comes() {
        let (mut client, mut server) = duplex(64);
        let begun = Instant::now();
        let dribble = async {
            for byte in b"PROXY UNKNOWN ".iter().chain(&[b'x'; 60]) {
                client.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
        };
        let rules = rules();
        let error = tokio::select! {
            read = accept(&mut server, BALANCER, &rules) => read.unwrap_err(),
            () = dribble => panic!("still waiting"),
        };
        assert!(matches!(error, ProxyProtocolError::Slow(_)), "{error}");
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_stranger_is_not_listened_to() {
        let (_client, mut server) = duplex(64);
        let error = accept(&mut server, PeerAddress::Ip([11, 0, 0, 1].into()), &rules()).await.unwrap_err();
        assert!(matches!(error, ProxyProtocolError::Stranger), "{error}");
    }

    #[tokio::test]
    async fn what_follows_the_header_stays_in_the_stream() {
        for port in ["8", "80", "808", "8080"] {
            let (mut client, mut server) = duplex(256);
            let sent = format!("PROXY TCP4 192.0.2.7 10.0.0.1 {port} 443\r\n\x16\x03");
            client.write_all(sent.as_bytes()).await.unwrap();
            drop(client);
            let introduced = accept(&mut server, BALANCER, &rules()).await.unwrap();
            assert_eq!(introduced.remote.to_string(), format!("192.0.2.7:{port}"));
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"\x16\x03");
        }
    }
}
