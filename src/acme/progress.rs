//! The order that is about to be finalized, kept with its key: after a crash it is taken up instead of made a second time.

use std::time::Duration;

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    since_1970,
    storage::{Staged, Storage, StorageError},
};
use crate::protocol::log_text::Escaped;

/// How often one is taken up before another is made: with the pauses between, the better part of an hour for a CA that
/// is down, and an end for whatever goes wrong each time.
const MOST: u64 = 8;

/// Oldest that is taken up: its certificate may be as old.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);

/// An order and the key of its certificate.
pub(super) struct Progress {
    account: String,
    pub(super) url: String,
    pub(super) key: KeyPair,
    since_s: u64,
    taken_up: u64,
}

fn name(host: &str) -> String {
    format!("{host}.order.json")
}

impl Progress {
    pub(super) fn new(account: &str, url: &str, key: KeyPair) -> Self {
        Self { account: account.to_owned(), url: url.to_owned(), key, since_s: since_1970().as_secs(), taken_up: 0 }
    }

    /// Keeps it. Where that fails, the order goes on all the same: a crash is rarer than a folder with a fault.
    pub(super) fn keep(&self, storage: &Storage, host: &str) {
        if let Err(error) = self.write(storage, host) {
            tracing::warn!(host, %error, "the order cannot be kept; after a crash another would be made");
            // What is there was not counted: it must not be taken up for ever.
            forget(storage, host);
        }
    }

    fn write(&self, storage: &Storage, host: &str) -> Result<(), StorageError> {
        let text = json!({
            "host": host, "account": self.account, "order": self.url, "key": self.key.serialize_pem(),
            "since_s": self.since_s, "taken_up": self.taken_up,
        });
        storage.stage(&name(host), format!("{text:#}\n").as_bytes()).and_then(Staged::commit)
    }

    /// What an earlier attempt left, perhaps in another process; `None` where another order has to be made.
    pub(super) fn resume(storage: &Storage, host: &str, account: &str) -> Option<Self> {
        let content = match storage.read(&name(host)) {
            Ok(content) => content?,
            Err(error) => {
                give_up(storage, host, &error.to_string());
                return None;
            }
        };
        let mut progress = match Self::parse(&content, host, account, since_1970()) {
            Ok(progress) => progress,
            Err(why) => {
                give_up(storage, host, why);
                return None;
            }
        };
        let in_place = storage.read(&format!("{host}.pem")).ok().flatten().unwrap_or_default();
        if String::from_utf8_lossy(&in_place).contains(progress.key.serialize_pem().trim()) {
            // A crash came between the certificate and the end of its order; that one is served already.
            forget(storage, host);
            return None;
        }
        // Counted before it is tried, so that not even what ends the process is tried for ever.
        progress.taken_up += 1;
        progress.keep(storage, host);
        Some(progress)
    }

    fn parse(content: &[u8], host: &str, account: &str, now: Duration) -> Result<Self, &'static str> {
        const BROKEN: &str = "its file is broken";
        let value: Value = serde_json::from_slice(content).map_err(|_| BROKEN)?;
        let number = |name| value.get(name).and_then(Value::as_u64).ok_or(BROKEN);
        let text = |name| value.get(name).and_then(Value::as_str).ok_or(BROKEN);
        let (since_s, taken_up, url) = (number("since_s")?, number("taken_up")?, text("order")?);
        if text("host")? != host {
            return Err("it is of another host");
        }
        if text("account")? != account {
            return Err("it is of another account");
        }
        if taken_up >= MOST {
            return Err("it was taken up often enough");
        }
        if now.saturating_sub(Duration::from_secs(since_s)) > OLDEST {
            return Err("it is older than a day");
        }
        if !url.starts_with("https://") || url.parse::<http::Uri>().is_err() {
            return Err(BROKEN);
        }
        let key = KeyPair::from_pem(text("key")?).map_err(|_| BROKEN)?;
        Ok(Self { account: account.to_owned(), url: url.to_owned(), key, since_s, taken_up })
    }
}

/// Whether one is kept that nobody has taken up yet.
pub(super) fn is_fresh(storage: &Storage, host: &str) -> bool {
    let content = storage.read(&name(host)).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&content).is_ok_and(|value: Value| value.get("taken_up") == Some(&json!(0)))
}

/// Forgets the one that is kept, and says why.
pub(super) fn give_up(storage: &Storage, host: &str, why: &str) {
    tracing::warn!(host, error = %Escaped(why), "the order of an earlier attempt cannot be taken up; another is made");
    forget(storage, host);
}

/// Forgets the one that is kept, if one is.
pub(super) fn forget(storage: &Storage, host: &str) {
    if let Err(error) = storage.remove(&name(host)) {
        tracing::warn!(host, %error, "an order that is over cannot be forgotten");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sound_order_of_ours_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::take(folder.path()).unwrap().unwrap();
        let key = KeyPair::generate().unwrap();
        let pem = key.serialize_pem();
        let progress =
            Progress { account: "me".into(), url: "https://ca.test/1".into(), key, since_s: 100_000, taken_up: 7 };
        progress.keep(&storage, "a.test");
        let sound: Value = serde_json::from_slice(&storage.read("a.test.order.json").unwrap().unwrap()).unwrap();
        let parse = |value: &Value, now| {
            let parsed = Progress::parse(value.to_string().as_bytes(), "a.test", "me", Duration::from_secs(now));
            parsed.map(|parsed| (parsed.url, parsed.taken_up, parsed.key.serialize_pem()))
        };
        // Also where the clock was set back.
        for now in [0, 100_000, 186_400] {
            assert_eq!(parse(&sound, now).unwrap(), ("https://ca.test/1".to_owned(), 7, pem.clone()));
        }
        assert_eq!(parse(&sound, 186_401).unwrap_err(), "it is older than a day");
        for (name, other, why) in [
            ("host", json!("b.test"), "it is of another host"),
            ("account", json!("you"), "it is of another account"),
            ("taken_up", json!(8), "it was taken up often enough"),
            ("taken_up", json!(-1), "its file is broken"),
            ("since_s", Value::Null, "its file is broken"),
            ("order", json!("http://ca.test/1"), "its file is broken"),
            ("order", json!("https://ca .test/1"), "its file is broken"),
            ("key", json!(pem.replace("END", "AND")), "its file is broken"),
        ] {
            let mut value = sound.clone();
            value[name] = other;
            assert_eq!(parse(&value, 100_000).unwrap_err(), why, "{name}");
        }
        assert_eq!(parse(&json!([]), 100_000).unwrap_err(), "its file is broken");
    }

    #[test]
    fn the_order_of_the_certificate_that_serves_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::take(folder.path()).unwrap().unwrap();
        let progress = Progress::new("me", "https://ca.test/1", KeyPair::generate().unwrap());
        progress.keep(&storage, "a.test");
        assert_eq!(Progress::resume(&storage, "a.test", "me").unwrap().taken_up, 1);
        assert_eq!(Progress::resume(&storage, "a.test", "me").unwrap().taken_up, 2);
        let pem = format!("{}chain", progress.key.serialize_pem());
        storage.stage("a.test.pem", pem.as_bytes()).unwrap().commit().unwrap();
        assert!(Progress::resume(&storage, "a.test", "me").is_none());
        assert!(storage.read("a.test.order.json").unwrap().is_none());
    }
}
