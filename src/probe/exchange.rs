//! The wire side of a probe: resolve, connect, TLS, send the request, read the answer. Each step is timed.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    ProbeOptions, Trust, printable,
    rules::{self, MAX_FIELDS},
};
use crate::net::{Wire, tls};

/// The longest response head that is read.
const MAX_HEAD: usize = 64 * 1024;

/// As much of an error page as fits on a screen.
const MAX_EXPLANATION: usize = 512;

/// How long to wait for the server's answer to our Close, or for the body of a refusal. Long enough for a slow one, and nothing depends on it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Everything one probe saw.
pub(super) struct Exchange {
    /// The steps that worked, in order.
    pub(super) steps: Vec<Step>,
    /// The final answer, or the step that failed.
    pub(super) answer: Result<Answer, Failure>,
}

/// One step and how long it took.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) detail: String,
}

/// What came back.
pub(super) struct Answer {
    /// The key this handshake sent.
    pub(super) key: String,
    /// The raw final head; whatever came in its place when it is no HTTP.
    pub(super) head: Result<Vec<u8>, String>,
    /// What came after the head.
    pub(super) rest: Vec<u8>,
}

/// Why there is no answer to judge.
#[derive(Debug)]
pub(super) struct Failure {
    what: &'static str,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAIL  {}\n      {}", self.what, self.why)
    }
}

pub(super) async fn exchange(options: &ProbeOptions) -> Exchange {
    let mut steps = Vec::new();
    let answer = attempt(options, &mut steps).await;
    Exchange { steps, answer }
}

async fn attempt(options: &ProbeOptions, steps: &mut Vec<Step>) -> Result<Answer, Failure> {
    // Drawn first: the generator takes its time to start, and that is nobody's answer time.
    let (key, mask) = randomness()?;
    let deadline = Instant::now() + options.timeout;
    let addresses = resolve(options, deadline, steps).await?;
    let stream = connect(&addresses, deadline, steps).await?;
    let mut io: Wire = if options.target.secure {
        Box::pin(encrypt(options, stream, deadline, steps)).await?
    } else {
        Wire::Tcp(stream)
    };

    let started = Instant::now();
    let mut bytes = Vec::new();
    let exchange = async {
        io.write_all(request(options, &key).as_bytes()).await?;
        io.flush().await?;
        read_head(&mut io, &mut bytes).await
    };
    let head = match timeout_at(deadline, exchange).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => return Err(Failure { what: "the server answers", why: error.to_string() }),
        Err(_) if bytes.is_empty() => {
            return Err(ran_out("the server answers", options, "the request was sent and nothing came back"));
        }
        Err(_) => {
            let why = format!("only part of a head came: {}", printable(&bytes));
            return Err(ran_out("the server answers", options, &why));
        }
    };
    let (head, mut rest) = match head {
        Ok(length) => {
            let rest = bytes.split_off(length);
            (Ok(bytes), rest)
        }
        Err(wrong) => (Err(wrong), Vec::new()),
    };
    if let Ok(head) = &head {
        let line = head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
        steps.push(Step { name: "answer", took: started.elapsed(), detail: printable(line) });
        let until = deadline.min(Instant::now() + LAST_WORDS);
        // However this ends, the handshake is over: what came is judged, what did not come is not missed.
        let _: Result<io::Result<()>, _> = match rules::parse(head) {
            Ok(head) if head.status == 101 => timeout_at(until, last_words(&mut io, mask, &mut rest)).await,
            Ok(head) => timeout_at(until, explanation(&mut io, head.body_length(), &mut rest)).await,
            Err(_) => Ok(Ok(())),
        };
    }
    Ok(Answer { key, head, rest })
}

async fn resolve(options: &ProbeOptions, deadline: Instant, steps: &mut Vec<Step>) -> Result<Vec<SocketAddr>, Failure> {
    let target = &options.target;
    if let Ok(address) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, target.port)]);
    }
    let what = "the name resolves";
    let started = Instant::now();
    let found = match timeout_at(deadline, lookup_host((target.host.as_str(), target.port))).await {
        Ok(found) => found.map_err(|error| Failure { what, why: format!("{}: {error}", target.host) })?,
        Err(_) => return Err(ran_out(what, options, &target.host)),
    };
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        return Err(Failure { what, why: format!("{} has no address", target.host) });
    }
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    steps.push(Step { name: "DNS", took: started.elapsed(), detail: list.join(", ") });
    Ok(addresses)
}

async fn connect(addresses: &[SocketAddr], deadline: Instant, steps: &mut Vec<Step>) -> Result<TcpStream, Failure> {
    let what = "the server takes connections";
    let mut reasons = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let started = Instant::now();
        // Shared out, so that one dead address leaves time for those after it.
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(started) / left;
        match timeout_at(started + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                steps.push(Step { name: "connect", took: started.elapsed(), detail: address.to_string() });
                return Ok(stream);
            }
            Ok(Err(error)) => reasons.push(format!("{address}: {error}")),
            Err(_) => reasons.push(format!("{address}: no answer within {share:?}")),
        }
    }
    Err(Failure { what, why: reasons.join("; ") })
}

async fn encrypt(
    options: &ProbeOptions,
    stream: TcpStream,
    deadline: Instant,
    steps: &mut Vec<Step>,
) -> Result<Wire, Failure> {
    let what = "TLS is agreed on";
    let fail = |why: String| Failure { what, why };
    let (config, trusted) = match &options.trust {
        Trust::System => (tls::client_config(None), "certificate leads to a root of this system".to_owned()),
        Trust::Ca(file) => (tls::client_config(Some(file)), format!("certificate leads to {}", file.display())),
        Trust::Anyone => (insecure_config().map_err(Into::into), "certificate NOT checked (--insecure)".to_owned()),
    };
    let config = config.map_err(|error| fail(error.to_string()))?;
    let name = ServerName::try_from(options.target.host.clone()).map_err(|error| fail(error.to_string()))?;
    let started = Instant::now();
    let stream = match timeout_at(deadline, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(fail(format!("{error}{}", cure(&error)))),
        Err(_) => return Err(ran_out(what, options, "the connection was taken and the TLS handshake not answered")),
    };
    let session = stream.get_ref().1;
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("?");
    let alpn = session.alpn_protocol().map_or_else(|| "no ALPN".to_owned(), |name| format!("ALPN {}", printable(name)));
    steps.push(Step { name: "TLS", took: started.elapsed(), detail: format!("{version}, {alpn}, {trusted}") });
    Ok(Wire::boxed(stream))
}

/// What to try when TLS fails in a way that has a usual cause.
fn cure(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "; name its CA with --ca FILE, or look without checking with --insecure"
        }
        Some(rustls::Error::InvalidMessage(_)) => "; this port may not speak TLS: try ws://",
        _ => "",
    }
}

fn ran_out(what: &'static str, options: &ProbeOptions, state: &str) -> Failure {
    Failure { what, why: format!("not within {:?} (--timeout): {state}", options.timeout) }
}

/// A fresh key (RFC 6455 §4.1, request item 7) and a mask for the one frame sent.
fn randomness() -> Result<(String, [u8; 4]), Failure> {
    let random = aws_lc_rs::default_provider().secure_random;
    let (mut nonce, mut mask) = ([0; 16], [0; 4]);
    match random.fill(&mut nonce).and_then(|()| random.fill(&mut mask)) {
        Ok(()) => Ok((STANDARD.encode(nonce), mask)),
        Err(_) => Err(Failure { what: "a random key", why: "the system gives no random bytes".to_owned() }),
    }
}

/// The client's opening handshake (RFC 6455 §4.1).
fn request(options: &ProbeOptions, key: &str) -> String {
    use fmt::Write as _;

    let host =
        options.fields.iter().find(|field| field.is("host")).map_or(&options.target.authority, |field| &field.value);
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n",
        options.target.resource
    );
    let mut line = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _: fmt::Result = write!(head, "{name}: {value}\r\n");
    };
    if let Some(origin) = &options.origin {
        line("Origin", origin);
    }
    if !options.subprotocols.is_empty() {
        let names: Vec<&str> = options.subprotocols.iter().map(|name| name.as_str()).collect();
        line("Sec-WebSocket-Protocol", &names.join(", "));
    }
    for field in options.fields.iter().filter(|field| !field.is("host")) {
        line(&field.name, &field.value);
    }
    if !options.fields.iter().any(|field| field.is("user-agent")) {
        line("User-Agent", concat!("switchgate-probe/", env!("CARGO_PKG_VERSION")));
    }
    head.push_str("\r\n");
    head
}

/// Reads until the final head is whole, and says how long it is; or what came that is no head.
async fn read_head(io: &mut Wire, bytes: &mut Vec<u8>) -> io::Result<Result<usize, String>> {
    loop {
        match split(bytes) {
            Split::Final(length) => return Ok(Ok(length)),
            Split::Interim(length) => {
                // RFC 9110 §15.2: any number of them may come before the final one.
                bytes.drain(..length);
                continue;
            }
            Split::NotHttp(error) => return Ok(Err(format!("{error}: {}", printable(bytes)))),
            Split::Partial => {}
        }
        if bytes.len() > MAX_HEAD {
            return Ok(Err(format!("no end of the head within {} KiB", MAX_HEAD / 1024)));
        }
        if io.read_buf(bytes).await? == 0 {
            return Ok(Err(match bytes.is_empty() {
                true => "the connection was closed without an answer".to_owned(),
                false => format!("the connection was closed inside the head: {}", printable(bytes)),
            }));
        }
    }
}

enum Split {
    Partial,
    Interim(usize),
    Final(usize),
    NotHttp(httparse::Error),
}

fn split(bytes: &[u8]) -> Split {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Split::Partial,
        Ok(httparse::Status::Complete(length)) => match response.code {
            Some(100 | 102..=199) => Split::Interim(length),
            _ => Split::Final(length),
        },
        Err(error) => Split::NotHttp(error),
    }
}

/// Reads the beginning of a body: it often says what the status means here.
async fn explanation(io: &mut Wire, length: Option<usize>, rest: &mut Vec<u8>) -> io::Result<()> {
    let wanted = length.map_or(MAX_EXPLANATION, |length| length.min(MAX_EXPLANATION));
    while rest.len() < wanted && io.read_buf(rest).await? > 0 {}
    Ok(())
}

/// Says goodbye (RFC 6455 §7.1.2) and reads what the server sends until its first frame is there.
async fn last_words(io: &mut Wire, mask: [u8; 4], rest: &mut Vec<u8>) -> io::Result<()> {
    let code = 1000_u16.to_be_bytes();
    let mut close = vec![0x88, 0x80 | 2];
    close.extend(mask);
    close.extend(code.iter().zip(mask).map(|(byte, key)| byte ^ key));
    io.write_all(&close).await?;
    io.flush().await?;
    // The longest frame header without a mask has ten bytes.
    while rest.len() < 10 && io.read_buf(rest).await? > 0 {
        if let [first, second, ..] = rest.as_slice()
            && first & 0x0f == 0x8
            && rest.len() >= 2 + usize::from(second & 0x7f)
        {
            break;
        }
    }
    // The server may be gone already; over TLS it is told that nothing was cut off.
    let _ = io.shutdown().await;
    Ok(())
}

fn insecure_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// `--insecure`: any certificate will do; that its owner holds the key is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
