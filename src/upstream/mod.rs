//! How to reach an upstream: one HTTP/1.1 exchange with it.

mod echo;
mod error;
mod exchange;
mod head_io;
mod pooled_io;

pub use error::{DownstreamBodyError, UpstreamError};
pub use exchange::{Exchanges, SetupError, take_stream};
