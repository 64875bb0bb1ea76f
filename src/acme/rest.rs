//! The pause after failures, kept beside the certificate: a process that is started over and over is as patient as one
//! that lives.

use std::{path::Path, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    progress,
    schedule::{self, Kept, Left},
    since_1970,
    storage::{self, Storage},
};
use crate::{config::model::Acme, protocol::log_text::Escaped};

/// Longest reason that is kept: what a CA says may be long.
const REASON: usize = 1000;

/// The reason for the pause that is kept while an attempt is under way.
pub(super) const UNFINISHED: &str = "an attempt was begun and did not come to its end";

/// Whose pause it is.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) listener: &'a str,
    pub(super) acme: &'a Acme,
    pub(super) host: &'a str,
}

impl Whose<'_> {
    fn name(self) -> String {
        // Two dots before the end: no host's certificate nor the account has such a name.
        format!("{}.rest.json", self.host)
    }

    /// What the operator asked for, in one word: a pause is for the same settings only.
    ///
    /// Files count by what is in them. The keys among them are not to be guessed from this.
    pub(super) fn settings(self) -> String {
        let hash = |content: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, content));
        let file = |path: &Path| std::fs::read(path).ok().map(|content| hash(&content));
        let Acme { directory, contact, challenge, ca, external_account, .. } = self.acme;
        let external = external_account.as_ref().map(|external| (&external.id, file(&external.key)));
        let ca = ca.as_deref().map(file);
        hash(json!([self.host, directory, challenge.name(), contact, ca, external]).to_string().as_bytes())
    }
}

/// What others have learned who asked for this host with this storage, or this process before it was started again: the
/// failures in a row, and how long nothing is to be tried. Logged, and never an error.
///
/// `ours` is what this process has kept last. A living process heeds what a CA refused to another, but not the faults
/// that another had on its way there. To be asked with the lock in hand: whoever has written it is no longer at work.
pub(super) fn of_others(whose: Whose<'_>, storage: &Storage, ours: Option<Kept>) -> Option<(u32, Duration)> {
    let path = whose.acme.storage.join(whose.name());
    let (listener, host, file) = (whose.listener, whose.host, path.display());
    let content = match storage.read(&whose.name()) {
        Ok(content) => content?,
        Err(error) => {
            tracing::warn!(listener, host, %error, "an earlier pause cannot be read; trying without it");
            return None;
        }
    };
    let Some(Entry { kept, refused, settings, why }) = parse(&content) else {
        tracing::warn!(listener, host, %file, "the file of an earlier pause is broken; trying without it");
        return None;
    };
    if ours.is_some_and(|ours| ours == kept || !refused) {
        return None;
    }
    if settings != whose.settings() {
        tracing::info!(listener, host, "the settings were changed since an attempt failed; trying at once");
        return None;
    }
    if why == UNFINISHED && progress::is_fresh(storage, host) {
        // It asks for no other order; and once only, for whatever ended the process may do so again.
        return Some((kept.failures, Duration::ZERO));
    }
    let Left { rest, failures, cut } = schedule::left(&whose.acme.pace, kept, since_1970());
    if cut {
        tracing::warn!(
            listener,
            host,
            %file,
            "an earlier pause ends too late to be true, as if the clock had been set back; it is shortened"
        );
    }
    if !rest.is_zero() {
        tracing::warn!(
            listener,
            host,
            failures,
            retry_s = rest.as_secs(),
            error = %Escaped(why),
            %file,
            "earlier attempts failed; their pause goes on"
        );
    }
    Some((failures, rest))
}

/// A pause that begins now, and why.
#[derive(Clone, Copy)]
pub(super) struct Pause<'a> {
    pub(super) failures: u32,
    pub(super) lasts: Duration,
    /// Whether it was the CA that said no.
    pub(super) refused: bool,
    pub(super) why: &'a str,
}

/// Keeps it. Where it cannot be written, it is known to this process alone, and the answer is `None`.
pub(super) fn keep(whose: Whose<'_>, storage: &Storage, settings: &str, pause: Pause<'_>) -> Option<Kept> {
    let kept = Kept::new(pause.failures, pause.lasts, since_1970());
    let why: String = pause.why.chars().take(REASON).collect();
    let text = json!({
        "settings": settings, "failures": kept.failures, "pause_s": kept.pause_s, "until_s": kept.until_s,
        "refused": pause.refused, "error": why,
    });
    match storage.stage(&whose.name(), format!("{text:#}\n").as_bytes()).and_then(storage::Staged::commit) {
        Ok(()) => Some(kept),
        Err(error) => {
            tracing::warn!(
                listener = whose.listener,
                host = whose.host,
                %error,
                "the pause is known to this process alone; a restart will try at once"
            );
            None
        }
    }
}

/// Forgets all failures: there is a certificate.
pub(super) fn forget(whose: Whose<'_>, storage: &Storage) {
    if let Err(error) = storage.remove(&whose.name()) {
        tracing::warn!(listener = whose.listener, host = whose.host, %error, "an earlier pause cannot be forgotten");
    }
}

/// What the file says.
struct Entry {
    kept: Kept,
    refused: bool,
    settings: String,
    why: String,
}

fn parse(content: &[u8]) -> Option<Entry> {
    let value: Value = serde_json::from_slice(content).ok()?;
    let number = |name| value.get(name).and_then(Value::as_u64);
    let text = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let failures = u32::try_from(number("failures")?).ok()?;
    let kept = Kept { failures, pause_s: number("pause_s")?, until_s: number("until_s")? };
    let refused = value.get("refused").and_then(Value::as_bool)?;
    Some(Entry { kept, refused, settings: text("settings")?, why: text("error")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_started_heeds_everything_and_who_lives_only_what_the_ca_refused_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls.acme]\ndirectory = \"https://ca.test/d\"\n\
                    hosts = \"a.test\"\nstorage = \"acme\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\n\
                    url = \"builtin:echo\"\n";
        let model = crate::config::parse(text, &folder.path().join("proxy.toml")).unwrap();
        let acme = model.listeners[0].tls.as_ref().unwrap().acme.as_ref().unwrap();
        let storage = Storage::take(&acme.storage).unwrap().unwrap();
        let whose = Whose { listener: "l", acme, host: "a.test" };
        let write = |refused, why| {
            let pause = Pause { failures: 2, lasts: Duration::from_secs(60), refused, why };
            keep(whose, &storage, &whose.settings(), pause).unwrap()
        };
        let rests = |ours| of_others(whose, &storage, ours).map(|(failures, rest)| (failures, rest.as_secs() > 50));
        assert_eq!(rests(None), None);
        for (refused, heeded) in [(false, None), (true, Some((2, true)))] {
            let last = write(refused, "why");
            let earlier = Kept { failures: 1, ..last };
            assert_eq!([rests(None), rests(Some(earlier)), rests(Some(last))], [Some((2, true)), heeded, None]);
        }

        // Once whoever has left an order waits for nothing.
        write(false, UNFINISHED);
        assert_eq!(rests(None), Some((2, true)));
        progress::Progress::new("me", "https://ca.test/1", rcgen::KeyPair::generate().unwrap())
            .keep(&storage, "a.test");
        assert_eq!(rests(None), Some((2, false)));
        progress::Progress::resume(&storage, "a.test", "me").unwrap();
        assert_eq!(rests(None), Some((2, true)));
    }
}
