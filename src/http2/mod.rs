//! What both sides have of HTTP/2: bodies under its windows, and one stream as a byte stream.

pub mod body;
mod stream;

pub use stream::Http2Stream;
