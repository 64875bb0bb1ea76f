//! A throw-away certificate authority, what it issues and revokes, and TLS upstreams that show it.

use std::{path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Client;

pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Issued {
    /// One that is its own root.
    pub(crate) fn by_itself(names: &[&str]) -> Self {
        Self::by_itself_with(KeyPair::generate().unwrap(), names)
    }

    pub(crate) fn by_itself_with(key: KeyPair, names: &[&str]) -> Self {
        Self { certificate: params(names).self_signed(&key).unwrap(), key }
    }

    /// Writes `NAME.key`, then `NAME.pem`: for a moment the two do not belong together.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        replace(&folder.join(format!("{name}.key")), &self.key.serialize_pem());
        replace(&folder.join(format!("{name}.pem")), &self.certificate.pem());
    }

    /// As rustls wants it.
    pub(crate) fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        (vec![self.certificate.der().clone()], key)
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name, 0), KeyPair::generate().unwrap()).unwrap())
    }

    /// One that may have another below it.
    pub(crate) fn above(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name, 1), KeyPair::generate().unwrap()).unwrap())
    }

    /// One whose own certificate is of this one.
    pub(crate) fn below(&self, name: &str, serial: u64) -> Self {
        let mut params = Self::params(name, 0);
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn params(name: &str, below: u8) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Its own certificate.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Writes its own certificate.
    pub(crate) fn write(&self, path: &Path) {
        replace(path, &self.0.pem());
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub(crate) fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// The CRL of this number: these serials, good until this year.
    pub(crate) fn crl(&self, serials: &[u64], number: u64, next_update: i32) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|&serial| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A server that wants certificates of this authority from its clients.
    pub(crate) fn demanding(&self, shown: &Issued, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let (chain, key) = shown.pair();
        builder.with_client_cert_verifier(verifier.build().unwrap()).with_single_cert(chain, key).unwrap()
    }
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Moves a text in place: whoever looks sees the old one or all of the new one.
pub(crate) fn replace(path: &Path, text: &str) {
    let passing = path.with_extension("passing");
    std::fs::write(&passing, text).unwrap();
    std::fs::rename(passing, path).unwrap();
}

/// A server that takes every client.
pub(crate) fn showing(shown: &Issued) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (chain, key) = shown.pair();
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// Serves each connection whose handshake succeeds; answers the port.
pub(crate) async fn serve<F, S>(config: ServerConfig, answer: F) -> u16
where
    F: Fn(Client<TlsStream<TcpStream>>) -> S + Send + Sync + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer));
    raw(move |stream| {
        let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(Client::new(stream)).await;
            }
        }
    })
    .await
}

/// Plays each connection; answers the port.
pub(crate) async fn raw<F, S>(play: F) -> u16
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(play(stream));
        }
    });
    port
}

/// Answers requests on one connection until it ends: a handshake with 101, everything else with `ok`.
pub(crate) async fn web(mut client: Client<TlsStream<TcpStream>>) {
    while let Some(head) = client.head_or_end().await {
        if head.contains("Upgrade: websocket") {
            client.send(super::accepted("")).await;
            client.rest().await;
            return;
        }
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
}
