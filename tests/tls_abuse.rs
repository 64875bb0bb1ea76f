//! What comes to a TLS port and is no good handshake: it ends soon, it is counted, and nobody else is harmed.

use std::{path::Path, sync::Arc, time::Duration};

use switchgate::net::{handshakes::Ending, tls};
use tokio::io::AsyncWriteExt;

use crate::support::{
    Proxy,
    process::Process,
    tls_client::{self, connect},
    within,
};

fn front(tls: &str) -> String {
    format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\ncertificate = \"leaf.pem\"\nkey = \"leaf.key\"\n\
         development = true\n{tls}\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n"
    )
}

/// A ClientHello of this version that offers these suites and nothing else.
fn hello(version: u8, suites: &[u16]) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(suites.len() * 2).unwrap().to_be_bytes());
    suites.iter().for_each(|suite| body.extend(suite.to_be_bytes()));
    body.extend([1, 0]);
    let length = u16::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

/// TLS_RSA_WITH_AES_128_CBC_SHA, TLS_RSA_WITH_3DES_EDE_CBC_SHA.
const OLD: &[u16] = &[0x002f, 0x000a];

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";

#[tokio::test]
async fn what_is_no_handshake_ends_at_once_and_says_why() {
    // Long enough that whatever waits for it fails the test.
    let mut process = Process::start(&front("handshake_timeout = \"1m\"")).await;
    let post = [b"POST / HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 9\r\n\r\n", &b"too early"[..]].concat();
    for (what, bytes, reason) in [
        ("a request", REQUEST.to_vec(), "plaintext"),
        ("a request with a body", post, "plaintext"),
        ("HTTP/2 in clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "plaintext"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "garbage"),
        ("one bad byte", vec![0xff], "garbage"),
        ("a hello of SSLv2", vec![0x80, 0x2e, 0x01, 0x00, 0x02], "garbage"),
        ("a record that is too long", vec![22, 3, 1, 0xff, 0xff], "garbage"),
        ("an empty record", vec![22, 3, 1, 0, 0], "garbage"),
        ("another version of records", vec![22, 9, 9, 0, 4], "garbage"),
        ("no handshake in a record", vec![22, 3, 1, 0, 5, 0xff, 0, 0, 1, 0], "garbage"),
        ("data before a handshake", vec![23, 3, 3, 0, 1, 0], "garbage"),
        ("SSLv3", hello(0, OLD), "incompatible"),
        ("TLS 1.0", hello(1, OLD), "incompatible"),
        ("TLS 1.1", hello(2, OLD), "incompatible"),
        ("TLS 1.2 with suites of old", hello(3, OLD), "incompatible"),
        ("an alert", vec![21, 3, 1, 0, 2, 2, 48], "client-alert"),
    ] {
        for at_once in [true, false] {
            let mut client = process.connect().await;
            client.stream.set_nodelay(true).unwrap();
            for part in bytes.chunks(if at_once { bytes.len() } else { 1 }) {
                // It may have been refused before its end.
                let _ = client.stream.write_all(part).await;
                tokio::task::yield_now().await;
            }
            let answer = client.rest().await;
            assert_eq!(answer.starts_with(b"HTTP/1.1 400 "), reason == "plaintext" && !answer.is_empty(), "{what}");
            assert!(!at_once || !answer.is_empty() || reason != "plaintext", "{what}: no answer");
            let failed = process.event("TLS handshake failed").await;
            assert_eq!(failed["reason"], reason, "{what}: {failed}");
        }
    }
    // Whoever hangs up is not called anything else.
    for bytes in [&[][..], &[22], &[22, 3, 1, 2, 0, 1], b"GE"] {
        let mut client = process.connect().await;
        client.send(bytes).await;
        drop(client);
        assert_eq!(process.event("TLS handshake failed").await["reason"], "hung-up", "{bytes:?}");
    }
}

#[tokio::test]
async fn what_does_not_end_by_itself_ends_at_the_deadline() {
    let mut process = Process::start(&front("handshake_timeout = \"300ms\"")).await;
    for (what, begin, each) in [
        ("nothing", vec![], None),
        ("half a header", vec![22, 3], None),
        ("a record without end", vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb], Some(0u8)),
        ("a request that never becomes one", b"G".to_vec(), None),
    ] {
        let mut client = process.connect().await;
        client.send(&begin).await;
        let (mut reader, mut writer) = client.stream.into_split();
        let dribble = async {
            while let Some(byte) = each {
                if writer.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut sink = Vec::new();
        tokio::select! {
            ended = within("the deadline", tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut sink)) => drop(ended),
            () = dribble => {}
        }
        let failed = process.event("TLS handshake failed").await;
        assert_eq!(failed["reason"], "timeout", "{what}: {failed}");
    }
}

#[tokio::test]
async fn a_client_that_cannot_agree_is_told_apart_from_one_that_will_not() {
    let mut process = Process::start(&front("versions = \"modern\"\nunnamed = \"refuse\"")).await;
    let trusting = tls::client_config(Some(&process.folder.path().join("ca.pem"))).unwrap();
    let of = |version: &'static rustls::SupportedProtocolVersion| {
        Arc::new(tls_client::trusting(&[], &[version]).with_no_client_auth())
    };
    let address = process.addresses[0].clone();
    connect(&address, "localhost", Arc::clone(&trusting)).await.unwrap();
    for (name, config, reason) in [
        ("localhost", of(&rustls::version::TLS12), "incompatible"),
        ("localhost", of(&rustls::version::TLS13), "client-alert"),
        ("other.test", trusting, "unknown-name"),
    ] {
        connect(&address, name, config).await.unwrap_err();
        let failed = process.event("TLS handshake failed").await;
        assert_eq!(failed["reason"], reason, "{failed}");
    }
}

async fn in_folder(folder: &Path, tls: &str) -> Proxy {
    Proxy::start_in(&front(tls), folder).await
}

#[tokio::test]
async fn each_ending_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = in_folder(folder.path(), "handshake_timeout = \"200ms\"").await;
    let address = proxy.addresses[0].to_string();
    let trusting = tls::client_config(Some(&folder.path().join("ca.pem"))).unwrap();
    for _ in 0..3 {
        connect(&address, "localhost", Arc::clone(&trusting)).await.unwrap();
    }
    for bytes in [REQUEST, &[0xff; 5], &[0xff; 1]] {
        let mut client = proxy.connect().await;
        client.send(bytes).await;
        client.rest().await;
    }
    let _silent = proxy.connect().await;
    drop(proxy.connect().await);
    for (ending, times) in
        [(Ending::Done, 3), (Ending::Plaintext, 1), (Ending::Garbage, 2), (Ending::Timeout, 1), (Ending::HungUp, 1)]
    {
        proxy.counted(ending, times).await;
    }
    let all: u64 = Ending::ALL.map(|ending| proxy.handshakes[0].ended(ending)).iter().sum();
    assert_eq!(all, 8);
}

#[tokio::test]
async fn a_stop_waits_for_no_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = in_folder(folder.path(), "handshake_timeout = \"1m\"").await;
    let counts = Arc::clone(&proxy.handshakes[0]);
    let mut begun = Vec::new();
    for bytes in [&[][..], &[22, 3, 1, 2, 0, 1], b"GET"] {
        let mut client = proxy.connect().await;
        client.send(bytes).await;
        begun.push(client);
    }
    // One that ends tells that those before it were accepted.
    let mut last = proxy.connect().await;
    last.send([0xff]).await;
    last.rest().await;
    let outcome = within("end of the drain", proxy.stop()).await.unwrap();
    assert_eq!(outcome.cut.connections, 0);
    for mut client in begun {
        assert!(client.rest().await.is_empty());
    }
    assert_eq!(counts.ended(Ending::Stopped) + counts.ended(Ending::HungUp), 3);
}
