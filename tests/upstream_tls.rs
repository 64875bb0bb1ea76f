//! TLS to upstreams: whom we trust, whom they trust, and what an operator reads when they do not.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData, date_time_ymd,
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use switchgate::protocol::log_text::is_printable;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::support::{
    Client,
    authority::{self, Authority, Issued, raw, serve, showing},
    handshake,
    process::{Process, shell},
};

/// One listener, and a route `/NAME` to each upstream.
fn config(upstreams: &[(&str, u16, &str)]) -> String {
    let mut text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (name, port, keys) in upstreams {
        text.push_str(&format!(
            "[[route]]\npath = \"/{name}\"\nupstream = \"{name}\"\n\
             [upstream.{name}]\nurl = \"https://localhost:{port}\"\ndial_timeout = \"1s\"\n{keys}\n"
        ));
    }
    text
}

/// A plain request, and an opening handshake.
fn both(path: &str) -> [String; 2] {
    let plain = format!("GET /{path} HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    [plain, handshake("").replace("/chat", &format!("/{path}"))]
}

/// Says a TLS alert instead of a ServerHello.
async fn alert(number: u8) -> u16 {
    raw(move |mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, number]).await;
    })
    .await
}

#[tokio::test]
async fn each_reason_for_which_tls_fails_has_a_rule_and_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, renewed, theirs) = (Authority::new("ours"), Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ca.pem"));
    let here = ["localhost"];
    let good = ours.issue(&here);
    let expired = ours.issue_with(&here, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = ours.issue_with(&here, |params| params.not_before = date_time_ymd(4000, 1, 1));
    let other = ours.issue(&["other.test", "*.wild.test", "192.0.2.1"]);
    let hostile = ours.issue(&["x\r\n\x1b[2J.test"]);
    let mut h2 = showing(&good);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let cut = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
    });
    let plaintext = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let silent =
        raw(|mut stream| async move { while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {} });
    let web = authority::web;
    #[rustfmt::skip]
    let cases = [
        ("expired", serve(showing(&expired), web).await, "upstream-tls-expired", " days ago; renew it"),
        ("future", serve(showing(&future), web).await, "upstream-tls-not-yet-valid", "set the clock"),
        ("name", serve(showing(&other), web).await, "upstream-tls-wrong-name", "not for `localhost` but for other.test, *.wild.test, 192.0.2.1; set `server_name`"),
        ("hostile", serve(showing(&hostile), web).await, "upstream-tls-wrong-name", "[2J.test"),
        ("issuer", serve(showing(&theirs.issue(&here)), web).await, "upstream-tls-unknown-issuer", "name its CA as `ca`"),
        ("renewed", serve(showing(&renewed.issue(&here)), web).await, "upstream-tls-unknown-issuer", "name its CA as `ca`"),
        ("plaintext", plaintext.await, "upstream-tls-plaintext", "write `http://`"),
        ("cut", cut.await, "upstream-tls-cut-off", "cut the handshake off"),
        ("h2", serve(h2, web).await, "upstream-tls-incompatible", "NoApplicationProtocol"),
        ("versions", alert(70).await, "upstream-tls-incompatible", "ProtocolVersion"),
        ("unnamed", alert(112).await, "upstream-tls-unknown-name", "set `server_name`"),
        ("oddly", alert(80).await, "upstream-tls", "InternalError"),
        ("demand12", serve(ours.demanding(&good, &[&TLS12]), web).await, "upstream-tls-client-certificate", "demands a client certificate"),
        ("demand13", serve(ours.demanding(&good, &[&TLS13]), web).await, "upstream-tls-client-certificate", "demands a client certificate"),
        ("silent", silent.await, "upstream-dial", "no TLS handshake with localhost"),
    ];
    let upstreams: Vec<_> = cases.iter().map(|&(name, port, ..)| (name, port, "ca = \"ca.pem\"")).collect();
    let mut process = Process::start_in(&config(&upstreams), folder).await;
    for (name, _, rule, cure) in cases {
        for request in both(name) {
            let answer = process.connect().await.ask(request).await;
            assert_eq!(answer.status, if name == "silent" { 504 } else { 502 }, "{name}");
            let event = process.event("upstream failed").await;
            assert_eq!(event["rule"], rule, "{name}: {event}");
            let why = event["why"].as_str().unwrap();
            assert!(why.contains(cure) && why.chars().all(is_printable), "{name}: {event}");
            assert!(!answer.text().contains(cure), "not for clients: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn without_a_ca_an_upstream_is_trusted_that_the_system_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let (system, theirs) = (Authority::new("system"), Authority::new("theirs"));
    system.write(&folder.path().join("system.pem"));
    let known = serve(showing(&system.issue(&["localhost"])), authority::web).await;
    let unknown = serve(showing(&theirs.issue(&["localhost"])), authority::web).await;
    let text = config(&[("known", known, ""), ("unknown", unknown, "")]);
    let line = "SSL_CERT_FILE=system.pem exec \"$0\" --log-format json";
    let mut process = Process::launch(&text, folder, "info", line).await;
    let [plain, upgrade] = both("known");
    assert_eq!(process.connect().await.ask(plain).await.text(), "ok");
    assert_eq!(process.connect().await.ask(upgrade).await.status, 101);
    assert_eq!(process.connect().await.ask(&both("unknown")[0]).await.status, 502);
    assert_eq!(process.event("upstream failed").await["rule"], "upstream-tls-unknown-issuer");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    let twice = process.seen.iter().filter(|event| event["level"] == "ERROR").count();
    assert_eq!(twice, 0, "told by others too: {:#?}", process.seen);
}

#[tokio::test]
async fn a_system_without_roots_is_told_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.toml"), config(&[("u", 1, "")])).unwrap();
    let output =
        shell("SSL_CERT_FILE=/dev/null SSL_CERT_DIR=. exec \"$0\" check", folder.path(), "info").output().await;
    let output = output.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("upstream `u`: no root certificates found on this system"), "{text}");
}

/// Says whom it knows its client for.
async fn who(mut client: Client<TlsStream<TcpStream>>) {
    let leaf = client.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    while client.head_or_end().await.is_some() {
        let text = format!("{:?}", leaf.as_ref());
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ca.pem"));
    let server = ours.issue(&["localhost"]);
    let (first, second) = (ours.issue(&["gate.test"]), ours.issue(&["gate.test"]));
    first.write(folder.path(), "gate");
    theirs.issue(&["gate.test"]).write(folder.path(), "stranger");
    let (port12, port13) =
        (serve(ours.demanding(&server, &[&TLS12]), who).await, serve(ours.demanding(&server, &[&TLS13]), who).await);
    let trusted = "ca = \"ca.pem\"\npool_max_idle = 0\ncertificate = \"gate.pem\"\nkey = \"gate.key\"";
    let strange = "ca = \"ca.pem\"\ncertificate = \"stranger.pem\"\nkey = \"stranger.key\"";
    let text =
        config(&[("12", port12, trusted), ("13", port13, trusted), ("s12", port12, strange), ("s13", port13, strange)]);
    let mut process = Process::start_in(&text, folder).await;
    for name in ["12", "13"] {
        let answer = process.connect().await.ask(&both(name)[0]).await;
        assert_eq!(answer.text(), format!("{:?}", first.certificate.der().as_ref()), "{name}");
    }
    for name in ["s12", "s13"] {
        for request in both(name) {
            assert_eq!(process.connect().await.ask(request).await.status, 502, "{name}");
            let event = process.event("upstream failed").await;
            assert_eq!(event["rule"], "upstream-tls-client-certificate-refused", "{event}");
            assert!(event["why"].as_str().unwrap().contains("UnknownCA"), "{event}");
        }
    }
    // A half-written pair is refused and the old one goes on; the whole one is shown from then on.
    second.write(process.folder.path(), "gate");
    std::fs::write(process.folder.path().join("gate.pem"), "").unwrap();
    process.hang_up();
    let refused = process.event("new certificates refused; the old ones go on serving").await;
    assert!(refused["upstream"].is_string(), "{refused}");
    second.write(process.folder.path(), "gate");
    process.hang_up();
    let read = "certificates read again; the next TLS handshake gets them";
    while process.event(read).await["upstream"] != "13" {}
    let answer = process.connect().await.ask(&both("13")[0]).await;
    assert_eq!(
        answer.text(),
        format!("{:?}", second.certificate.der().as_ref()),
        "a resumed session shows the old one"
    );
}

#[tokio::test]
async fn an_address_is_checked_as_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(&folder.path().join("ca.pem"));
    let port = serve(showing(&ours.issue(&["127.0.0.1", "::1", "named.test"])), authority::web).await;
    let other = serve(showing(&ours.issue(&["localhost"])), authority::web).await;
    let keys = |name: &str| format!("ca = \"ca.pem\"\nserver_name = \"{name}\"");
    let (v4, v6, bracketed, named) = (keys("127.0.0.1"), keys("::1"), keys("[::1]"), keys("named.test"));
    let by_url = config(&[("url", port, "ca = \"ca.pem\"")]).replace("localhost", "127.0.0.1");
    let others = config(&[
        ("v4", port, &v4),
        ("v6", port, &v6),
        ("bracketed", port, &bracketed),
        ("named", port, &named),
        ("wrong", other, &v4),
    ]);
    let text = format!("{by_url}{}", others.split_once("0\"\n").unwrap().1);
    let mut process = Process::start_in(&text, folder).await;
    for name in ["url", "v4", "v6", "bracketed", "named"] {
        assert_eq!(process.connect().await.ask(&both(name)[0]).await.status, 200, "{name}");
    }
    assert_eq!(process.connect().await.ask(&both("wrong")[0]).await.status, 502);
    let event = process.event("upstream failed").await;
    assert!(event["why"].as_str().unwrap().contains("not for `127.0.0.1` but for localhost"), "{event}");
}

#[tokio::test]
async fn a_pinned_key_counts_besides_the_chain_and_the_log_says_which_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ca.pem"));
    let good = serve(showing(&ours.issue(&["localhost"])), authority::web).await;
    let strange = serve(showing(&theirs.issue(&["localhost"])), authority::web).await;
    let none = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let wrong = config(&[("wrong", good, &format!("ca = \"ca.pem\"\npin = \"{none}\""))]);
    let mut process = Process::start_in(&wrong, folder).await;
    for request in both("wrong") {
        assert_eq!(process.connect().await.ask(request).await.status, 502);
    }
    let event = process.event("upstream failed").await;
    assert_eq!(event["rule"], "upstream-tls-pin", "{event}");
    let why = event["why"].as_str().unwrap();
    let seen = &why[why.find("sha256/").unwrap()..][..none.len()];

    // As an operator does it: what the log says goes into the config, beside the next key.
    let folder = tempfile::tempdir().unwrap();
    ours.write(&folder.path().join("ca.pem"));
    let keys = format!("ca = \"ca.pem\"\npin = [\"{none}\", \"{seen}\"]");
    let mut process = Process::start_in(&config(&[("good", good, &keys), ("strange", strange, &keys)]), folder).await;
    let [plain, upgrade] = both("good");
    assert_eq!(process.connect().await.ask(plain).await.text(), "ok");
    assert_eq!(process.connect().await.ask(upgrade).await.status, 101);
    assert_eq!(process.connect().await.ask(&both("strange")[0]).await.status, 502);
    assert_eq!(process.event("upstream failed").await["rule"], "upstream-tls-unknown-issuer", "a pin is no root");
}

/// Shows these certificates, and signs with the key of `signer`.
fn pretending(chain: &[&Issued], signer: &Issued, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let chain = chain.iter().map(|issued| issued.certificate.der().clone()).collect();
    let key = PrivateKeyDer::try_from(signer.key.serialize_der()).unwrap();
    let pair = CertifiedKey::new(chain, any_supported_type(&key).unwrap());
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
}

#[tokio::test]
async fn a_pinned_certificate_is_of_no_use_to_whoever_lacks_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(&folder.path().join("ca.pem"));
    let (pinned, other) = (ours.issue(&["localhost"]), ours.issue(&["localhost"]));
    let hash = digest(&SHA256, &pinned.key.subject_public_key_info());
    let keys = format!("ca = \"ca.pem\"\npin = \"sha256/{}\"", STANDARD.encode(hash));
    let unpinned = "ca = \"ca.pem\"".to_owned();
    let mut upstreams = Vec::new();
    for (name, version) in [("12", &TLS12), ("13", &TLS13)] {
        for (who, chain, signer, keys, status) in [
            ("honest", vec![&pinned], &pinned, &keys, 200),
            // It shows the one that is pinned too, behind its own.
            ("behind", vec![&other, &pinned], &other, &keys, 502),
            ("thief", vec![&pinned], &other, &keys, 502),
            ("unpinned", vec![&pinned], &other, &unpinned, 502),
        ] {
            let port = serve(pretending(&chain, signer, version), authority::web).await;
            upstreams.push((format!("{who}{name}"), port, keys, status));
        }
    }
    let text: Vec<_> = upstreams.iter().map(|(name, port, keys, _)| (name.as_str(), *port, keys.as_str())).collect();
    let process = Process::start_in(&config(&text), folder).await;
    for (name, _, _, status) in &upstreams {
        assert_eq!(process.connect().await.ask(&both(name)[0]).await.status, *status, "{name}");
    }
}

/// A certificate as `openssl req -x509` makes it: self-signed, and that of a CA.
fn self_signed_ca(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Issued { certificate: params.self_signed(&key).unwrap(), key }
}

fn pin_of(issued: &Issued) -> String {
    format!("sha256/{}", STANDARD.encode(digest(&SHA256, &issued.key.subject_public_key_info())))
}

#[tokio::test]
async fn a_self_signed_ca_certificate_is_named_with_its_pin_and_works_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let issued = self_signed_ca(&["localhost"], |_| {});
    issued.write(folder.path(), "ca");
    let port = serve(showing(&issued), authority::web).await;
    let text = config(&[("root", port, "ca = \"ca.pem\""), ("unknown", port, "")]);
    let line = "SSL_CERT_FILE=ca.pem exec \"$0\" --log-format json";
    let mut process = Process::launch(&text, folder, "info", line).await;
    let mut seen = String::new();
    for name in ["root", "unknown"] {
        for request in both(name) {
            assert_eq!(process.connect().await.ask(request).await.status, 502, "{name}");
            let event = process.event("upstream failed").await;
            assert_eq!(event["rule"], "upstream-tls-self-signed-ca", "{event}");
            let why = event["why"].as_str().unwrap();
            assert!(why.contains("CA:TRUE") && why.contains("set `trust = \"pin\"`"), "{why}");
            seen = why[why.find("sha256/").unwrap()..][..51].to_owned();
        }
    }
    assert_eq!(seen, pin_of(&issued));
    let other = pin_of(&self_signed_ca(&["localhost"], |_| {}));
    let (good, two) =
        (format!("trust = \"pin\"\npin = \"{seen}\""), format!("trust = \"pin\"\npin = [\"{other}\", \"{seen}\"]"));
    let wrong = format!("trust = \"pin\"\npin = \"{other}\"");
    // No root of this system is needed either.
    let line = "SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/dev exec \"$0\" --log-format json";
    let text = config(&[("good", port, &good), ("two", port, &two), ("wrong", port, &wrong)]);
    let mut process = Process::launch(&text, tempfile::tempdir().unwrap(), "info", line).await;
    for name in ["good", "two"] {
        let [plain, upgrade] = both(name);
        assert_eq!(process.connect().await.ask(plain).await.text(), "ok", "{name}");
        assert_eq!(process.connect().await.ask(upgrade).await.status, 101, "{name}");
    }
    assert_eq!(process.connect().await.ask(&both("wrong")[0]).await.status, 502);
    let event = process.event("upstream failed").await;
    assert_eq!(event["rule"], "upstream-tls-pin", "{event}");
    assert!(event["why"].as_str().unwrap().contains(&seen), "{event}");
}

#[tokio::test]
async fn a_pin_alone_looks_at_the_key_and_at_nothing_else() {
    let expired = self_signed_ca(&["other.test"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let unnamed = self_signed_ca(&[], |params| params.not_before = date_time_ymd(4000, 1, 1));
    let theirs = Authority::new("theirs").issue(&["localhost"]);
    let thief = self_signed_ca(&["localhost"], |_| {});
    let mut upstreams = Vec::new();
    for (name, version) in [("12", &TLS12), ("13", &TLS13)] {
        for (who, chain, signer, rule) in [
            ("expired", &expired, &expired, None),
            ("unnamed", &unnamed, &unnamed, None),
            ("issued", &theirs, &theirs, None),
            ("thief", &theirs, &thief, Some("upstream-tls-signature")),
        ] {
            let port = serve(pretending(&[chain], signer, version), authority::web).await;
            upstreams.push((
                format!("{who}{name}"),
                port,
                format!("trust = \"pin\"\npin = \"{}\"", pin_of(chain)),
                rule,
            ));
        }
    }
    let text: Vec<_> = upstreams.iter().map(|(name, port, keys, _)| (name.as_str(), *port, keys.as_str())).collect();
    let mut process = Process::start(&config(&text)).await;
    for (name, _, _, rule) in &upstreams {
        let answer = process.connect().await.ask(&both(name)[0]).await;
        assert_eq!(answer.status, if rule.is_some() { 502 } else { 200 }, "{name}");
        if let Some(rule) = rule {
            assert_eq!(process.event("upstream failed").await["rule"], *rule, "{name}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_breaks_a_rule_is_explained_with_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::above("ours");
    ours.write(&folder.path().join("ca.pem"));
    let here = ["localhost"];
    let ca = ours.issue_with(&here, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let client =
        ours.issue_with(&here, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let odd = ours.issue_with(&here, |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    // Issued by a certificate that is no CA.
    let issuer = ours.issue(&["issuer.test"]);
    let signed_by = {
        let issuer =
            Issuer::from_ca_cert_der(issuer.certificate.der(), KeyPair::from_pem(&issuer.key.serialize_pem()).unwrap());
        let key = KeyPair::generate().unwrap();
        Issued {
            certificate: CertificateParams::new(vec!["localhost".to_owned()])
                .unwrap()
                .signed_by(&key, &issuer.unwrap())
                .unwrap(),
            key,
        }
    };
    let cases = [
        (
            "ca",
            serve(pretending(&[&ca], &ca, &TLS13), authority::web).await,
            "its certificate is a CA certificate (CA:TRUE",
        ),
        ("client", serve(showing(&client), authority::web).await, "issue it with `serverAuth`"),
        ("odd", serve(pretending(&[&odd], &odd, &TLS13), authority::web).await, "critical extension"),
        (
            "issuer",
            serve(pretending(&[&signed_by, &issuer], &signed_by, &TLS13), authority::web).await,
            "is not a CA; issue it from a CA",
        ),
    ];
    let upstreams: Vec<_> = cases.iter().map(|&(name, port, _)| (name, port, "ca = \"ca.pem\"")).collect();
    let mut process = Process::start_in(&config(&upstreams), folder).await;
    for (name, _, cure) in cases {
        assert_eq!(process.connect().await.ask(&both(name)[0]).await.status, 502, "{name}");
        let event = process.event("upstream failed").await;
        assert_eq!(event["rule"], "upstream-tls-certificate", "{name}: {event}");
        let why = event["why"].as_str().unwrap();
        assert!(why.contains(cure) && !why.contains("Other"), "{name}: {why}");
    }
}

#[tokio::test]
async fn check_warns_of_a_ca_file_that_will_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut expired = CertificateParams::default();
    expired.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    expired.distinguished_name.push(rcgen::DnType::CommonName, "old root");
    expired.not_after = date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    Issued { certificate: expired.self_signed(&key).unwrap(), key }.write(folder.path(), "expired");
    let own = self_signed_ca(&["localhost"], |_| {});
    own.write(folder.path(), "own");
    // As a root, such a certificate is fine.
    self_signed_ca(&["other.test"], |_| {}).write(folder.path(), "root");
    let pin = pin_of(&own);
    for (keys, code, words) in [
        (
            "ca = \"expired.pem\"".to_owned(),
            0,
            vec!["warning: upstream `u`: the CA certificate", "old root", "days ago; renew it"],
        ),
        (
            "ca = \"own.pem\"".to_owned(),
            0,
            vec!["warning: upstream `u`: own.pem contains a self-signed CA certificate for `localhost` itself", &pin],
        ),
        ("ca = \"root.pem\"".to_owned(), 0, vec![]),
        (format!("trust = \"pin\"\npin = \"{pin}\""), 0, vec![]),
        ("trust = \"pin\"".to_owned(), 2, vec!["error: proxy.toml:", "`trust = \"pin\"` requires `pin`"]),
        ("trust = \"pin\"\npin = \"sha256/AAAA\"".to_owned(), 2, vec!["the base64 of 32 bytes"]),
        ("trust = \"pin\"\npin = []".to_owned(), 2, vec!["`pin` is empty"]),
        (
            format!("trust = \"pin\"\npin = \"{pin}\"\nca = \"own.pem\""),
            2,
            vec!["`ca` does nothing with `trust = \"pin\"`"],
        ),
        ("trust = \"key\"".to_owned(), 2, vec!["expected one of: chain, pin"]),
    ] {
        std::fs::write(folder.path().join("proxy.toml"), config(&[("u", 1, &keys)])).unwrap();
        let output = shell("exec \"$0\" check", folder.path(), "info").output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{keys}: {text}");
        assert!(words.iter().all(|word| text.contains(word)) && words.is_empty() == text.is_empty(), "{keys}: {text}");
    }
    let plain = config(&[("u", 1, "trust = \"chain\"")]).replace("https://", "http://");
    std::fs::write(folder.path().join("proxy.toml"), plain).unwrap();
    let output = shell("exec \"$0\" check", folder.path(), "info").output().await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("`trust` is for https upstreams only"));
}
