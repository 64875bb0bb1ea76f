//! Certificates of clients: who may present one, and what a verified one says in plain text.

use std::{fmt::Write as _, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    asn1_rs::{Any, Tag, ToDer},
    prelude::{FromDer, GeneralName, X509Certificate},
    x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name},
};

use super::{
    crl::{self, Crl, CrlEnd},
    hex,
    tls::{self, TlsError},
};
use crate::config::model::ClientAuth;

/// What a listener asks of its clients, as its files say now.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) crls: Vec<CrlEnd>,
}

/// Reads the CA and the lists of revoked certificates.
///
/// With lists every certificate of a chain is looked for, and one for whose CA there is no list is refused: a list that
/// was forgotten must not let everybody in.
///
/// # Errors
/// The first file that cannot be used; see [`TlsError`].
pub(super) fn check(auth: &ClientAuth) -> Result<Check, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates(&auth.ca, "CA certificate")? {
        roots.add(certificate).map_err(|source| TlsError::BadRoot { path: auth.ca.clone(), source })?;
    }
    let roots = Arc::new(roots);
    let build = |lists: Vec<CertificateRevocationListDer<'static>>, required: bool| {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), tls::provider());
        let builder = builder.with_crls(lists).enforce_revocation_expiration();
        if required { builder.build() } else { builder.allow_unauthenticated().build() }
    };
    let mut lists = Vec::new();
    for path in &auth.crls {
        let of_file = crl::read(path)?;
        // One file at a time, since rustls does not say which list it could not use.
        build(ders(&of_file), auth.required).map_err(|source| crl::bad(path, source))?;
        lists.extend(of_file);
    }
    let lists = crl::newest(lists);
    let verifier = build(ders(&lists), auth.required).map_err(|source| crl::bad(&auth.ca, source))?;
    let crls = lists.into_iter().filter_map(|list| list.end).collect();
    Ok(Check { verifier, crls })
}

fn ders(lists: &[Crl]) -> Vec<CertificateRevocationListDer<'static>> {
    lists.iter().map(|list| list.der.clone()).collect()
}

/// A client's certificate that was verified in the TLS handshake: text of visible ASCII, whatever stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// All of it.
    pub der: Box<[u8]>,
    /// Its subject (RFC 4514), where it has one.
    pub subject: Option<Box<str>>,
    /// The names it is for, as `DNS:…`, `URI:…` and `email:…`. None of them holds a comma.
    pub alternatives: Vec<Box<str>>,
    /// SHA-256 of all of it, in hex.
    pub fingerprint: Box<str>,
}

impl ClientCertificate {
    /// Reads the first of a verified chain.
    pub(super) fn of(leaf: &CertificateDer<'_>) -> Self {
        // What webpki let pass and this cannot read still has its fingerprint, and no name that might be another's.
        let parsed = X509Certificate::from_der(leaf).ok().map(|(_, parsed)| parsed);
        let subject = parsed.as_ref().map(|parsed| distinguished_name(parsed.subject()));
        Self {
            der: leaf.as_ref().into(),
            subject: subject.filter(|text| !text.is_empty()).map(Into::into),
            alternatives: parsed.as_ref().map(alternatives).unwrap_or_default(),
            fingerprint: hex(digest(&SHA256, leaf).as_ref()).into(),
        }
    }
}

fn alternatives(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(("DNS", *name)),
        GeneralName::URI(name) => Some(("URI", *name)),
        GeneralName::RFC822Name(name) => Some(("email", *name)),
        _ => None,
    });
    names.map(|(kind, name)| format!("{kind}:{}", one_of_a_list(name)).into()).collect()
}

/// A name that stays one when a list is split at its commas: `https://a/,DNS:admin` is no DNS name (CVE-2021-44532).
fn one_of_a_list(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b',' | b'\\' | b'"' => escape(&mut text, byte),
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => escape(&mut text, byte),
        }
    }
    text
}

fn escape(text: &mut String, byte: u8) {
    let _never_fails = write!(text, "\\{byte:02X}");
}

/// The subject as RFC 4514 writes it, the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<&RelativeDistinguishedName<'_>> = name.iter().collect();
    let part = |part: &RelativeDistinguishedName<'_>| part.iter().map(attribute).collect::<Vec<_>>().join("+");
    parts.into_iter().rev().map(part).collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type().to_id_string();
    let known = match kind.as_str() {
        // RFC 4514 section 3, and two that OpenSSL knows by name and clients have.
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "2.5.4.5" => "serialNumber",
        _ => return format!("{kind}=#{}", encoded(attribute.attr_value())),
    };
    match text(attribute.attr_value()) {
        Some(value) => format!("{known}={}", attribute_value(&value)),
        None => format!("{known}=#{}", encoded(attribute.attr_value())),
    }
}

/// What is no text is told as the bytes it is.
fn encoded(value: &Any<'_>) -> String {
    hex(&value.to_der_vec().unwrap_or_default())
}

fn text(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::NumericString | Tag::Ia5String | Tag::VisibleString => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// RFC 4514 section 2.4. A space at either end is written in hex: fields are trimmed on their way.
fn attribute_value(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => escape(&mut text, byte),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => escape(&mut text, byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn told(subject: &[(DnType, DnValue)], alternatives: Vec<SanType>) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.subject_alt_names = alternatives;
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::of(signed.der())
    }

    fn common_name(value: &str) -> String {
        told(&[(DnType::CommonName, DnValue::Utf8String(value.to_owned()))], Vec::new()).subject.unwrap().into()
    }

    #[test]
    fn a_subject_is_written_as_in_rfc_4514_and_says_no_more_than_it_says() {
        for (name, expected) in [
            ("alice", "CN=alice"),
            ("alice,O=Admins", "CN=alice\\,O=Admins"),
            ("alice+UID=root", "CN=alice\\+UID=root"),
            ("a\"b\\c;d<e>", "CN=a\\\"b\\\\c\\;d\\<e\\>"),
            ("#hash", "CN=\\#hash"),
            (" both ends ", "CN=\\20both ends\\20"),
            (" ", "CN=\\20"),
            ("line\r\nX-Admin: yes", "CN=line\\0D\\0AX-Admin: yes"),
            ("nul\0", "CN=nul\\00"),
            ("Zoë", "CN=Zo\\C3\\AB"),
        ] {
            assert_eq!(common_name(name), expected, "{name:?}");
        }
        let subject = [
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, DnValue::Utf8String("Example, Inc.".to_owned())),
            (DnType::CustomDnType(vec![1, 2, 3, 4]), DnValue::Utf8String("x".to_owned())),
            (DnType::CommonName, DnValue::BmpString("Ω".try_into().unwrap())),
            (DnType::OrganizationalUnitName, DnValue::TeletexString("t".try_into().unwrap())),
        ];
        let expected = "OU=#140174,CN=\\CE\\A9,1.2.3.4=#0c0178,O=Example\\, Inc.,C=DE";
        assert_eq!(told(&subject, Vec::new()).subject.as_deref(), Some(expected));
        assert_eq!(told(&[], Vec::new()).subject, None);
    }

    #[test]
    fn no_name_of_a_list_hides_another() {
        let names = vec![
            SanType::DnsName("a.example".try_into().unwrap()),
            SanType::URI("https://a/,DNS:admin.example \"\\".try_into().unwrap()),
            SanType::Rfc822Name("a@b.example".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let expected =
            ["DNS:a.example", "URI:https://a/\\2CDNS:admin.example\\20\\22\\5C", "email:a@b.example"].map(Box::from);
        assert_eq!(told(&[], names).alternatives, expected);
    }

    #[test]
    fn what_cannot_be_read_has_a_fingerprint_and_no_name() {
        let told = ClientCertificate::of(&CertificateDer::from(&b"abc"[..]));
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((&*told.fingerprint, &told.subject, told.alternatives.len()), (expected, &None, 0));
    }
}
