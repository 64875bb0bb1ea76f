//! The rules of the RFCs: pure functions and value types. No clock, no socket, no log.

pub mod address;
pub mod body;
pub mod chunked;
pub mod client_address;
pub mod client_cert;
pub mod content_length;
pub mod field_names;
pub mod forwarded;
pub mod hop_by_hop;
pub mod http2;
pub mod http2_meter;
pub mod interim;
pub mod log_text;
pub mod log_throttle;
pub mod network;
pub mod origin;
pub mod pin;
pub mod proxy_header;
pub mod request_framing;
pub mod request_path;
pub mod request_target;
pub mod response_framing;
pub mod token_list;
pub mod trailers;
pub mod upgrade;
pub mod websocket;
