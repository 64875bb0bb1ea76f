//! How to reach an upstream: one HTTP/1.1 exchange with it.

mod echo;
mod error;
mod exchange;
mod opening;
mod pool;
mod pooled_io;
mod replay_io;

pub use error::{DownstreamBodyError, UpstreamError};
pub use exchange::{Exchanges, SetupError};
pub use opening::take_stream;
pub use pool::Answer;
