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
use crate::config::model::Acme;

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

/// What an earlier process left: the failures in a row, and how long nothing is to be tried. Logged, and never an error.
pub(super) fn resume(whose: Whose<'_>) -> (u32, Duration) {
    let path = whose.acme.storage.join(whose.name());
    let (listener, host, file) = (whose.listener, whose.host, path.display());
    let content = match storage::read(&path) {
        Ok(Some(content)) => content,
        Ok(None) => return (0, Duration::ZERO),
        Err(error) => {
            tracing::warn!(listener, host, %error, "an earlier pause cannot be read; trying without it");
            return (0, Duration::ZERO);
        }
    };
    let Some((kept, settings, why)) = parse(&content) else {
        tracing::warn!(listener, host, %file, "the file of an earlier pause is broken; trying without it");
        return (0, Duration::ZERO);
    };
    if settings != whose.settings() {
        tracing::info!(listener, host, "the settings were changed since an attempt failed; trying at once");
        return (0, Duration::ZERO);
    }
    if why == UNFINISHED {
        let under_way_elsewhere = matches!(Storage::take(&whose.acme.storage), Ok(None));
        if under_way_elsewhere || progress::is_kept(&whose.acme.storage, host) {
            // The next attempt waits for the lock, or asks for no other order.
            return (kept.failures, Duration::ZERO);
        }
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
            error = why,
            %file,
            "earlier attempts failed; the pause goes on after the restart"
        );
    }
    (failures, rest)
}

/// Keeps the pause that begins now. Where it cannot be written, it is known to this process alone.
pub(super) fn keep(whose: Whose<'_>, storage: &Storage, settings: &str, failures: u32, pause: Duration, why: &str) {
    let Kept { failures, pause_s, until_s } = Kept::new(failures, pause, since_1970());
    let why: String = why.chars().take(REASON).collect();
    let text = json!({
        "settings": settings, "failures": failures, "pause_s": pause_s, "until_s": until_s, "error": why,
    });
    let kept = storage.stage(&whose.name(), format!("{text:#}\n").as_bytes()).and_then(storage::Staged::commit);
    if let Err(error) = kept {
        tracing::warn!(
            listener = whose.listener,
            host = whose.host,
            %error,
            "the pause is known to this process alone; a restart will try at once"
        );
    }
}

/// Forgets all failures: there is a certificate.
pub(super) fn forget(whose: Whose<'_>, storage: &Storage) {
    if let Err(error) = storage.remove(&whose.name()) {
        tracing::warn!(listener = whose.listener, host = whose.host, %error, "an earlier pause cannot be forgotten");
    }
}

/// The pause, the settings it is for, and why it is.
fn parse(content: &[u8]) -> Option<(Kept, String, String)> {
    let value: Value = serde_json::from_slice(content).ok()?;
    let number = |name| value.get(name).and_then(Value::as_u64);
    let text = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let failures = u32::try_from(number("failures")?).ok()?;
    let kept = Kept { failures, pause_s: number("pause_s")?, until_s: number("until_s")? };
    Some((kept, text("settings")?, text("error")?))
}
