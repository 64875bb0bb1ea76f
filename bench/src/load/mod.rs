//! The load: one client process that opens connections, says `ready`, waits for a line, works, and says what it did.
//!
//! Between the two lines lies exactly the work that is measured. Connections stay open until standard input ends, so
//! that memory can be read meanwhile.

mod exchange;
pub(crate) mod http2;
mod link;
mod opening;
pub(crate) mod plan;
mod push;
mod request;
mod round;

use std::{io::BufRead, thread, time::Duration};

use self::{
    exchange::{Exchange, Turn},
    link::Dialler,
    plan::{Counted, Kind, Plan, Transport},
    round::Round,
};
use crate::{
    Result,
    backend::push::{Order, join},
    clock, wire,
};

/// The share of the work that is done beforehand: pools fill, buffers grow, branches are learnt.
const WARM_UP: usize = 10;

/// What an idle connection has carried.
const IDLE_SIZES: [usize; 2] = [1024, 16 * 1024];

/// Time to let go of buffers.
const QUIET: Duration = Duration::from_millis(1500);

/// Most idle connections that speak at a time.
const SPEAKING: usize = 64;

/// Runs the plan that the arguments spell.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    crate::limits::raise_open_files()?;
    let dialler = Dialler::new(plan.proxy, &plan.transport)?;
    let mut round = Round::new()?;
    let mut took = Vec::with_capacity(plan.count);
    let (messages, bytes) = match plan.kind {
        Kind::Echo if matches!(plan.transport, Transport::Tls { http2: true, .. }) => {
            echo_over_http2(&mut round, &dialler, &plan, &mut took)?
        }
        Kind::Echo => echo(&mut round, &dialler, &plan, &mut took)?,
        Kind::Push => pushed(&mut round, &dialler, &plan, &mut took)?,
        Kind::Handshake => handshakes(&mut round, &plan, &mut took)?,
        Kind::Get => requests(&mut round, &dialler, &plan, &mut took)?,
        // Says what it did itself: its connections have to live until the parent has looked.
        Kind::Idle => return idle(&mut round, &dialler, &plan),
    };
    let (p50, p99) = (clock::percentile(&mut took, 50), clock::percentile(&mut took, 99));
    finish(Counted { messages, bytes, p50, p99 })
}

/// Tells the parent that the measured part comes next, and waits for its word.
fn ready() -> Result<()> {
    println!("ready");
    wait()
}

fn finish(counted: Counted) -> Result<()> {
    println!("{}", counted.to_line());
    wait()
}

fn wait() -> Result<()> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line)? {
        0 => Err("nobody waits for this load any longer".into()),
        _ => Ok(()),
    }
}

fn echo(round: &mut Round, dialler: &Dialler, plan: &Plan, took: &mut Vec<u64>) -> Result<(u64, u64)> {
    let mut links = opening::open(round, dialler, "/", plan.connections)?;
    let exchange = Exchange::echo(plan.size);
    exchange::run(round, &mut links, &exchange, Turn::All { messages: plan.count / WARM_UP }, took)?;
    took.clear();
    ready()?;
    exchange::run(round, &mut links, &exchange, Turn::All { messages: plan.count }, took)?;
    let count = plan.count as u64;
    Ok((2 * count, count * exchange.bytes() as u64))
}

fn echo_over_http2(round: &mut Round, dialler: &Dialler, plan: &Plan, took: &mut Vec<u64>) -> Result<(u64, u64)> {
    let mut carriers = http2::open(round, dialler, plan.connections)?;
    let exchange = Exchange::echo(plan.size);
    http2::run(round, &mut carriers, &exchange, plan.count / WARM_UP, took)?;
    took.clear();
    ready()?;
    http2::run(round, &mut carriers, &exchange, plan.count, took)?;
    let count = plan.count as u64;
    Ok((2 * count, count * exchange.bytes() as u64))
}

fn pushed(round: &mut Round, dialler: &Dialler, plan: &Plan, took: &mut Vec<u64>) -> Result<(u64, u64)> {
    let group = u64::from(std::process::id());
    let links = opening::open(round, dialler, &join(group), plan.connections)?;
    let mut audience = push::Audience::new(links);
    let order = |count: usize| Order {
        group,
        clients: plan.connections,
        count: count as u64,
        rate: plan.rate,
        together: plan.together,
        size: plan.size,
    };
    audience.receive(round, plan.backend, &order(plan.count / WARM_UP), took)?;
    took.clear();
    ready()?;
    audience.receive(round, plan.backend, &order(plan.count), took)?;
    Ok((plan.count as u64, (plan.count * (plan.size + wire::PUSH_HEADER)) as u64))
}

fn handshakes(round: &mut Round, plan: &Plan, took: &mut Vec<u64>) -> Result<(u64, u64)> {
    let diallers =
        (0..plan.connections).map(|_| Dialler::new(plan.proxy, &plan.transport)).collect::<Result<Vec<Dialler>>>()?;
    // Twice in each place: the second time there is a session to resume.
    opening::open_and_close(round, &diallers, 2 * plan.connections, took)?;
    took.clear();
    ready()?;
    let resumed = opening::open_and_close(round, &diallers, plan.count, took)?;
    let wanted = match plan.transport {
        Transport::Tls { resume: true, .. } => plan.count,
        _ => 0,
    };
    // Any other mixture would be a figure of nothing. A few misses are allowed: session caches are lossy.
    if resumed.abs_diff(wanted) * 50 > plan.count {
        return Err(format!("{resumed} of {} sessions were resumed, {wanted} should be", plan.count).into());
    }
    Ok((plan.count as u64, 0))
}

fn requests(round: &mut Round, dialler: &Dialler, plan: &Plan, took: &mut Vec<u64>) -> Result<(u64, u64)> {
    let mut clients = request::connect(round, dialler, plan.connections)?;
    let get = wire::get("/plain");
    request::run(round, &mut clients, &get, plan.count / WARM_UP, took)?;
    took.clear();
    ready()?;
    request::run(round, &mut clients, &get, plan.count, took)?;
    Ok((plan.count as u64, 0))
}

fn idle(round: &mut Round, dialler: &Dialler, plan: &Plan) -> Result<()> {
    // What a proxy allocates once, for its first connections, is not the price of the five thousandth. They stay open:
    // closed, they would leave memory behind for the next ones to use again.
    let first = used(round, dialler, 2 * SPEAKING)?;
    thread::sleep(QUIET);
    ready()?;
    let mut links = used(round, dialler, plan.connections)?;
    thread::sleep(QUIET);
    finish(Counted { messages: links.len() as u64, ..Counted::default() })?;
    // Memory of connections that were lost meanwhile would be a figure of nothing.
    links.extend(first);
    for (at, link) in links.iter_mut().enumerate() {
        link.move_to(round.registry(), mio::Token(at))?;
    }
    speak(round, &mut links, 64)
}

fn used(round: &mut Round, dialler: &Dialler, count: usize) -> Result<Vec<link::Link>> {
    let mut links = opening::open(round, dialler, "/", count)?;
    for size in IDLE_SIZES {
        speak(round, &mut links, size)?;
    }
    Ok(links)
}

/// One echo on each connection.
fn speak(round: &mut Round, links: &mut [link::Link], size: usize) -> Result<()> {
    let once = Turn::EachOnce { under_way: SPEAKING };
    exchange::run(round, links, &Exchange::echo(size), once, &mut Vec::new())
}
