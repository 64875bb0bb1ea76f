//! A small ACME server (RFC 8555) that believes nothing: it checks every signature, nonce and state, comes to look at the
//! challenge, and signs what a CSR asks for.

mod jws;
mod orders;
mod validate;

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateSigningRequestParams, KeyPair, SerialNumber};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::authority::{Authority, showing};
pub(crate) use validate::look;

/// Where validations are sent to: what DNS and ports 443 and 80 are to a real CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Tls(String),
    Http(String),
}

/// How it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The next so many messages are told `badNonce`.
    pub(crate) bad_nonces: usize,
    /// New orders are refused with 429 and this `Retry-After`.
    pub(crate) rate_limited: Option<u64>,
    /// Certificates began so long ago.
    pub(crate) age: Duration,
    /// And end so long from now.
    pub(crate) left: Duration,
    /// Certificates are for a key of its own.
    pub(crate) wrong_key: bool,
    /// Orders that are valid are shown as `processing`.
    pub(crate) slow: bool,
    /// The next so many requests to finalize are told `serverInternal`.
    pub(crate) finalize_faults: usize,
    /// Key id and key without which there is no account.
    pub(crate) external: Option<(String, Vec<u8>)>,
}

impl Default for Rules {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            bad_nonces: 0,
            rate_limited: None,
            age: Duration::from_secs(60),
            left: 90 * DAY,
            wrong_key: false,
            slow: false,
            finalize_faults: 0,
            external: None,
        }
    }
}

/// A running server.
#[derive(Clone)]
pub(crate) struct Ca {
    pub(crate) directory: String,
    inner: Arc<Inner>,
}

struct Inner {
    base: String,
    issuer: Authority,
    state: Mutex<State>,
    look: watch::Sender<Option<Look>>,
}

#[derive(Default)]
struct State {
    rules: Rules,
    nonces: HashSet<String>,
    counted: u64,
    accounts: Vec<jws::Key>,
    orders: Vec<Order>,
    /// So many orders it knows nothing of any more.
    lost: usize,
    seen: Seen,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// When each order was asked for, refused ones too.
    pub(crate) orders: Vec<Instant>,
    pub(crate) accounts: usize,
    pub(crate) contacts: Vec<String>,
    pub(crate) issued: usize,
    /// Requests to finalize, refused ones too.
    pub(crate) finalized: usize,
    /// Tokens, with the thumbprint of their account.
    pub(crate) tokens: Vec<(String, String)>,
    /// What a rule of RFC 8555 was broken by; a test that ends with one of these has failed.
    pub(crate) faults: Vec<String>,
}

#[derive(Clone)]
struct Order {
    account: usize,
    host: String,
    token: String,
    /// `pending`, `ready`, `valid`, `invalid`.
    status: &'static str,
    /// Kind of the challenge, and what was wrong with it.
    error: Option<(String, String)>,
    chain: Option<String>,
}

/// Status, problem type, detail.
type Refusal = (StatusCode, &'static str, String);

fn malformed(detail: impl Into<String>) -> Refusal {
    (StatusCode::BAD_REQUEST, "malformed", detail.into())
}

impl Ca {
    pub(crate) async fn start() -> Self {
        Self::start_with(Rules::default()).await
    }

    pub(crate) async fn start_with(rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let issuer = Authority::new("acme");
        let acceptor = TlsAcceptor::from(Arc::new(showing(&issuer.issue(&["localhost"]))));
        let state = Mutex::new(State { rules, ..State::default() });
        let inner = Arc::new(Inner { base: base.clone(), issuer, state, look: watch::channel(None).0 });
        let served = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever holds no `Ca` any more has taken it off the net.
                let Some(inner) = served.upgrade() else { return };
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| {
                        let inner = Arc::clone(&inner);
                        async move { Ok::<_, Infallible>(inner.answer(request).await) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { directory: format!("{base}/directory"), inner }
    }

    /// Writes the root by which it and its certificates are known.
    pub(crate) fn write_root(&self, path: &Path) {
        self.inner.issuer.write(path);
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.inner.issuer.root()
    }

    /// Says where the hosts are; validations wait for it.
    pub(crate) fn look_at(&self, look: Look) {
        self.inner.look.send_replace(Some(look));
    }

    /// Forgets every account.
    pub(crate) fn forget(&self) {
        self.inner.state().accounts.iter_mut().for_each(|key| key.known = false);
    }

    /// Forgets every order.
    pub(crate) fn lose_orders(&self) {
        let mut state = self.inner.state();
        state.lost = state.orders.len();
    }

    /// Whether certificates take longer from now on than any test does.
    pub(crate) fn slow(&self, slow: bool) {
        self.inner.state().rules.slow = slow;
    }

    /// What came so far. Panics if something broke a rule.
    pub(crate) fn seen(&self) -> Seen {
        let seen = self.inner.state().seen.clone();
        assert!(seen.faults.is_empty(), "{:#?}", seen.faults);
        seen
    }

    /// The certificate that a file would have held if it had been issued, `age` old and good for `left`; with its key.
    pub(crate) fn sign(&self, host: &str, age: Duration, left: Duration) -> String {
        let (begun, end) = (SystemTime::now() - age, SystemTime::now() + left);
        let issued = self.inner.issuer.issue_with(&[host], |params| {
            (params.not_before, params.not_after) = (begun.into(), end.into());
        });
        format!("{}{}", issued.key.serialize_pem(), issued.certificate.pem())
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn nonce(&self) -> String {
        let mut state = self.state();
        state.counted += 1;
        let nonce = format!("nonce-{}", state.counted);
        state.nonces.insert(nonce.clone());
        nonce
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let mut response = match (request.method(), path.as_str()) {
            (&Method::GET, "/directory") => {
                let url = |path: &str| format!("{}{path}", self.base);
                let body = json!({ "newNonce": url("/nonce"), "newAccount": url("/account"), "newOrder": url("/order"),
                    "revokeCert": url("/revoke"), "keyChange": url("/key") });
                Response::new(Full::from(body.to_string()))
            }
            (&Method::HEAD, "/nonce") => Response::new(Full::default()),
            (&Method::POST, _) => match self.posted(&path, request).await {
                Ok(response) => response,
                Err((status, kind, detail)) => {
                    if kind == "malformed" && status == StatusCode::BAD_REQUEST {
                        self.state().seen.faults.push(format!("{path}: {detail}"));
                    }
                    let body = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail });
                    let mut response = Response::new(Full::from(body.to_string()));
                    *response.status_mut() = status;
                    if let Some(seconds) = self.state().rules.rate_limited.filter(|_| kind == "rateLimited") {
                        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                    }
                    response
                }
            },
            (method, _) => {
                self.state().seen.faults.push(format!("{method} {path}"));
                Response::builder().status(404).body(Full::default()).unwrap()
            }
        };
        response.headers_mut().insert("replay-nonce", self.nonce().parse().unwrap());
        response
    }

    async fn posted(
        self: &Arc<Self>,
        path: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        if kind.as_ref().is_none_or(|kind| kind != "application/jose+json") {
            return Err(malformed(format!("content type {kind:?}")));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let message = jws::open(&body, &format!("{}{path}", self.base), &self.state().accounts)?;
        {
            let mut state = self.state();
            let fresh = state.nonces.remove(&message.nonce);
            if state.rules.bad_nonces > 0 {
                state.rules.bad_nonces -= 1;
                return Err((StatusCode::BAD_REQUEST, "badNonce", "as the test wants it".into()));
            }
            if !fresh {
                return Err(malformed("a nonce that was never given, or a second time"));
            }
        }
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if segments == ["account"] {
            return self.account(&message);
        }
        let account = message.account.ok_or_else(|| malformed("a new key where an account is needed"))?;
        if !self.state().accounts[account].known {
            return Err((StatusCode::BAD_REQUEST, "accountDoesNotExist", "forgotten".into()));
        }
        let of = |text: &str| -> Result<usize, Refusal> {
            let index = text.parse().map_err(|_| malformed("no such thing"))?;
            let state = self.state();
            if index < state.lost {
                return Err((StatusCode::NOT_FOUND, "malformed", "no order of this number".into()));
            }
            let own = state.orders.get(index).is_some_and(|order: &Order| order.account == account);
            own.then_some(index).ok_or_else(|| malformed("an order of somebody else"))
        };
        match segments.as_slice() {
            ["order"] => self.order(account, &message.payload),
            ["order", index] => Ok(self.shown(of(index)?)),
            ["authz", index] => Ok(self.authorization(of(index)?)),
            ["challenge", kind, index] => {
                let index = of(index)?;
                message.must_be_json()?;
                tokio::spawn(Arc::clone(self).validate(index, (*kind).to_owned()));
                Ok(Response::new(Full::from(self.challenge(index, kind).to_string())))
            }
            ["finalize", index] => self.finalize(of(index)?, &message.payload),
            ["certificate", index] => {
                let index = of(index)?;
                let chain = self.state().orders[index].chain.clone();
                Ok(Response::new(Full::from(chain.ok_or_else(|| malformed("there is no certificate yet"))?)))
            }
            _ => Err(malformed("no such path")),
        }
    }

    fn account(&self, message: &jws::Message) -> Result<Response<Full<Bytes>>, Refusal> {
        let key = message.key.clone().ok_or_else(|| malformed("a new account without its key"))?;
        if message.payload["termsOfServiceAgreed"] != true {
            return Err(malformed("the terms are not agreed to"));
        }
        let mut state = self.state();
        if let Some((id, secret)) = &state.rules.external {
            let url = format!("{}/account", self.base);
            jws::check_binding(&message.payload["externalAccountBinding"], id, secret, &url, &key)?;
        }
        let contacts = message.payload["contact"].as_array().cloned().unwrap_or_default();
        state.seen.contacts = contacts.iter().map(|one| one.as_str().unwrap().to_owned()).collect();
        state.seen.accounts += 1;
        state.accounts.push(key);
        let location = format!("{}/account/{}", self.base, state.accounts.len() - 1);
        let body = Full::from(json!({ "status": "valid" }).to_string());
        Ok(Response::builder().status(201).header(header::LOCATION, location).body(body).unwrap())
    }

    fn order(&self, account: usize, payload: &Value) -> Result<Response<Full<Bytes>>, Refusal> {
        let index = {
            let mut state = self.state();
            state.seen.orders.push(Instant::now());
            if state.rules.rate_limited.is_some() {
                return Err((StatusCode::TOO_MANY_REQUESTS, "rateLimited", "too many\r\norders\u{202e}".into()));
            }
            let [identifier] = payload["identifiers"].as_array().map(Vec::as_slice).unwrap_or_default() else {
                return Err(malformed("one host for one certificate"));
            };
            let host = identifier["value"].as_str().filter(|_| identifier["type"] == "dns");
            let host = host.ok_or_else(|| malformed("no DNS name"))?.to_owned();
            let token = BASE64.encode(format!("token {} for {host}", state.orders.len()));
            let thumbprint = state.accounts[account].thumbprint.clone();
            state.seen.tokens.push((token.clone(), thumbprint));
            state.orders.push(Order { account, host, token, status: "pending", error: None, chain: None });
            state.orders.len() - 1
        };
        let mut response = self.shown(index);
        *response.status_mut() = StatusCode::CREATED;
        let location = format!("{}/order/{index}", self.base);
        response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
        Ok(response)
    }
}
