//! Certificates of clients: who is let in, what upstreams are told, and that nobody else can tell it.

mod chains;

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion, version};
use switchgate::net::handshakes::Ending;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Client, Proxy, Upstream, accepted,
    authority::{Authority, Issued, replace},
    frames::{MASK, TEXT, frame},
    handshake,
    process::Process,
    tls_client::{self, development_root, trusting},
};

/// A client's certificate.
fn issue(ca: &Authority, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    ca.issue_with(&["alice.example"], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, "alice");
        params.subject_alt_names.push(SanType::URI("spiffe://example/alice".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(params);
    })
}

fn client(
    folder: &Path,
    identity: Option<&Issued>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let builder = trusting(&[development_root(folder)], versions);
    Arc::new(match identity {
        Some(identity) => {
            let (chain, key) = identity.pair();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];
const V12: &[&SupportedProtocolVersion] = &[&version::TLS12];
const V13: &[&SupportedProtocolVersion] = &[&version::TLS13];

async fn connect(address: &str, config: &Arc<ClientConfig>) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    Ok(Client::new(tls_client::connect(address, "localhost", Arc::clone(config)).await?))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Whether a request is answered. In TLS 1.3 a client hears of its refusal only after its own handshake.
async fn is_let_in(address: &str, config: &Arc<ClientConfig>) -> bool {
    let Ok(mut client) = connect(address, config).await else { return false };
    use tokio::io::AsyncWriteExt;
    // The refusal may be here before the request is out.
    let _ = client.stream.write_all(GET.as_bytes()).await;
    client.head_or_end().await.is_some_and(|head| head.starts_with("HTTP/1.1 200"))
}

fn tls(client: &str) -> String {
    format!(
        "[listener.tls]\ncertificate = \"leaf.pem\"\nkey = \"leaf.key\"\ndevelopment = true\n\
         [listener.tls.client]\n{client}\n"
    )
}

fn gate(client: &str, url: &str, rest: &str) -> String {
    format!(
        "{rest}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{}[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n",
        tls(client)
    )
}

#[tokio::test]
async fn who_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, stranger) = (Authority::new("clients"), Authority::new("clients"));
    ca.write(&folder.path().join("clients.pem"));
    replace(&folder.path().join("crl.pem"), &ca.crl(&[13], 1, 2100));
    let good = issue(&ca, 1, |_| {});
    let revoked = issue(&ca, 13, |_| {});
    let foreign = issue(&stranger, 1, |_| {});
    let expired = issue(&ca, 2, |params| params.not_after = date_time_ymd(2021, 1, 1));
    let server = issue(&ca, 3, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for (mode, without) in [("required", false), ("optional", true), ("off", true)] {
        let config = format!("mode = \"{mode}\"\nca = \"clients.pem\"\ncrl = \"crl.pem\"");
        let proxy = Proxy::start_in(&gate(&config, "builtin:echo", ""), folder.path()).await;
        let address = proxy.addresses[0].to_string();
        let off = mode == "off";
        for versions in [V12, V13] {
            for (what, identity, expected) in [
                ("good", Some(&good), true),
                ("none", None, without),
                ("revoked", Some(&revoked), off),
                ("foreign", Some(&foreign), off),
                ("expired", Some(&expired), off),
                ("for servers", Some(&server), off),
            ] {
                let config = client(folder.path(), identity, versions);
                assert_eq!(is_let_in(&address, &config).await, expected, "{mode}: {what}, {versions:?}");
            }
        }
        proxy.counted(Ending::NoCertificate, if without { 0 } else { 2 }).await;
        proxy.counted(Ending::BadCertificate, if off { 0 } else { 8 }).await;
        let all: u64 = Ending::ALL.map(|ending| proxy.handshakes[0].ended(ending)).iter().sum();
        assert_eq!(all, 12, "{mode}");
    }
}

#[tokio::test]
async fn the_upstream_is_told_and_nobody_else_can_tell_it() {
    const FORGED: &str = "Client-Cert: :AAAA:\r\nclient-cert-subject: CN=root\r\nClient-Cert-Subject: CN=root\r\n\
                          client_cert_subject: CN=root\r\nClient_Cert-San: DNS:root\r\nClient-Cert-Fingerprint: 00\r\n\
                          Client-Cert-Chain: :AAAA:\r\nConnection: client-cert-subject\r\n";
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("clients");
    ca.write(&folder.path().join("clients.pem"));
    let alice = issue(&ca, 1, |_| {});
    let mut upstream = Upstream::start().await;
    // Also what a trusted proxy says is not what was verified here.
    let config =
        gate("mode = \"optional\"\nca = \"clients.pem\"", &upstream.url, "trusted_proxies = [\"127.0.0.0/8\"]");
    let proxy = Proxy::start_in(&config, folder.path()).await;
    let told = |head: &str| -> Vec<String> {
        let lines = head.lines().map(str::to_ascii_lowercase);
        lines.filter(|line| line.replace('_', "-").starts_with("client-cert")).collect()
    };
    let secure = proxy.addresses[0].to_string();
    let mut with = connect(&secure, &client(folder.path(), Some(&alice), BOTH)).await.unwrap();
    let mut without = connect(&secure, &client(folder.path(), None, BOTH)).await.unwrap();
    let mut plain = Client::new(TcpStream::connect(proxy.addresses[1]).await.unwrap());

    for round in ["first", "second on the connection"] {
        with.send(GET.replace("\r\n\r\n", &format!("\r\n{FORGED}\r\n"))).await;
        let mut seen = upstream.accept().await;
        let mut told = told(&seen.head().await);
        told.sort_unstable();
        let [fingerprint, san, subject, certificate] = told.as_slice() else { panic!("{round}: {told:?}") };
        use base64::{Engine, engine::general_purpose::STANDARD};
        let expected = format!("client-cert: :{}:", STANDARD.encode(alice.certificate.der())).to_ascii_lowercase();
        assert_eq!(*certificate, expected);
        assert_eq!(fingerprint.len(), "client-cert-fingerprint: ".len() + 64, "{fingerprint}");
        assert_eq!(san, "client-cert-san: dns:alice.example, uri:spiffe://example/alice");
        assert_eq!(subject, "client-cert-subject: cn=alice,o=example\\, inc.");
        seen.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(with.answer().await.status, 204, "{round}");
    }
    with.send(handshake(FORGED.split_once("Connection").unwrap().0)).await;
    let mut seen = upstream.accept().await;
    assert_eq!(told(&seen.head().await).len(), 4);
    seen.send(accepted("")).await;
    assert_eq!(with.answer().await.status, 101);

    without.send(GET.replace("\r\n\r\n", &format!("\r\n{FORGED}\r\n"))).await;
    assert_eq!(told(&upstream.accept().await.head().await), [""; 0]);
    plain.send(GET.replace("\r\n\r\n", &format!("\r\n{FORGED}\r\n"))).await;
    assert_eq!(told(&upstream.accept().await.head().await), [""; 0]);
}

#[tokio::test]
async fn the_latest_of_several_crls_counts_wherever_it_stands() {
    let ca = Authority::new("clients");
    let (bob, alice) = (issue(&ca, 300, |_| {}), issue(&ca, 7, |_| {}));
    // The one in front has ended, which says nothing once there is a later one.
    let (old, new) = (ca.crl(&[], 255, 2021), ca.crl(&[7], 256, 2100));
    for order in [[&old, &new], [&new, &old]] {
        for one_file in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            ca.write(&folder.path().join("clients.pem"));
            let parts =
                if one_file { [order.map(String::as_str).concat(), new.clone()] } else { order.map(Clone::clone) };
            for (file, text) in ["a.crl", "b.crl"].into_iter().zip(&parts) {
                replace(&folder.path().join(file), text);
            }
            let crls = if one_file { "\"a.crl\"" } else { "[\"a.crl\", \"b.crl\"]" };
            let config = gate(&format!("ca = \"clients.pem\"\ncrl = {crls}"), "builtin:echo", "");
            let mut process = Process::start_in(&config, folder).await;
            let (folder, address) = (process.folder.path().to_owned(), process.addresses[0].clone());
            assert!(is_let_in(&address, &client(&folder, Some(&bob), BOTH)).await);
            assert!(!is_let_in(&address, &client(&folder, Some(&alice), BOTH)).await, "{order:?}");
            process.terminate();
            assert_eq!(process.exit_code().await, Some(0));
            assert_eq!(process.count("CRL has ended: no client of its CA is let in; renew it"), 0);
        }
    }
}

#[tokio::test]
async fn a_new_crl_holds_for_the_next_handshake_and_a_ticket_does_not_get_round_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, next) = (Authority::new("clients"), Authority::new("next clients"));
    ca.write(&folder.path().join("clients.pem"));
    replace(&folder.path().join("a.crl"), &ca.crl(&[], 1, 2100));
    replace(&folder.path().join("b.crl"), &next.crl(&[], 1, 2100));
    let alice = issue(&ca, 7, |_| {});
    let config = gate("ca = \"clients.pem\"\ncrl = [\"a.crl\", \"b.crl\"]", "builtin:echo", "");
    let mut process = Process::start_in(&config, folder).await;
    let folder = process.folder.path().to_owned();
    let address = process.addresses[0].clone();
    let configs = [V12, V13].map(|versions| client(&folder, Some(&alice), versions));
    for config in &configs {
        for _ in 0..2 {
            let mut client = connect(&address, config).await.unwrap();
            assert_eq!(client.ask(GET).await.status, 200);
            let kind = client.stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full), "a resumed session is not checked again");
        }
    }
    let mut live = connect(&address, &configs[1]).await.unwrap();
    assert_eq!(live.ask(handshake("").replacen("Host: gate.test", "Host: localhost", 1)).await.status, 101);
    let opened = process.event("websocket opened").await;
    assert_eq!(opened["client_subject"], "CN=alice,O=Example\\, Inc.");

    // What cannot be used leaves the old one, in one line.
    replace(&folder.join("a.crl"), "no CRL");
    process.hang_up();
    let refused = process.event("new client CA or CRL refused; the old ones go on holding").await;
    assert!(refused["error"].as_str().unwrap().contains("a.crl"), "{refused}");
    assert!(is_let_in(&address, &configs[0]).await);

    // Without a signal, by the file alone; who was let in stays.
    replace(&folder.join("a.crl"), &ca.crl(&[7], 1, 2100));
    process.event("certificates read again; the next TLS handshake gets them").await;
    for config in &configs {
        assert!(!is_let_in(&address, config).await);
    }
    let failed = process.event("TLS handshake failed").await;
    assert!(failed["error"].as_str().unwrap().contains("Revoked"), "{failed}");
    live.send(frame(TEXT, b"still here", MASK)).await;
    assert_eq!(live.frame().await.unwrap().payload, b"still here");

    // A list that has ended lets nobody in.
    replace(&folder.join("a.crl"), &ca.crl(&[], 1, 2021));
    process.hang_up();
    process.event("CRL has ended: no client of its CA is let in; renew it").await;
    assert!(!is_let_in(&address, &configs[1]).await);

    // Another CA.
    next.write(&folder.join("clients.pem"));
    process.hang_up();
    process.event("certificates read again; the next TLS handshake gets them").await;
    let bob = issue(&next, 7, |_| {});
    assert!(is_let_in(&address, &client(&folder, Some(&bob), BOTH)).await);
    assert!(!is_let_in(&address, &configs[1]).await);
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_one_line_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("clients");
    ca.write(&folder.path().join("clients.pem"));
    std::fs::write(folder.path().join("garbage.pem"), "no PEM at all\n").unwrap();
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    std::fs::write(folder.path().join("broken.pem"), broken).unwrap();
    for (client, words) in [
        ("ca = \"absent.pem\"", ["absent.pem", "No such file"]),
        ("ca = \"garbage.pem\"", ["garbage.pem", "BEGIN CERTIFICATE"]),
        ("ca = \"clients.pem\"\ncrl = \"absent.pem\"", ["absent.pem", "No such file"]),
        ("ca = \"clients.pem\"\ncrl = \"clients.pem\"", ["clients.pem", "BEGIN X509 CRL"]),
        ("ca = \"clients.pem\"\ncrl = [\"broken.pem\"]", ["broken.pem", "issue it anew"]),
    ] {
        let text = gate(client, "builtin:echo", "");
        let model = switchgate::config::parse(&text, &folder.path().join("proxy.toml")).unwrap();
        for error in [switchgate::server::check(&model).unwrap_err(), switchgate::server::bind(&model).unwrap_err()] {
            let text = error.to_string();
            assert!(text.lines().count() == 1 && words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}

#[test]
fn mistakes_in_the_config_have_a_place_and_a_cure() {
    let of = |client: &str| {
        let text = gate(client, "builtin:echo", "");
        switchgate::config::parse(&text, Path::new("p.toml")).unwrap_err().to_string()
    };
    for (client, expected) in [
        ("ca = \"a\"\nmode = \"must\"", "p.toml:10:8: unknown value `must`; expected one of: off, optional, required"),
        (
            "mode = \"optional\"",
            "p.toml:8:1: `client` has no `ca`; name the PEM file with the CAs that issue clients' certificates",
        ),
        ("ca = \"a\"\ncrl = []", "p.toml:10:7: `crl` names no file; leave it out where nothing is revoked"),
    ] {
        assert_eq!(of(client), expected, "{client}");
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_a_ca_is_explained_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::above("clients");
    ca.write(&folder.path().join("clients.pem"));
    let config = gate("ca = \"clients.pem\"", "builtin:echo", "");
    let mut process = Process::start_in(&config, folder).await;
    let own = issue(&ca, 1, |params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let config = client(process.folder.path(), Some(&own), V13);
    assert!(!is_let_in(&process.addresses[0].clone(), &config).await);
    let failed = process.event("TLS handshake failed").await;
    assert_eq!(failed["reason"], "bad-certificate", "{failed}");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("CA:TRUE") && error.contains("CA:FALSE") && !error.contains("Other"), "{error}");
}
