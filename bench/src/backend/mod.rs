//! What stands behind every proxy: echoes WebSocket messages, answers plain requests, pushes on demand.
//!
//! One thread, one epoll loop, nothing kept of a message but what the peer will not take. Prints its port.

mod connection;
mod echo;
pub(crate) mod push;

use std::{io::ErrorKind, time::Duration};

use mio::{Events, Interest, Poll, Token, event::Event, net::TcpListener};

use self::{
    connection::{Connection, Outcome},
    push::{Order, Push},
};
use crate::{Result, slots::Slots};

const LISTENER: Token = Token(usize::MAX);

/// How often a push looks what is due: the finest step that epoll's time-out has.
const TICK: Duration = Duration::from_millis(1);

/// Serves until standard input ends.
pub(crate) fn run() -> Result<()> {
    crate::limits::raise_open_files()?;
    let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    println!("{}", listener.local_addr()?.port());
    crate::end_with_the_parent();
    Backend::new(listener)?.serve()
}

struct Backend {
    poll: Poll,
    listener: TcpListener,
    connections: Slots<Connection>,
    pushes: Vec<Push>,
    scratch: Vec<u8>,
    out: Vec<u8>,
}

impl Backend {
    fn new(mut listener: TcpListener) -> Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (scratch, out) = (vec![0; 128 * 1024], Vec::new());
        Ok(Self { poll, listener, connections: Slots::new(), pushes: Vec::new(), scratch, out })
    }

    fn serve(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let patience = (!self.pushes.is_empty()).then_some(TICK);
            match self.poll.poll(&mut events, patience) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER { self.accept()? } else { self.ready(event) }
            }
            self.push();
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Whoever knocked has left again.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(format!("the backend cannot accept: {error}").into()),
            };
            socket.set_nodelay(true)?;
            let registry = self.poll.registry();
            self.connections.insert_with(|at| {
                registry.register(&mut socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
                Ok::<_, std::io::Error>(Connection::new(socket))
            })?;
        }
    }

    fn ready(&mut self, event: &Event) {
        let Token(at) = event.token();
        let Some(connection) = self.connections.get_mut(at) else { return };
        match connection.ready(event.is_read_closed(), &mut self.scratch, &mut self.out) {
            Ok(Outcome::Waits) => {}
            Ok(Outcome::Gone) => self.remove(at),
            Ok(Outcome::Ordered(order)) => self.begin(at, order),
            Err(why) => {
                eprintln!("backend: {why}");
                self.remove(at);
            }
        }
    }

    fn begin(&mut self, asker: usize, order: Order) {
        let members: Vec<usize> =
            self.connections.iter().filter(|(_, connection)| connection.is_in(order.group)).map(|(at, _)| at).collect();
        let all_there = members.len() == order.clients;
        if all_there {
            self.pushes.push(Push::new(order, members));
        }
        let answered = self.connections.get_mut(asker).map(|connection| connection.answer_order(all_there));
        if !matches!(answered, Some(Ok(()))) {
            self.remove(asker);
        }
    }

    fn push(&mut self) {
        for push in &mut self.pushes {
            let group = push.order.group;
            while let Some((member, frame)) = push.next_due() {
                // A member that left is missed by its client, who says so.
                if let Some(connection) = self.connections.get_mut(member).filter(|it| it.is_in(group)) {
                    // A broken socket gets its own event.
                    let _ = connection.write(frame);
                }
            }
        }
        self.pushes.retain(|push| !push.is_done());
    }

    fn remove(&mut self, at: usize) {
        if let Some(mut connection) = self.connections.remove(at) {
            // The socket is closed next, which ends its registration anyway.
            let _ = self.poll.registry().deregister(connection.socket());
        }
    }
}
