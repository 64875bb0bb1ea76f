//! One binary for all integration tests; each module is a capability.

mod cli;
