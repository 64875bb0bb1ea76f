//! One binary for all integration tests; each module is a capability.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails, and tests start peers of their own"
)]

mod acme;
mod admission;
mod architecture;
mod certificates;
mod cli;
mod client_address;
mod client_certificates;
mod closing;
mod config;
mod drain;
mod exchanges;
mod foreign_host;
mod handshake;
mod http2;
mod http2_abuse;
mod interim;
mod listeners;
mod log;
mod look_alikes;
mod orderly_end;
mod origin;
mod passed_resets;
mod paths;
mod peers;
mod peers_acme;
mod plain_http;
mod proxy_protocol;
mod quiet_streams;
mod redirect;
mod relay;
mod resets;
mod smuggling;
mod soak;
mod storm;
mod support;
mod tls;
mod tls_abuse;
mod tls_records;
mod tls_secrets;
mod unix_listeners;
mod upstream_http2;
mod upstream_proxy_header;
mod upstream_tls;
mod upstream_unix;
