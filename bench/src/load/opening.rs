//! Opening handshakes: one, many that stay open, and many that are closed again.

use std::{collections::VecDeque, ops::ControlFlow};

use mio::{Registry, Token};

use super::{
    link::{Dialler, Link, Received},
    round::Round,
};
use crate::{Result, clock, wire};

/// Most handshakes under way at a time while connections are collected: fewer than any listen queue holds.
const UNDER_WAY: usize = 64;

/// A connection on its way to a WebSocket.
struct Opening {
    link: Link,
    sent: usize,
    head: Vec<u8>,
    began: u64,
}

impl Opening {
    fn begin(dialler: &Dialler, registry: &Registry, at: usize) -> Result<Self> {
        let began = clock::now();
        Ok(Self { link: dialler.dial(registry, Token(at))?, sent: 0, head: Vec::new(), began })
    }

    /// Goes as far as it can. True when the 101 has come, and is right.
    fn step(&mut self, request: &[u8], accept: &str, scratch: &mut [u8]) -> Result<bool> {
        self.sent += self.link.send(request.get(self.sent..).unwrap_or_default())?;
        while wire::head_length(&self.head).is_none() {
            match self.link.receive(scratch)? {
                Received::Bytes(count) => self.head.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Received::Nothing => return Ok(false),
                Received::End => return Err("closed before the answer to an opening handshake".into()),
            }
        }
        let head = String::from_utf8_lossy(&self.head);
        let first = head.lines().next().unwrap_or_default();
        if !first.starts_with("HTTP/1.1 101 ") {
            return Err(format!("an opening handshake was answered with `{first}`").into());
        }
        if wire::field(&head, "sec-websocket-accept") != Some(accept) {
            return Err("an opening handshake was answered with the wrong accept".into());
        }
        if wire::head_length(&self.head) != Some(self.head.len()) {
            return Err("bytes nobody sent came after a 101".into());
        }
        Ok(true)
    }
}

/// Opens `count` WebSockets and keeps them; their tokens are their places.
pub(super) fn open(round: &mut Round, dialler: &Dialler, path: &str, count: usize) -> Result<Vec<Link>> {
    let (request, accept) = (wire::opening(path), wire::expected_accept());
    let mut openings: Vec<Option<Opening>> = (0..count).map(|_| None).collect();
    let mut opened: Vec<Option<Link>> = (0..count).map(|_| None).collect();
    let mut waiting: VecDeque<usize> = (0..count).collect();
    for _ in 0..UNDER_WAY.min(count) {
        begin_next(&mut waiting, &mut openings, dialler, round.registry())?;
    }
    let mut missing = count;
    if missing > 0 {
        round.drive("opening connections", |at, registry, scratch| {
            let Some(place) = openings.get_mut(at) else { return Ok(ControlFlow::Continue(())) };
            let Some(opening) = place else { return Ok(ControlFlow::Continue(())) };
            if !opening.step(&request, &accept, scratch)? {
                return Ok(ControlFlow::Continue(()));
            }
            if let (Some(kept), Some(opening)) = (opened.get_mut(at), place.take()) {
                *kept = Some(opening.link);
            }
            missing -= 1;
            begin_next(&mut waiting, &mut openings, dialler, registry)?;
            Ok(if missing == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(opened.into_iter().flatten().collect())
}

fn begin_next(
    waiting: &mut VecDeque<usize>,
    openings: &mut [Option<Opening>],
    dialler: &Dialler,
    registry: &Registry,
) -> Result<()> {
    if let Some(at) = waiting.pop_front()
        && let Some(place) = openings.get_mut(at)
    {
        *place = Some(Opening::begin(dialler, registry, at)?);
    }
    Ok(())
}

/// Opens and closes `count` WebSockets, one after the other in each of as many places as there are diallers.
///
/// Each place has a dialler of its own, and so its own TLS sessions to resume. `took` gets the nanoseconds of each.
/// Returns how many sessions were resumed.
pub(super) fn open_and_close(
    round: &mut Round,
    diallers: &[Dialler],
    count: usize,
    took: &mut Vec<u64>,
) -> Result<usize> {
    let (request, accept) = (wire::opening("/"), wire::expected_accept());
    let mut to_begin = count;
    let mut to_finish = count;
    let mut resumed = 0;
    let mut places = Vec::new();
    for (at, dialler) in diallers.iter().enumerate().take(count) {
        places.push(Some(Opening::begin(dialler, round.registry(), at)?));
        to_begin -= 1;
    }
    round.drive("opening handshakes", |at, registry, scratch| {
        let Some(place) = places.get_mut(at) else { return Ok(ControlFlow::Continue(())) };
        let Some(opening) = place else { return Ok(ControlFlow::Continue(())) };
        if !opening.step(&request, &accept, scratch)? {
            return Ok(ControlFlow::Continue(()));
        }
        took.push(clock::now().saturating_sub(opening.began));
        resumed += usize::from(opening.link.is_resumed());
        if let Some(done) = place.take() {
            done.link.close();
        }
        to_finish -= 1;
        if to_begin > 0
            && let Some(dialler) = diallers.get(at)
        {
            to_begin -= 1;
            *place = Some(Opening::begin(dialler, registry, at)?);
        }
        Ok(if to_finish == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(resumed)
}
