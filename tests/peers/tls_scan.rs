//! What sslscan finds on a TLS port: every version, suite and weakness that it knows is tried.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::{process::Command, time::timeout};

use super::present;
use crate::support::{Proxy, authority::Issued};

const TLS13: [&str; 3] =
    ["TLSv1.3 TLS_AES_128_GCM_SHA256", "TLSv1.3 TLS_AES_256_GCM_SHA384", "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256"];

/// With forward secrecy and authenticated encryption, and nothing else.
const TLS12: [&str; 6] = [
    "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256",
    "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384",
    "TLSv1.2 ECDHE-RSA-CHACHA20-POLY1305",
];

/// A certificate of each kind: some suites go with one of them only.
fn issue(folder: &Path) {
    let keys = [
        ("ec", rcgen::KeyPair::generate().unwrap()),
        ("rsa", rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap()),
    ];
    for (name, key) in keys {
        Issued::by_itself_with(key, &["localhost"]).write(folder, name);
    }
}

async fn scan(versions: &str, folder: &Path) -> String {
    let gate = Proxy::start_in(
        &format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\nversions = \"{versions}\"\npairs = [\n\
             {{ certificate = \"ec.pem\", key = \"ec.key\" }},\n{{ certificate = \"rsa.pem\", key = \"rsa.key\" }},\n]\n\
             [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n"
        ),
        folder,
    )
    .await;
    let mut scan = Command::new("/usr/bin/sslscan");
    scan.args(["--no-colour", "--xml=-", "--sni-name=localhost", "--show-sigs", &gate.addresses[0].to_string()]);
    let output = timeout(Duration::from_secs(120), scan.kill_on_drop(true).output());
    String::from_utf8(output.await.expect("an end of the scan").unwrap().stdout).unwrap()
}

/// Elements of this name, each as its attributes.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<Vec<(&'a str, &'a str)>> {
    let begin = format!("<{name} ");
    let elements = xml.lines().filter_map(|line| line.trim().strip_prefix(&begin));
    let attributes = |element: &'a str| {
        let mut parts = element.split('"');
        let pairs = std::iter::from_fn(|| parts.next().zip(parts.next()));
        pairs.map(|(name, value)| (name.trim().trim_end_matches('='), value)).collect()
    };
    elements.map(attributes).collect()
}

fn value<'a>(attributes: &[(&str, &'a str)], name: &str) -> &'a str {
    attributes.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

#[tokio::test]
async fn sslscan_finds_nothing_below_tls_1_2_and_no_weak_suite() {
    if !present("sslscan", Path::new("/usr/bin/sslscan")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let (intermediate, modern) = tokio::join!(scan("intermediate", folder.path()), scan("modern", folder.path()));
    for (xml, versions, suites) in
        [(intermediate, &["1.2", "1.3"][..], [&TLS12[..], &TLS13].concat()), (modern, &["1.3"], TLS13.to_vec())]
    {
        let protocols = elements(&xml, "protocol");
        assert_eq!(protocols.len(), 6, "SSL 2 and 3, TLS 1.0 to 1.3: {xml}");
        let enabled: Vec<_> = protocols.iter().filter(|one| value(one, "enabled") == "1").collect();
        assert_eq!(enabled.iter().map(|one| value(one, "version")).collect::<Vec<_>>(), versions, "{xml}");
        // Just these: none with CBC, RC4, 3DES, NULL or export strength, and none without forward secrecy.
        let found: BTreeSet<String> = elements(&xml, "cipher")
            .iter()
            .map(|cipher| format!("{} {}", value(cipher, "sslversion"), value(cipher, "cipher")))
            .collect();
        assert_eq!(found, suites.iter().map(ToString::to_string).collect(), "{xml}");
        for heartbleed in elements(&xml, "heartbleed") {
            assert_eq!(value(&heartbleed, "vulnerable"), "0", "{xml}");
        }
        let yes = |name: &str| elements(&xml, name).iter().any(|one| value(one, "supported") == "1");
        assert!(!yes("compression") && !yes("renegotiation"), "{xml}");
        let weak = |name: &str| ["md5", "sha1_", "_sha1", "dsa_sha1"].iter().any(|word| name.contains(word));
        for signature in elements(&xml, "connection-signature-algorithm") {
            let name = value(&signature, "name");
            assert!(!weak(name) && name != "ANY", "{name}: {xml}");
        }
        for group in elements(&xml, "group") {
            assert!(value(&group, "bits").parse::<u16>().unwrap() >= 112, "{xml}");
        }
    }
}
