//! Listening sockets: bind, accept with back-off, one permit a connection.

use std::{
    io,
    net::{self, SocketAddr},
    os::{fd::AsFd, unix},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::Wire;
use crate::protocol::{address::PeerAddress, log_throttle::LogThrottle};

/// Connections the kernel may hold that were not accepted yet; Linux caps it at `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// First and longest wait after an accept that failed for want of a resource.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Silence after which the kernel asks whether the peer is still there, and how often it asks then.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));

/// Binds one address.
///
/// An IPv6 wildcard takes IPv6 only, so that `0.0.0.0` can be listed beside it on every system alike. Several sockets of
/// one user can share the address (`SO_REUSEPORT`); the kernel spreads connections over them.
///
/// # Errors
/// What the system says: the port is in use, the address is not ours, the port needs a privilege.
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit these.
    prepare(&socket);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether no process listens on this address, with or without `reuse_port`. Without the key a second process must not
/// silently take half of the connections.
///
/// # Errors
/// See [`bind`].
pub fn probe_free(address: SocketAddr) -> io::Result<()> {
    socket(address)?.bind(&address.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sets what both sides of the proxy want of a TCP socket: no Nagle delay, and keepalive probes.
pub fn prepare<S: AsFd>(socket: &S) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1);
    // Both are improvements, not needs: a socket that refuses them (it may be dead already) still works.
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// A socket that listens, before a runtime has it.
#[derive(Debug)]
pub enum BoundSocket {
    /// One of those that share an address.
    Tcp(net::TcpListener),
    /// One of those that share a socket.
    Unix(unix::net::UnixListener),
}

/// The same, of a runtime.
#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    async fn accept(&self) -> io::Result<(Wire, PeerAddress)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, remote)| (Wire::Tcp(stream), remote.into())),
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Wire::boxed(stream), PeerAddress::Local))
            }
        }
    }
}

/// One accepted connection; its place in the listener's cap is free again when `permit` is dropped.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: Wire,
    /// The peer's address.
    pub remote: PeerAddress,
    /// The place it takes.
    pub permit: OwnedSemaphorePermit,
}

/// Accepts from one socket, never more at a time than the permits allow.
#[derive(Debug)]
pub struct Acceptor {
    listener: Listening,
    permits: Arc<Semaphore>,
    name: Arc<str>,
    /// Under load the limit is reached repeatedly.
    full: LogThrottle,
    failing: LogThrottle,
}

impl Acceptor {
    /// Joins a bound socket and the permits that all sockets of one listener share.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn new(socket: BoundSocket, permits: Arc<Semaphore>, name: Arc<str>) -> io::Result<Self> {
        let listener = match socket {
            BoundSocket::Tcp(socket) => Listening::Tcp(TcpListener::from_std(socket)?),
            BoundSocket::Unix(socket) => Listening::Unix(UnixListener::from_std(socket)?),
        };
        Ok(Self { listener, permits, name, full: LogThrottle::default(), failing: LogThrottle::default() })
    }

    /// Waits for a connection, then for a place for it.
    ///
    /// A place is taken by a connection, never by a socket that waits for one: sockets that share a cap would keep
    /// places from each other. At the cap one connection waits here and the others in the kernel's backlog. An accept
    /// that fails for want of descriptors or memory is tried again after a pause that doubles up to a second; one that
    /// failed because the peer was gone is tried again at once.
    pub async fn accept(&self) -> Accepted {
        let mut pause = BACK_OFF.0;
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    let permit = self.place().await;
                    return Accepted { stream, remote, permit };
                }
                Err(error) if peer_is_gone(&error) => {}
                Err(error) => {
                    if let Some(suppressed) = self.failing.note(Instant::now().into_std()) {
                        tracing::warn!(
                            listener = %self.name,
                            %error,
                            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                            suppressed,
                            "accept failed; raise the open-file limit if this goes on"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return permit;
        }
        if let Some(suppressed) = self.full.note(Instant::now().into_std()) {
            tracing::warn!(listener = %self.name, suppressed, "max_connections reached; new connections wait");
        }
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => permit,
            // The semaphore is never closed; were it, accepting nothing more is what closing it would mean.
            Err(_) => std::future::pending().await,
        }
    }
}

fn peer_is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn an_accepted_socket_has_no_delay_and_is_kept_alive() {
        let listener = TcpListener::from_std(bind(([127, 0, 0, 1], 0).into()).unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE.0);
    }

    #[tokio::test]
    async fn the_cap_holds_the_next_connection_until_a_place_is_free() {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(BoundSocket::Tcp(listener), Arc::new(Semaphore::new(1)), "test".into()).unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let held = acceptor.accept().await;
        let mut next = std::pin::pin!(acceptor.accept());
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), next).await.unwrap();
    }
}
