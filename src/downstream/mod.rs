//! How a caller reaches us: one connection, HTTP/1.1 read strictly or HTTP/2.

mod connection;
mod http2;
mod state;
mod strict_io;
mod switch;

pub use connection::{Connection, ConnectionLimits, Place, serve};
pub use http2::{Http2Options, serve_http2};
pub use state::Malformed;
pub use switch::{OnSwitch, on_switch};

/// What ends a connection whose client is too slow to be waited for.
fn took_nothing() -> std::io::Error {
    let text = "the client took no bytes for longer than limits.write_timeout";
    std::io::Error::new(std::io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests;
