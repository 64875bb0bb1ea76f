//! How a caller reaches us: one HTTP/1.1 connection, read strictly.

mod connection;
mod state;
mod strict_io;

pub use connection::{Connection, ConnectionLimits, Place, serve, take_stream};
pub use state::Malformed;
