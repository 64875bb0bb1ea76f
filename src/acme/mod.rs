//! Certificates that are ordered and renewed from an ACME server (RFC 8555, RFC 8737).
//!
//! One thread looks after all hosts of all listeners, one order at a time, and writes what it gets to files. It touches
//! neither listener nor connection: new files are seen as those of any other renewal tool are.

mod client;
mod order;
mod progress;
mod rest;
mod schedule;
mod storage;

use std::{
    future::Future,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime,
    time::{Instant, sleep, timeout},
};

use crate::{
    config::model::{Acme, ExternalAccount, PairFiles},
    drain::Tracker,
    net::{
        certificates,
        challenges::Challenges,
        tls::{self, TlsError},
    },
    protocol::log_text::Escaped,
};
use client::Client;
use order::{OrderError, Ordering};
use rest::{Pause, Whose};
use schedule::{Failure, Kept};
use storage::Storage;

/// Longest attempt, whatever the server does.
const ATTEMPT: Duration = Duration::from_secs(5 * 60);

/// What one listener asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Its settings.
    pub acme: Acme,
}

/// Reads what a start would read, and orders nothing.
///
/// # Errors
/// What is wrong with the CA file or the key of an external account.
pub fn check(acme: &Acme) -> Result<(), TlsError> {
    if let Some(ExternalAccount { key, .. }) = &acme.external_account {
        let unreadable = |source| TlsError::Unreadable { what: "external account key", path: key.clone(), source };
        std::fs::read(key).map_err(unreadable)?;
    }
    tls::client_config(acme.ca.as_deref()).map(drop)
}

/// Looks after all of them on a thread of its own, until a drain begins.
///
/// Not on one that carries traffic: keys and files take their time.
pub fn start(wanted: Vec<Wanted>, challenges: Arc<Challenges>, tracker: Tracker) {
    if wanted.is_empty() {
        return;
    }
    let life = move || match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async move {
            let all = wanted.into_iter().flat_map(|wanted| Host::all(wanted, &challenges)).collect();
            tokio::select! {
                () = keep(all) => {}
                () = tracker.draining() => {}
            }
        }),
        Err(error) => report(&error),
    };
    if let Err(error) = thread::Builder::new().name("acme".to_owned()).spawn(life) {
        report(&error);
    }
}

fn report(error: &std::io::Error) {
    tracing::error!(%error, "no certificate will be ordered; raise the limits of threads and files and restart");
}

async fn keep(mut all: Vec<Host>) {
    loop {
        let mut next = None;
        for host in &mut all {
            let wait = host.turn().await;
            next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
        }
        match next {
            Some(wait) => sleep(wait).await,
            None => return,
        }
    }
}

/// One host of one listener.
struct Host {
    listener: Arc<str>,
    acme: Arc<Acme>,
    name: String,
    challenges: Arc<Challenges>,
    /// Not before this is anything tried.
    rests_until: Instant,
    /// Attempts in a row that failed.
    failed: u32,
    /// What the storage was told of that last.
    kept: Option<Kept>,
    /// Issued, and could not be written: it is not ordered a second time.
    unsaved: Option<String>,
}

impl Host {
    fn all(wanted: Wanted, challenges: &Arc<Challenges>) -> Vec<Self> {
        let Wanted { listener, acme } = wanted;
        let acme = Arc::new(acme);
        let host = |name: &String| Self {
            listener: Arc::clone(&listener),
            acme: Arc::clone(&acme),
            name: name.clone(),
            challenges: Arc::clone(challenges),
            rests_until: Instant::now(),
            failed: 0,
            kept: None,
            unsaved: None,
        };
        acme.hosts.iter().map(host).collect()
    }

    fn whose(&self) -> Whose<'_> {
        Whose { listener: &self.listener, acme: &self.acme, host: &self.name }
    }

    /// Does what is due, and answers how long nothing will be.
    async fn turn(&mut self) -> Duration {
        let resting = self.rests_until.saturating_duration_since(Instant::now());
        let wait = if resting.is_zero() { self.until_due().map_or(Duration::ZERO, |(wait, _)| wait) } else { resting };
        if wait.is_zero() {
            self.attempt().await;
        }
        let resting = self.rests_until.saturating_duration_since(Instant::now());
        wait.max(resting).min(self.acme.pace.look)
    }

    /// How long the certificate there is needs no other, and how many days it has left; `None` where none can serve.
    fn until_due(&self) -> Option<(Duration, i64)> {
        let file = self.acme.file(&self.name);
        let validity = certificates::read_validity(&PairFiles { certificate: file.clone(), key: file }).ok()?;
        let now = SystemTime::now();
        let fits = validity.names.contains(&self.name);
        fits.then(|| (schedule::until_due(&validity, now), validity.days_left(now)))
    }

    async fn attempt(&mut self) {
        // As they are now: what is mended meanwhile has not failed yet.
        let settings = self.whose().settings();
        let (storage, done) = match Storage::take(&self.acme.storage) {
            Ok(Some(storage)) => {
                if let Some((failed, rest)) = rest::of_others(self.whose(), &storage, self.kept) {
                    self.failed = failed;
                    if !rest.is_zero() {
                        self.rests_until = Instant::now() + rest;
                        return;
                    }
                }
                let done = self.renew(&storage).await;
                (Some(storage), done)
            }
            Ok(None) => {
                tracing::info!(
                    listener = %self.listener,
                    host = %self.name,
                    "another process orders with this storage; waiting for it"
                );
                self.rests_until = Instant::now() + self.acme.pace.locked;
                return;
            }
            Err(error) => (None, Err(Failed { error: error.into(), told: None })),
        };
        match done {
            Ok(done) => {
                self.failed = 0;
                self.kept = None;
                if let Done::Issued = done {
                    self.rests_until = Instant::now() + self.acme.pace.between;
                }
                if let Some(storage) = &storage {
                    rest::forget(self.whose(), storage);
                }
            }
            Err(Failed { error, told }) => {
                self.failed = self.failed.saturating_add(1);
                let chance = getrandom::u32().map_or(0, |random| random.to_le_bytes()[0]);
                let failure = Failure { count: self.failed, refusal: error.is_refusal(), told, chance };
                let pause = schedule::pause(&self.acme.pace, failure);
                self.rests_until = Instant::now() + pause;
                let error = chain(&error);
                // Without the storage nothing was asked of the CA either, and `error` says what is wrong with it.
                if let Some(storage) = &storage {
                    let pause = Pause { failures: self.failed, lasts: pause, refused: failure.refusal, why: &error };
                    self.kept = rest::keep(self.whose(), storage, &settings, pause).or(self.kept);
                }
                self.tell(pause, &error);
            }
        }
    }

    fn tell(&self, pause: Duration, error: &str) {
        let (listener, host, attempt, retry_s) = (&*self.listener, &*self.name, self.failed, pause.as_secs());
        match self.until_due().map(|(_, days)| days) {
            Some(days @ 0..) => {
                tracing::warn!(
                    listener,
                    host,
                    attempt,
                    retry_s,
                    days,
                    error = %Escaped(error),
                    "certificate not renewed; the old one goes on serving"
                );
            }
            _ => tracing::error!(
                listener,
                host,
                attempt,
                retry_s,
                error = %Escaped(error),
                "no certificate for this host; TLS handshakes for it fail"
            ),
        }
    }

    async fn renew(&mut self, storage: &Storage) -> Result<Done, Failed> {
        let failed = |error| Failed { error, told: None };
        let before = self.until_due();
        if before.is_some_and(|(wait, _)| !wait.is_zero()) {
            // Ours, if there is one, is the older.
            self.unsaved = None;
            progress::forget(storage, &self.name);
            return Ok(Done::ByAnother);
        }
        let client = order::client(&self.acme).map_err(|error| failed(error.into()))?;
        let challenges = Arc::clone(&self.challenges);
        let (acme, name) = (Arc::clone(&self.acme), self.name.clone());
        let ordering = Ordering { acme: &acme, host: &name, storage, challenges: &challenges, client: &client };
        let pem = match self.unsaved.take() {
            Some(pem) => pem,
            None => self.order(&ordering, before.map(|(_, days)| days), &client).await?,
        };
        match ordering.keep(&pem) {
            Ok(validity) => {
                progress::forget(storage, &self.name);
                let days = validity.days_left(SystemTime::now());
                let file = self.acme.file(&self.name);
                let file = file.display();
                tracing::info!(listener = %self.listener, host = %self.name, days, %file, "certificate issued");
                Ok(Done::Issued)
            }
            Err(error) => {
                if matches!(error, OrderError::Storage(_)) {
                    self.unsaved = Some(pem);
                } else {
                    // It would come to the same.
                    progress::forget(storage, &self.name);
                }
                Err(failed(error))
            }
        }
    }

    async fn order(
        &mut self,
        ordering: &Ordering<'_>,
        days_left: Option<i64>,
        client: &Client,
    ) -> Result<String, Failed> {
        // Whoever dies over it has asked the CA all the same, and must not ask anew at every start.
        let failure = Failure { count: self.failed.saturating_add(1), refusal: false, told: None, chance: 0 };
        let lasts = schedule::pause(&self.acme.pace, failure);
        let pause = Pause { failures: failure.count, lasts, refused: false, why: rest::UNFINISHED };
        self.kept = rest::keep(self.whose(), ordering.storage, &self.whose().settings(), pause).or(self.kept);
        tracing::info!(
            listener = %self.listener,
            host = %self.name,
            directory = %self.acme.directory,
            challenge = self.acme.challenge.name(),
            attempt = failure.count,
            days_left,
            "ordering a certificate"
        );
        // Boxed: the states of an order are many, and none is in a hurry.
        let order: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(ordering.order());
        let ordered = timeout(ATTEMPT, order).await.unwrap_or(Err(OrderError::Timeout(ATTEMPT)));
        ordered.map_err(|error| Failed { error, told: client.told_to_wait() })
    }
}

enum Done {
    Issued,
    /// Another process did it.
    ByAnother,
}

struct Failed {
    error: OrderError,
    /// How long the CA told us to stay away.
    told: Option<Duration>,
}

/// Zero before 1970.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The message with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
