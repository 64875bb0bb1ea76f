//! CPU time that hostile traffic costs the proxy, kind by kind, each at the same number of bytes a second.
//!
//! An attacker who must spend as much as its victim is no attacker: what matters is the cost of a byte. Each kind gets a
//! fresh proxy, with its log at the default level, and one attacker that reconnects whenever it is disconnected.

mod attack;
mod http2;
mod kinds;
mod upstream;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use self::{
    attack::{Attack, Attacker, Spent},
    kinds::{Door, Kind},
    upstream::Upstream,
};
use crate::{
    Result,
    compare::{Options, Peer, child::Child, place::Place, proc::CpuTimes},
};

/// Bytes that the attacker sends a second.
const RATE: usize = 64 * 1024;

/// Before the measurement: connections are made and tables are filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// Share of one core, in per cent, above which a kind of traffic is too expensive.
const BAR: f64 = 5.0;

/// How long the proxy has until it accepts.
const START: Duration = Duration::from_secs(5);

/// Measures every kind. The exit code is a failure where one is above the bar.
///
/// # Errors
/// A sentence about the first kind that could not be measured.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (mut seconds, mut only, mut rest) = (3, "", arguments);
    loop {
        rest = match rest {
            [flag, value, rest @ ..] if flag == "--seconds" => {
                seconds = value.parse::<u64>()?.clamp(1, 60);
                rest
            }
            [flag, value, rest @ ..] if flag == "--only" => {
                only = value;
                rest
            }
            _ => break,
        };
    }
    let options = Options::parse(rest)?.alone(Peer::Switchgate);
    let place = Place::prepare(&options)?;
    println!("| hostile traffic, 64 KiB/s | connections/s | pieces/s | CPU µs a piece | CPU of one core |");
    println!("|---|---:|---:|---:|---:|");
    let mut above = 0;
    for kind in kinds::all().into_iter().filter(|kind| kind.name.contains(only)) {
        let figures =
            measure(&place, &kind, Duration::from_secs(seconds)).map_err(|error| format!("{}: {error}", kind.name))?;
        above += usize::from(figures.share > BAR);
        let mark = if figures.share > BAR { " **above the bar**" } else { "" };
        println!(
            "| {} | {:.0} | {:.0} | {:.1} | {:.2} %{mark} |",
            kind.name, figures.connections, figures.pieces, figures.each, figures.share
        );
    }
    println!("\n{above} above {BAR} % of a core.");
    Ok(if above > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Per second, but for `each`, which is microseconds, and `share`, which is per cent.
struct Figures {
    connections: f64,
    pieces: f64,
    each: f64,
    share: f64,
}

fn measure(place: &Place, kind: &Kind, span: Duration) -> Result<Figures> {
    let upstream = Upstream::start(kind.upstream, RATE)?;
    let (gate, address) = start(place, kind, upstream.port)?;
    let process = gate.1;
    let attacker = Attacker::new(address, matches!(kind.door, Door::Http2), &place.file("certificate.pem"))?;
    let mut attack = Attack::new(kind, RATE);
    attack.run_for(&attacker, WARM_UP)?;
    let (cpu, before, began) = (CpuTimes::read(process)?, attack.spent(), Instant::now());
    attack.run_for(&attacker, span)?;
    let elapsed = began.elapsed().as_secs_f64();
    let nanoseconds = CpuTimes::read(process)?.since(&cpu) as f64;
    let Spent { connections, pieces } = attack.spent().less(&before);
    Ok(Figures {
        connections: connections as f64 / elapsed,
        pieces: pieces as f64 / elapsed,
        each: nanoseconds / 1e3 / (pieces.max(1) as f64),
        share: nanoseconds / 1e7 / elapsed,
    })
}

/// A gate whose process is held by a child of ours, and where it accepts this kind.
fn start(place: &Place, kind: &Kind, upstream: u16) -> Result<((Child, u32), SocketAddr)> {
    let program = place.program(Peer::Switchgate).ok_or("there is no switchgate")?;
    let port = place.free_port()?;
    let config = place.file("hostile.toml");
    fs::write(&config, kind.config(place, port, upstream))?;
    let arguments = ["hold", &program.path.display().to_string(), "--config", &config.display().to_string()];
    let mut child = Child::start(&arguments.map(str::to_owned), &place.file("hostile.log"), &[])?;
    let process = child.line()?.parse()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + START;
    while let Err(error) = TcpStream::connect(address) {
        if Instant::now() > deadline {
            let log = fs::read_to_string(place.file("hostile.log")).unwrap_or_default();
            return Err(format!("it does not accept on {address}: {error}\n{log}").into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(((child, process), address))
}
