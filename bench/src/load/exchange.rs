//! Bytes out, known bytes back: the echo, on many connections, one message under way on each.

use std::ops::ControlFlow;

use super::{
    link::{Link, Received},
    round::Round,
};
use crate::{Result, clock, wire};

/// What is sent, and what must come back.
pub(super) struct Exchange {
    pub(super) request: Vec<u8>,
    pub(super) reply: Vec<u8>,
}

impl Exchange {
    /// A message of `size` bytes and its echo.
    pub(super) fn echo(size: usize) -> Self {
        let (request, reply) = wire::echo_pair(size);
        Self { request, reply }
    }

    /// Bytes in both directions.
    pub(super) fn bytes(&self) -> usize {
        self.request.len() + self.reply.len()
    }
}

/// Which connections speak.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    /// All at once, each as soon as its last echo is back, until so many messages were begun in all.
    All { messages: usize },
    /// Each once, never more than so many at a time.
    EachOnce { under_way: usize },
}

/// A message under way.
#[derive(Clone, Copy, Default)]
struct Message {
    sent: usize,
    received: usize,
    began: u64,
}

/// Runs exchanges on `links`; `took` gets the nanoseconds of each.
pub(super) fn run(
    round: &mut Round,
    links: &mut [Link],
    exchange: &Exchange,
    turn: Turn,
    took: &mut Vec<u64>,
) -> Result<()> {
    let mut under_way: Vec<Option<Message>> = vec![None; links.len()];
    let (total, first) = match turn {
        Turn::All { messages } => (messages, messages.min(links.len())),
        Turn::EachOnce { under_way } => (links.len(), under_way.min(links.len())),
    };
    if total == 0 || links.is_empty() {
        return Ok(());
    }
    let mut begun = 0;
    for (place, link) in under_way.iter_mut().zip(links.iter_mut()).take(first) {
        *place = Some(begin(link, exchange)?);
        begun += 1;
    }
    let mut finished = 0;
    round.drive("echo", |at, _, scratch| {
        let (Some(link), Some(place)) = (links.get_mut(at), under_way.get_mut(at)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let Some(message) = place else {
            return expect_silence(link, scratch);
        };
        if !step(link, message, exchange, scratch)? {
            return Ok(ControlFlow::Continue(()));
        }
        took.push(clock::now().saturating_sub(message.began));
        *place = None;
        finished += 1;
        if finished == total {
            return Ok(ControlFlow::Break(()));
        }
        let next = match turn {
            Turn::All { .. } => at,
            Turn::EachOnce { .. } => begun,
        };
        if begun < total
            && let (Some(link), Some(place)) = (links.get_mut(next), under_way.get_mut(next))
        {
            begun += 1;
            *place = Some(begin(link, exchange)?);
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn begin(link: &mut Link, exchange: &Exchange) -> Result<Message> {
    let began = clock::now();
    Ok(Message { sent: link.send(&exchange.request)?, received: 0, began })
}

/// True when the whole reply is there.
fn step(link: &mut Link, message: &mut Message, exchange: &Exchange, scratch: &mut [u8]) -> Result<bool> {
    loop {
        // Also with nothing left to send: TLS may hold the end of it.
        message.sent += link.send(exchange.request.get(message.sent..).unwrap_or_default())?;
        let count = match link.receive(scratch)? {
            Received::Bytes(count) => count,
            Received::Nothing => return Ok(false),
            Received::End => return Err("closed in the middle of an exchange".into()),
        };
        let due = exchange.reply.get(message.received..message.received + count);
        if due != scratch.get(..count) {
            return Err("what came back is not what was sent".into());
        }
        message.received += count;
        if message.received == exchange.reply.len() {
            return Ok(true);
        }
    }
}

fn expect_silence(link: &mut Link, scratch: &mut [u8]) -> Result<ControlFlow<()>> {
    link.flush()?;
    match link.receive(scratch)? {
        Received::Nothing => Ok(ControlFlow::Continue(())),
        Received::Bytes(_) => Err("bytes came that nobody asked for".into()),
        Received::End => Err("an idle connection was closed".into()),
    }
}
