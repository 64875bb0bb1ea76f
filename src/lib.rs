//! switchgate: a gate in front of WebSocket backends.
//!
//! The modules in the order a request meets them; see ARCHITECTURE.md for the picture and the import order.

pub mod acme;
pub mod admission;
pub mod cli;
pub mod config;
pub mod downstream;
pub mod drain;
pub mod http2;
pub mod interim;
pub mod net;
pub mod probe;
pub mod protocol;
pub mod registry;
pub mod relay;
pub mod server;
pub mod stack;
pub mod telemetry;
pub mod upstream;
