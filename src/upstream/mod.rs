//! How to reach an upstream: one HTTP/1.1 exchange with it.

mod echo;
mod error;
mod exchange;
mod http2;
mod opening;
mod pool;
mod pooled_io;
mod replay_io;

pub use error::{DownstreamBodyError, UpstreamError};
pub use exchange::{Answer, Exchanges, SetupError};
pub use opening::take_stream;
