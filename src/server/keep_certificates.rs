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
    config::model::{ClientAuth, ListenerTls, PairFiles},
    net::{
        certificates::{Certificates, Stamp, Validity},
        server_tls::ServerTls,
    },
};

/// How often the files are looked at. A change counts when two looks have found the same: renewal tools write the
/// certificate and its key one after the other.
const LOOK: Duration = Duration::from_secs(2);

/// Days before the end from which on a certificate is warned of.
const WARN_DAYS: i64 = 14;

/// The same for this one: what lives for days only is renewed late, and in its last third it is late indeed.
fn warn_days(validity: &Validity) -> i64 {
    let begun = validity.days_left(validity.not_before);
    WARN_DAYS.min(begun / 3)
}

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
    clients: Option<Clients>,
    /// As they were when they were last read, whatever came of that.
    judged: Stamp,
    /// As they were at the last look.
    seen: Stamp,
}

/// What a listener's clients are checked against.
#[derive(Debug)]
struct Clients {
    auth: ClientAuth,
    offer: Arc<ServerTls>,
    /// Whether the log was told that a CRL has ended.
    told_ended: bool,
}

/// Of all files that a listener's TLS is made of.
pub(super) fn stamp(files: &ListenerTls) -> Stamp {
    Stamp::of(&files.files(), files.clients.iter().flat_map(ClientAuth::files))
}

impl Kept {
    /// `stamp` was taken before the files were read: what changes meanwhile is seen later.
    pub(super) fn new(holder: Holder, files: Vec<PairFiles>, certificates: Arc<Certificates>, stamp: Stamp) -> Self {
        Self { holder, files, certificates, clients: None, judged: stamp.clone(), seen: stamp }
    }

    /// The same with the check of a listener's clients, where it has one.
    pub(super) fn with_clients(self, auth: Option<&ClientAuth>, offer: &Arc<ServerTls>) -> Self {
        let clients = auth.map(|auth| Clients { auth: auth.clone(), offer: Arc::clone(offer), told_ended: false });
        Self { clients, ..self }
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(&self.files, self.clients.iter().flat_map(|clients| clients.auth.files()))
    }

    /// Reads them again if they have changed and the change is complete.
    fn look(&mut self) {
        let now = self.stamp();
        if now != self.judged && now == self.seen {
            self.read();
        }
        self.seen = now;
        if self.clients.as_ref().is_some_and(|clients| !clients.told_ended) {
            self.tell_crls(false);
        }
    }

    fn read(&mut self) {
        self.judged = self.stamp();
        let (listener, upstream) = (self.holder.listener(), self.holder.upstream());
        // All of it before anything is said: whoever reads that it was done can rely on it.
        let clients = self.clients.as_ref().map_or(Ok(()), |clients| clients.offer.reload_clients());
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
        if let Err(error) = clients {
            tracing::error!(listener, %error, "new client CA or CRL refused; the old ones go on holding");
        }
        self.tell_crls(true);
    }

    /// Says until when each CRL is good; without `all` those only that have ended.
    fn tell_crls(&mut self, all: bool) {
        let listener = self.holder.listener();
        let Some(clients) = &mut self.clients else { return };
        clients.told_ended = false;
        for crl in clients.offer.crls() {
            let file = crl.file.display();
            match crl.next_update.duration_since(SystemTime::now()) {
                Ok(left) if all => {
                    let hours = left.as_secs() / 3600;
                    tracing::info!(listener, crl = %file, hours, "CRL");
                }
                Ok(_) => {}
                Err(_) => {
                    clients.told_ended = true;
                    tracing::error!(listener, crl = %file, "CRL has ended: no client of its CA is let in; renew it");
                }
            }
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
                _ if days < warn_days(&validity) => {
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
    kept.iter_mut().for_each(|one| {
        one.tell(i64::MAX);
        one.tell_crls(true);
    });
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

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_lives_for_days_is_not_warned_of_from_its_first_day_on() {
        let of = |days: u64| {
            let not_after = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            Validity { certificate: PathBuf::new(), names: Vec::new(), not_before: UNIX_EPOCH, not_after }
        };
        for (days, warned_below) in [(398, 14), (90, 14), (42, 14), (30, 10), (6, 2), (1, 0)] {
            assert_eq!(warn_days(&of(days)), warned_below, "{days}");
        }
    }
}
