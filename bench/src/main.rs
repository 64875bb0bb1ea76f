//! Measures switchgate side by side with nginx, HAProxy and a bare epoll relay. See README.md.
//!
//! `compare` is the one command for people. It starts this same program again as `backend`, `floor` and `load`, each
//! a process of its own, so that what is read from /proc belongs to the proxy alone.

mod backend;
mod bars;
mod clock;
mod compare;
mod floor;
mod hold;
mod hostile;
mod limits;
mod load;
mod scenario;
mod slots;
mod wire;

use std::process::ExitCode;

/// A sentence for standard error.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const USAGE: &str = "\
usage: bench compare [options]
       bench hostile [--seconds N] [--only TEXT] [--switchgate PATH]

Runs every scenario through each proxy in turn and prints a Markdown table.

  --quick             less work and three rounds: under five minutes on two cores
  --only NAME,..      only these: echo-64, echo-4k, echo-h2, push-256, big-1m, handshake, get, idle, latency
  --peers NAME,..     only these: switchgate, nginx, haproxy, floor
  --workers N         threads of each proxy (default 1)
  --rounds N          rounds, of which the median is taken (default 5, quick 3)
  --switchgate PATH   this program rather than the one beside this one
  --before PATH       another build of switchgate in the same rounds; adds the ratio to it
  --out FILE          the table into a file as well
  --splice-always     HAProxy splices 1 MiB messages whether it thinks that it pays or not
  --strict            exit code 1 when a bar is missed

hostile prints the CPU time that each kind of hostile traffic costs switchgate at 64 KiB/s, measured for N seconds
(default 3), or those whose name contains TEXT; the exit code is 1 when one takes more than 5 % of a core.

Internal, and started by compare; each ends when its standard input does:

  bench backend                             prints its port
  bench floor BACKEND THREADS [--splice]    prints its port
  bench load KEY=VALUE..                    prints `ready`, waits for a line, prints what it did
  bench hold COMMAND..                      prints the command's process id
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("--help", [].as_slice()),
    };
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    let ended = match command {
        "compare" => match compare::Options::parse(rest) {
            Ok(options) => compare::run(&options),
            Err(error) => return misused(&error),
        },
        "hostile" => hostile::run(rest),
        "backend" => done(backend::run()),
        "floor" => done(floor::run(rest)),
        "hold" => done(hold::run(rest)),
        "load" => done(load::run(rest)),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => return misused(&format!("there is no command `{other}`").into()),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn misused(error: &Error) -> ExitCode {
    eprintln!("error: {error}\n\n{USAGE}");
    ExitCode::from(2)
}

/// Ends this process when its standard input does: a parent that dies leaves nothing behind.
fn end_with_the_parent() {
    std::thread::spawn(|| {
        // An error here is an end as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
}
