//! Measures switchgate side by side with nginx, HAProxy and a bare epoll relay. See README.md.

mod backend;
mod clock;
mod floor;
mod hold;
mod limits;
mod load;
mod slots;
mod wire;

use std::process::ExitCode;

/// A sentence for standard error.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const USAGE: &str = "\
usage: bench backend
       bench floor BACKEND THREADS [--splice]
       bench load KEY=VALUE..
       bench hold COMMAND..

They print a port, a process id or figures, and end when standard input does.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("--help", [].as_slice()),
    };
    let done = match command {
        "backend" => backend::run(),
        "floor" => floor::run(rest),
        "hold" => hold::run(rest),
        "load" => load::run(rest),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            eprintln!("error: there is no command `{other}`\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Ends this process when its standard input does: a parent that dies leaves nothing behind.
fn end_with_the_parent() {
    std::thread::spawn(|| {
        // An error here is an end as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
}
