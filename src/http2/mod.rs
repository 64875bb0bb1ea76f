//! What both sides have of HTTP/2: bodies under its windows, a stream as bytes, reads and writes in batches.

mod batched_io;
pub mod body;
mod stream;

use std::sync::Arc;

pub use batched_io::{Batch, BatchedIo};
pub use stream::Http2Stream;

/// What the windows of both sides are. A stream that nobody reads holds so much and no more; RFC 9113 §6.9.2 has nearly
/// this for its default.
pub const STREAM_WINDOW: u32 = 64 * 1024;

/// Held by each stream of a connection that is shared; how many there are says how busy it is.
pub type Lease = Arc<()>;
