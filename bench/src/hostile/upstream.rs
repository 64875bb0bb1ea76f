//! An upstream that answers at once, never, or with interim responses without end. It ends with the process.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// How an upstream answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// 204 to each request.
    Answers,
    /// Nothing.
    Silent,
    /// 103 after 103, at the rate of the attack.
    EndlessInterim,
}

/// A listening upstream.
pub(super) struct Upstream {
    pub(super) port: u16,
}

impl Upstream {
    pub(super) fn start(manner: Manner, rate: usize) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // Its client hangs up sooner or later, and that is the end of it.
                thread::spawn(move || serve(socket, manner, rate).ok());
            }
        });
        Ok(Self { port })
    }
}

fn serve(mut socket: TcpStream, manner: Manner, rate: usize) -> Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        match manner {
            Manner::Answers => socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            Manner::Silent => {}
            Manner::EndlessInterim => interim(&mut socket, rate)?,
        }
    }
}

fn interim(socket: &mut TcpStream, rate: usize) -> Result<()> {
    let head = b"HTTP/1.1 103 E\r\n\r\n";
    let (began, mut sent) = (Instant::now(), 0_usize);
    loop {
        if sent as f64 > began.elapsed().as_secs_f64() * rate as f64 {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        socket.write_all(head)?;
        sent += head.len();
    }
}
