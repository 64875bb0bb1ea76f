//! Checks of a `ca` file before the upstream is dialed.

use std::time::{Duration, SystemTime};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::{certificate_names::CertificateNames, pinned, tls, tls::TlsError};
use crate::config::model::UpstreamTls;

const DAY: u64 = 24 * 60 * 60;

/// Returns reasons why TLS with this upstream will or may fail, each with its fix.
///
/// # Errors
/// The file cannot be read; see [`TlsError`].
pub fn warnings(upstream: &UpstreamTls, now: SystemTime) -> Result<Vec<String>, TlsError> {
    let Some(path) = &upstream.ca else { return Ok(Vec::new()) };
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let mut found = Vec::new();
    for certificate in tls::certificates(path, "CA certificate")? {
        // A certificate that cannot be parsed here is reported as an error elsewhere.
        let Ok((_, parsed)) = X509Certificate::from_der(&certificate) else { continue };
        let subject: String = parsed.subject().to_string().escape_debug().take(256).collect();
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        if end < now {
            let days = (now - end) / DAY;
            let text =
                format!("the CA certificate `{subject}` in {} expired {days} days ago; renew it", path.display());
            found.push(text);
        }
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.map(|names| CertificateNames::new(&names.value.general_names)).unwrap_or_default();
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let is_for_it = names.rank(&upstream.server_name).is_some()
            || common.into_iter().any(|name| name.eq_ignore_ascii_case(&upstream.server_name));
        if parsed.is_ca() && parsed.subject().as_raw() == parsed.issuer().as_raw() && is_for_it {
            let pin = pinned::pin(&certificate).map(|pin| pin.to_string()).unwrap_or_default();
            found.push(format!(
                "{} contains a self-signed CA certificate for `{}` itself; if the upstream presents it, TLS fails \
                 (upstream-tls-self-signed-ca): set `trust = \"pin\"` and `pin = \"{pin}\"` and omit `ca`, or issue one \
                 with `basicConstraints = CA:FALSE`",
                path.display(),
                upstream.server_name
            ));
        }
    }
    Ok(found)
}
