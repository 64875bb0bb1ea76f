//! What a listener asks of an ACME server, and how patient it is with it.

use std::{path::PathBuf, time::Duration};

use super::model::PairFiles;

/// Certificates from a CA that speaks ACME (RFC 8555), one for each host.
#[derive(Clone, Debug)]
pub struct Acme {
    /// `https` URL of the CA's directory.
    pub directory: String,
    /// Whom the CA writes to.
    pub contact: Vec<String>,
    /// Hosts, in lower case; at least one.
    pub hosts: Vec<String>,
    /// How the CA sees that they are ours.
    pub challenge: Challenge,
    /// Folder of what is kept, for this directory alone: a change of the CA begins anew.
    pub storage: PathBuf,
    /// Root to trust when talking to the CA; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// Whom the account belongs to.
    pub external_account: Option<ExternalAccount>,
    /// How patient it is.
    pub pace: Pace,
}

impl Acme {
    /// The file of one host. Chain and key are one file, so that no crash parts them.
    pub fn file(&self, host: &str) -> PathBuf {
        self.storage.join(format!("{host}.pem"))
    }

    /// The files of all hosts, in their order.
    pub fn pairs(&self) -> Vec<PairFiles> {
        let files = self.hosts.iter().map(|host| self.file(host));
        files.map(|file| PairFiles { certificate: file.clone(), key: file }).collect()
    }
}

/// How a CA sees that a host is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 §8.3.
    Http01,
}

impl Challenge {
    /// As the RFCs and the config write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// What binds an account to one that the CA knows by other means (RFC 8555 §7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The id of its key.
    pub id: String,
    /// File with the key, in base64url.
    pub key: PathBuf,
}

/// How patient we are with a CA. Not for tuning: CAs count attempts, and shut out those who make too many.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// First wait after a refusal; it doubles with each further one. Public CAs take five failed validations an hour.
    pub after_refusal: Duration,
    /// The same where nobody answered, or the storage failed: nothing was counted.
    pub after_fault: Duration,
    /// Longest of these waits, before chance adds up to a quarter.
    pub longest: Duration,
    /// Longest `Retry-After` that is believed.
    pub longest_told: Duration,
    /// Least time between two certificates for a host, however short they live.
    pub between: Duration,
    /// How often the storage is looked at when nothing is due: another process may renew, and clocks jump.
    pub look: Duration,
    /// Longest wait for the storage while another process orders.
    pub locked: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self {
            after_refusal: 5 * MINUTE,
            after_fault: Duration::from_secs(10),
            longest: 6 * HOUR,
            longest_told: 7 * 24 * HOUR,
            between: HOUR,
            look: HOUR,
            locked: Duration::from_secs(10),
        }
    }
}
