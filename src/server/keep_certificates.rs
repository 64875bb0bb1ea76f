//! Certificates while the process runs: read again when they change, and told of before they end.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, time::Instant};

use super::Order;
use crate::{
    config::model::PairFiles,
    net::certificates::{Certificates, Stamp},
};

/// How often the files are looked at. A change counts when two looks have found the same: renewal tools write the
/// certificate and its key one after the other.
const LOOK: Duration = Duration::from_secs(2);

/// Days before the end from which on a certificate is warned of.
const WARN_DAYS: i64 = 14;

/// How often it is warned of again.
const REMIND: Duration = Duration::from_secs(24 * 60 * 60);

/// Who shows certificates; named in the log.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    /// A listener, to clients.
    Listener(Arc<str>),
    /// We, to an upstream.
    Upstream(Arc<str>),
}

impl Holder {
    fn listener(&self) -> Option<&str> {
        if let Self::Listener(name) = self { Some(name) } else { None }
    }

    fn upstream(&self) -> Option<&str> {
        if let Self::Upstream(name) = self { Some(name) } else { None }
    }
}

/// The certificates of one holder and what is known of their files.
#[derive(Debug)]
pub(super) struct Kept {
    holder: Holder,
    files: Vec<PairFiles>,
    certificates: Arc<Certificates>,
    /// As they were when they were last read, whatever came of that.
    judged: Stamp,
    /// As they were at the last look.
    seen: Stamp,
}

impl Kept {
    /// `stamp` was taken before the files were read: what changes meanwhile is seen later.
    pub(super) fn new(holder: Holder, files: Vec<PairFiles>, certificates: Arc<Certificates>, stamp: Stamp) -> Self {
        Self { holder, files, certificates, judged: stamp.clone(), seen: stamp }
    }

    /// Reads them again if they have changed and the change is complete.
    fn look(&mut self) {
        let now = Stamp::of(&self.files);
        if now != self.judged && now == self.seen {
            self.read();
        }
        self.seen = now;
    }

    fn read(&mut self) {
        self.judged = Stamp::of(&self.files);
        let (listener, upstream) = (self.holder.listener(), self.holder.upstream());
        match self.certificates.reload(&self.files) {
            Ok(()) => {
                tracing::info!(listener, upstream, "certificates read again; the next TLS handshake gets them");
                self.tell(i64::MAX);
            }
            Err(error) => tracing::error!(
                listener,
                upstream,
                %error,
                "new certificates refused; the old ones go on serving"
            ),
        }
    }

    /// Says how long those are good that have no more than `most` days left.
    fn tell(&self, most: i64) {
        let (listener, upstream) = (self.holder.listener(), self.holder.upstream());
        for validity in self.certificates.validities() {
            let days = validity.days_left(SystemTime::now());
            let certificate = validity.certificate.display();
            match days {
                _ if days > most => {}
                ..0 => {
                    tracing::error!(listener, upstream, %certificate, days, "certificate has expired; renew it");
                }
                0..WARN_DAYS => {
                    tracing::warn!(listener, upstream, %certificate, days, "certificate expires soon; renew it");
                }
                _ => {
                    tracing::info!(listener, upstream, %certificate, days, names = ?validity.names, "certificate")
                }
            }
        }
    }
}

/// Keeps them until the process is told to stop.
pub(super) async fn until_stopped(kept: Vec<Kept>, orders: &mut mpsc::Receiver<Order>) {
    // Room for one: a second wish that waits says nothing new.
    let (wish, wishes) = sync_channel(1);
    let none = kept.is_empty();
    // A thread of its own: a file system that hangs must not keep a stop from being heard.
    let started = thread::Builder::new().name("certificates".to_owned()).spawn(move || keep(kept, &wishes));
    if let Err(error) = started {
        tracing::error!(%error, "certificates will not be read again; raise the limit of threads and restart");
    }
    loop {
        match orders.recv().await {
            Some(Order::Reload) if none => tracing::info!("there is no certificate to read again"),
            Some(Order::Reload) => {
                let _one_waits_already = wish.try_send(());
            }
            Some(Order::Stop) | None => return,
        }
    }
}

/// The life of that thread; it ends when nobody can wish for anything any more.
fn keep(mut kept: Vec<Kept>, wishes: &Receiver<()>) {
    if kept.is_empty() {
        return;
    }
    kept.iter().for_each(|one| one.tell(i64::MAX));
    let mut told = Instant::now();
    loop {
        match wishes.recv_timeout(LOOK) {
            Ok(()) => kept.iter_mut().for_each(Kept::read),
            Err(RecvTimeoutError::Timeout) => kept.iter_mut().for_each(Kept::look),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if told.elapsed() >= REMIND {
            told = Instant::now();
            kept.iter().for_each(|one| one.tell(WARN_DAYS - 1));
        }
    }
}
