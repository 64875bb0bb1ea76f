//! Certificates while the process runs: read again when they change, and told of before they end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

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

/// The certificates of one listener and what is known of their files.
#[derive(Debug)]
pub(super) struct Kept {
    listener: Arc<str>,
    files: Vec<PairFiles>,
    certificates: Arc<Certificates>,
    /// As they were when they were last read, whatever came of that.
    judged: Stamp,
    /// As they were at the last look.
    seen: Stamp,
}

impl Kept {
    /// `stamp` was taken before the files were read: what changes meanwhile is seen later.
    pub(super) fn new(
        listener: Arc<str>,
        files: Vec<PairFiles>,
        certificates: Arc<Certificates>,
        stamp: Stamp,
    ) -> Self {
        Self { listener, files, certificates, judged: stamp.clone(), seen: stamp }
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
        match self.certificates.reload(&self.files) {
            Ok(()) => {
                tracing::info!(listener = %self.listener, "certificates read again; the next TLS handshake gets them");
                self.tell(i64::MAX);
            }
            Err(error) => tracing::error!(
                listener = %self.listener,
                %error,
                "new certificates refused; the old ones go on serving"
            ),
        }
    }

    /// Says how long those are good that have no more than `most` days left.
    fn tell(&self, most: i64) {
        for validity in self.certificates.validities() {
            let days = validity.days_left(SystemTime::now());
            let certificate = validity.certificate.display();
            match days {
                _ if days > most => {}
                ..0 => {
                    tracing::error!(listener = %self.listener, %certificate, days, "certificate has expired; renew it");
                }
                0..WARN_DAYS => {
                    tracing::warn!(listener = %self.listener, %certificate, days, "certificate expires soon; renew it");
                }
                _ => {
                    tracing::info!(listener = %self.listener, %certificate, days, names = ?validity.names, "certificate")
                }
            }
        }
    }
}

/// Keeps them until the process is told to stop.
pub(super) async fn until_stopped(mut kept: Vec<Kept>, orders: &mut mpsc::Receiver<Order>) {
    kept.iter().for_each(|one| one.tell(i64::MAX));
    let mut told = Instant::now();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Reload) => {
                    if kept.is_empty() {
                        tracing::info!("SIGHUP: no listener has a certificate to read again");
                    }
                    kept.iter_mut().for_each(Kept::read);
                }
                Some(Order::Stop) | None => return,
            },
            _ = looks.tick(), if !kept.is_empty() => {
                kept.iter_mut().for_each(Kept::look);
                if told.elapsed() >= REMIND {
                    told = Instant::now();
                    kept.iter().for_each(|one| one.tell(WARN_DAYS - 1));
                }
            }
        }
    }
}
