//! Receives what the backend pushes, and reads from each message how long it was on its way.

use std::ops::ControlFlow;

use super::{
    link::{Dialler, Link, Received},
    plan::Transport,
    request,
    round::Round,
};
use crate::{Result, backend::push::Order, clock, wire};

/// The members of a group, and what each has of a frame that is not whole yet.
pub(super) struct Audience {
    links: Vec<Link>,
    parts: Vec<Vec<u8>>,
}

impl Audience {
    pub(super) fn new(links: Vec<Link>) -> Self {
        let parts = links.iter().map(|_| Vec::new()).collect();
        Self { links, parts }
    }

    /// Gives the order and waits for every message; `took` gets the nanoseconds of each.
    pub(super) fn receive(
        &mut self,
        round: &mut Round,
        backend: std::net::SocketAddr,
        order: &Order,
        took: &mut Vec<u64>,
    ) -> Result<()> {
        tell(backend, order)?;
        let header = wire::frame_header(0x82, order.size as u64, false);
        let frame = wire::PUSH_HEADER + order.size;
        let mut left = order.count;
        let Self { links, parts } = self;
        round.drive("push", |at, _, scratch| {
            let (Some(link), Some(part)) = (links.get_mut(at), parts.get_mut(at)) else {
                return Ok(ControlFlow::Continue(()));
            };
            loop {
                match link.receive(scratch)? {
                    Received::Bytes(count) => part.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                    Received::Nothing => return Ok(ControlFlow::Continue(())),
                    Received::End => return Err("closed in the middle of a push".into()),
                }
                let now = clock::now();
                let mut whole = part.chunks_exact(frame);
                for message in &mut whole {
                    let body = message.strip_prefix(header.as_slice()).ok_or("a pushed frame was changed")?;
                    let stamp = body.first_chunk().ok_or("a pushed frame is too short")?;
                    took.push(now.saturating_sub(u64::from_le_bytes(*stamp)));
                    left = left.saturating_sub(1);
                }
                let rest = part.len() - whole.remainder().len();
                part.drain(..rest);
                if left == 0 {
                    return Ok(ControlFlow::Break(()));
                }
            }
        })
    }
}

/// Asks the backend, past the proxy, to begin. An event loop of its own keeps its token apart from the members'.
fn tell(backend: std::net::SocketAddr, order: &Order) -> Result<()> {
    let mut round = Round::new()?;
    let mut control = request::connect(&round, &Dialler::new(backend, &Transport::Plain)?, 1)?;
    let asked = request::run(&mut round, &mut control, &wire::get(&order.target()), 1, &mut Vec::new());
    asked.map_err(|error| format!("the backend would not push: {error}").into())
}
