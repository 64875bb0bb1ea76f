//! The floor: a relay that copies bytes between two sockets and does nothing else. No proxy can do less.
//!
//! With two threads the first accepts, and hands every second connection over.

mod copied;
mod spliced;

use std::{io::ErrorKind, net::SocketAddr, sync::mpsc, thread};

use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};

use crate::{Result, slots::Slots};

const LISTENER: Token = Token(usize::MAX);
const HANDED_OVER: Token = Token(usize::MAX - 1);
const BUFFER: usize = 64 * 1024;

/// Relays until standard input ends. Arguments: the backend's address, the number of threads, and perhaps `--splice`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (backend, threads, splices) = match arguments {
        [backend, threads] => (backend, threads, false),
        [backend, threads, flag] if flag == "--splice" => (backend, threads, true),
        _ => return Err("floor takes an address, a number of threads and perhaps --splice".into()),
    };
    let backend: SocketAddr = backend.parse()?;
    let threads: usize = threads.parse()?;
    crate::limits::raise_open_files()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    println!("{}", listener.local_addr()?.port());
    crate::end_with_the_parent();

    let mut relay = Relay::new(backend, splices)?;
    let mut others = Vec::new();
    for _ in 1..threads {
        let mut other = Relay::new(backend, splices)?;
        let (sender, arrivals) = mpsc::channel();
        others.push((sender, Waker::new(other.poll.registry(), HANDED_OVER)?));
        thread::spawn(move || {
            let ended = other.serve(|relay| {
                while let Ok(socket) = arrivals.try_recv() {
                    relay.adopt(socket)?;
                }
                Ok(())
            });
            if let Err(error) = ended {
                eprintln!("floor: {error}");
            }
        });
    }
    relay.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut turn = 0;
    relay.serve(|relay| {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("the floor cannot accept: {error}").into()),
            };
            turn = (turn + 1) % threads.max(1);
            match turn.checked_sub(1).and_then(|other| others.get(other)) {
                None => relay.adopt(socket)?,
                Some((sender, waker)) => {
                    sender.send(socket)?;
                    waker.wake()?;
                }
            }
        }
    })
}

/// The connections of one thread.
struct Relay {
    poll: Poll,
    backend: SocketAddr,
    splices: bool,
    pairs: Slots<Pair>,
    buffer: Vec<u8>,
}

/// A client's socket and the one towards the backend, numbered 0 and 1.
enum Pair {
    /// Bytes pass through our memory.
    Copied(copied::Pair),
    /// Bytes stay in the kernel.
    Spliced(spliced::Pair),
}

impl Pair {
    /// Carries what side `from` has until it is empty or the other is full. False when the pair is finished.
    fn pump(&mut self, from: usize, read_closed: bool, buffer: &mut [u8]) -> bool {
        match self {
            Self::Copied(pair) => pair.pump(from, read_closed, buffer),
            Self::Spliced(pair) => pair.pump(from),
        }
    }

    /// Writes what side `to` left over earlier and, once that is gone, reads on. False when the pair is finished.
    fn resume(&mut self, to: usize, buffer: &mut [u8]) -> bool {
        match self {
            Self::Copied(pair) => pair.resume(to, buffer),
            Self::Spliced(pair) => pair.pump(1 - to),
        }
    }
}

impl Relay {
    fn new(backend: SocketAddr, splices: bool) -> Result<Self> {
        Ok(Self { poll: Poll::new()?, backend, splices, pairs: Slots::new(), buffer: vec![0; BUFFER] })
    }

    fn adopt(&mut self, client: TcpStream) -> Result<()> {
        let mut sockets = [client, TcpStream::connect(self.backend)?];
        let (registry, splices) = (self.poll.registry(), self.splices);
        self.pairs.insert_with(|at| -> Result<Pair> {
            for (side, socket) in sockets.iter_mut().enumerate() {
                socket.set_nodelay(true)?;
                registry.register(socket, Token(2 * at + side), Interest::READABLE | Interest::WRITABLE)?;
            }
            Ok(if splices {
                Pair::Spliced(spliced::Pair::new(sockets)?)
            } else {
                Pair::Copied(copied::Pair::new(sockets))
            })
        })?;
        Ok(())
    }

    /// Runs for ever; `arrivals` is called when the listener or the waker says so.
    fn serve(&mut self, mut arrivals: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let Token(number) = event.token();
                if matches!(event.token(), LISTENER | HANDED_OVER) {
                    arrivals(self)?;
                    continue;
                }
                let Some(pair) = self.pairs.get_mut(number / 2) else { continue };
                let mut alive = true;
                if event.is_readable() {
                    alive = pair.pump(number % 2, event.is_read_closed(), &mut self.buffer);
                }
                if event.is_writable() && alive {
                    alive = pair.resume(number % 2, &mut self.buffer);
                }
                if !alive {
                    self.pairs.remove(number / 2);
                }
            }
        }
    }
}
