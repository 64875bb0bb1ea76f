//! Joins listeners, stack and drain.

mod bind;
mod keep_certificates;
mod room;
mod shutdown;
mod worker;

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

use thiserror::Error;
use tokio::sync::mpsc;

pub use bind::{Bound, bind, bind_with_key_log, check};
use keep_certificates::{Holder, Kept};
use room::Room;

use crate::{
    acme,
    admission::{Admission, ExchangeLimits},
    config::model::{Endpoint, Limits, Model},
    downstream::ConnectionLimits,
    drain::{Live, Tracker},
    net::{
        development::DevelopmentError, key_log::KeyLogError, roots, tls::TlsError, tls_client::Identity,
        unix_listener::UnixBindError,
    },
    protocol::address::ListenAddress,
    registry::Registry,
    stack::LiveParts,
    upstream::{Exchanges, SetupError},
};

/// Why the server cannot start. Each message says what to do.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be bound.
    #[error("cannot listen on {address} (listener `{listener}`): {source}{}", cure(source, *shared))]
    Bind {
        /// The listener's name.
        listener: String,
        /// The address.
        address: ListenAddress,
        /// Whether other processes may listen there (`reuse_port`).
        shared: bool,
        /// What the system said.
        source: io::Error,
    },
    /// A path cannot be bound.
    #[error("cannot listen on {address} (listener `{listener}`): {source}")]
    BindUnix {
        /// The listener's name.
        listener: String,
        /// The path.
        address: ListenAddress,
        /// What is wrong.
        source: UnixBindError,
    },
    /// A listener's TLS material is not usable.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// The development certificate could not be made.
    #[error("listener `{listener}`: {source}")]
    Development {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: DevelopmentError,
    },
    /// The file for TLS secrets is not usable.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// A thread or its runtime cannot be started.
    #[error("cannot start worker thread {index}: {source}; lower `workers` or raise the limits of this user")]
    Worker {
        /// Which one, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
    /// An upstream cannot be set up.
    #[error(transparent)]
    Upstream(#[from] SetupError),
}

fn cure(error: &io::Error, shared: bool) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse if shared => {
            "; another process uses this port and does not share it: run it as the same user with `reuse_port = true`, or \
             change `listen`"
        }
        io::ErrorKind::AddrInUse => {
            "; another program has this port, or another listener here: stop it or choose another `listen`"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: correct `listen`",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher one",
        _ => "",
    }
}

/// What a running process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain. The second one cuts the drain short.
    Stop,
    /// Read the certificates again, whether they seem to have changed or not.
    Reload,
}

/// What a run ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was still alive when the grace ended, or a second signal came, and was cut.
    pub cut: Live,
}

/// Serves until `orders` has a stop, then drains; a second stop cuts the drain short.
///
/// A drain closes the listeners, lets requests in flight finish, and tells the WebSockets to close, spread over
/// `drain.spread`; what is left after `drain.grace` is cut. When the sender of `orders` is gone, that is a stop too.
///
/// # Errors
/// When an upstream cannot be set up or a thread cannot be started. An upstream that is down is no error: it may come up.
pub async fn run(model: Model, mut bound: Bound, mut orders: mpsc::Receiver<Order>) -> Result<Outcome, ServerError> {
    let room = Room::of_process(&model, bind::workers(&model).get());
    let live = LiveParts {
        tracker: Tracker::default(),
        registry: Registry::default(),
        admission: Admission::new(&model),
        exchange_limits: ExchangeLimits::new(room.bounds(), &model),
        next_id: Arc::new(AtomicU64::new(first_id())),
        warnings: Arc::default(),
        challenges: Arc::clone(&bound.challenges),
        listeners: bound.host_listeners(),
    };
    for (name, address) in bound.addresses() {
        tracing::info!(listener = %name, %address, "listening");
    }
    room.log();
    let exchanges = Exchanges::new(&model, &live.tracker)?;
    let (mut kept, wanted) = (bound.kept(&model), bound.wanted(&model));
    kept.extend(exchanges.identities().map(|(name, Identity { files, stamp, certificates })| {
        Kept::new(Holder::Upstream(name.into()), files.clone(), Arc::clone(certificates), stamp.clone())
    }));
    let files = std::mem::take(&mut bound.files);
    let workers = worker::start(&model, bound, &exchanges, &live)?;
    // Once connections are accepted: the CA will come to look.
    acme::start(wanted, Arc::clone(&live.challenges), live.tracker.clone());
    keep_certificates::until_stopped(kept, &mut orders).await;
    drop(files);
    let outcome = shutdown::drain(&model.drain, &live, orders).await;
    workers.join().await;
    Ok(outcome)
}

/// Returns configured limits that exceed those of this system, and unsuitable CA certificates. None of them makes a
/// start fail.
pub fn warnings(model: &Model) -> Vec<String> {
    let mut found: Vec<String> = Room::of_process(model, bind::workers(model).get()).shortage().into_iter().collect();
    for upstream in &model.upstreams {
        let Endpoint::Tls { tls, .. } = &upstream.endpoint else { continue };
        // A file that cannot be read is an error of the check.
        let warnings = roots::warnings(tls, SystemTime::now()).unwrap_or_default();
        found.extend(warnings.into_iter().map(|text| format!("upstream `{}`: {text}", upstream.name)));
    }
    found
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits {
        head_timeout: limits.head_timeout,
        keep_alive_timeout: limits.keep_alive_timeout,
        max_head_size: limits.max_head_size,
        max_header_count: limits.max_header_count,
        max_early_bytes: limits.max_early_bytes,
        body_timeout: limits.body_timeout,
        write_timeout: limits.write_timeout,
    }
}

/// A start that differs from run to run, so that ids of two runs do not mix in one log.
fn first_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("request") & 0xffff_ffff_0000_0000
}
