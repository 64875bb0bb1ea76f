//! Plain requests on connections that stay.

use std::ops::ControlFlow;

use mio::Token;

use super::{
    link::{Dialler, Link, Received},
    round::Round,
};
use crate::{Result, clock, wire};

/// Opens `count` connections; nothing is sent on them yet.
pub(super) fn connect(round: &Round, dialler: &Dialler, count: usize) -> Result<Vec<Client>> {
    (0..count)
        .map(|at| {
            let link = dialler.dial(round.registry(), Token(at))?;
            Ok(Client { link, sent: 0, answer: Vec::new(), began: 0, busy: false })
        })
        .collect()
}

/// A connection and the request under way on it.
pub(super) struct Client {
    link: Link,
    sent: usize,
    answer: Vec<u8>,
    began: u64,
    busy: bool,
}

impl Client {
    fn begin(&mut self, request: &[u8]) -> Result<()> {
        self.began = clock::now();
        self.busy = true;
        self.answer.clear();
        self.sent = self.link.send(request)?;
        Ok(())
    }

    fn step(&mut self, request: &[u8], scratch: &mut [u8]) -> Result<bool> {
        self.sent += self.link.send(request.get(self.sent..).unwrap_or_default())?;
        loop {
            match self.link.receive(scratch)? {
                Received::Bytes(count) => self.answer.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Received::Nothing => return Ok(false),
                Received::End => return Err("closed before the answer to a request".into()),
            }
            let Some(head) = wire::head_length(&self.answer) else { continue };
            let (head, body) = self.answer.split_at(head);
            if !head.starts_with(b"HTTP/1.1 200 ") {
                let first = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
                return Err(format!("a request was answered with `{first}`").into());
            }
            if body == wire::BODY {
                return Ok(true);
            }
            if body.len() >= wire::BODY.len() {
                return Err("a request was answered with another body".into());
            }
        }
    }
}

/// Makes `count` requests, one under way on each connection; `took` gets the nanoseconds of each.
pub(super) fn run(
    round: &mut Round,
    clients: &mut [Client],
    request: &[u8],
    count: usize,
    took: &mut Vec<u64>,
) -> Result<()> {
    let mut begun = 0;
    let mut finished = 0;
    for client in clients.iter_mut().take(count) {
        client.begin(request)?;
        begun += 1;
    }
    if begun == 0 {
        return Ok(());
    }
    round.drive("requests", |at, _, scratch| {
        let Some(client) = clients.get_mut(at).filter(|client| client.busy) else {
            return Ok(ControlFlow::Continue(()));
        };
        if !client.step(request, scratch)? {
            return Ok(ControlFlow::Continue(()));
        }
        took.push(clock::now().saturating_sub(client.began));
        client.busy = false;
        finished += 1;
        if begun < count {
            begun += 1;
            client.begin(request)?;
        }
        Ok(if finished == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}
