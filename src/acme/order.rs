//! One certificate for one host: account, order, challenge, request, chain (RFC 8555 §7).

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use thiserror::Error;

use super::{
    client::Client,
    progress::{self, Progress},
    storage::{Storage, StorageError},
};
use crate::{
    config::model::{Acme, Challenge, PairFiles},
    net::{
        certificates::{self, Validity},
        challenges::{ChallengeError, Challenges, Standing},
        tls::TlsError,
        tls_client::ClientTls,
    },
    protocol::log_text::Escaped,
};

/// What the types of a CA's problems begin with (RFC 8555 §6.7).
const ERROR: &str = "urn:ietf:params:acme:error:";

/// The account's id and key.
const ACCOUNT: &str = "account.json";

/// How a state of the server is waited for: a CA validates from several places, which takes seconds.
const POLL: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(90));

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub(super) enum OrderError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Acme(#[from] instant_acme::Error),
    #[error("{ACCOUNT} cannot be read: {0}; put the right one back, or remove it to have a new account made")]
    Account(serde_json::Error),
    #[error(
        "the CA does not know our account any more; it was set aside as account.old, and the next attempt makes another"
    )]
    AccountGone,
    #[error("external_account_key {} cannot be used: {source}; it is the CA's, in base64url", path.display())]
    ExternalKey { path: std::path::PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the CA does not offer the challenge {0}; choose the other one")]
    NoChallenge(&'static str),
    #[error("the CA could not validate the host: {0}")]
    Invalid(String),
    #[error("the CA left the order in the state {0:?}")]
    State(OrderStatus),
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    #[error("cannot make the key or the request: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the CA's certificate is not for this host")]
    OtherName,
    #[error("no certificate within {0:?}")]
    Timeout(Duration),
}

impl OrderError {
    /// Whether a CA may count this against us: an answer of its own, not a failure on the way or here.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Acme(instant_acme::Error::Api(problem)) => !matches!(kind(problem), "badNonce" | "serverInternal"),
            Self::Acme(error) => matches!(error, instant_acme::Error::Timeout(_)),
            Self::Storage(_) | Self::Tls(_) | Self::AccountGone => false,
            _ => true,
        }
    }

    /// Whether the order itself may be sound all the same.
    fn leaves_the_order(&self) -> bool {
        use instant_acme::Error::{Api, Http, Json, Other, Timeout};
        match self {
            Self::Acme(Api(problem)) => {
                let passes = ["badNonce", "serverInternal", "rateLimited", "accountDoesNotExist"];
                passes.contains(&kind(problem)) || problem.status.is_some_and(|status| status >= 500)
            }
            // No answer, or one that is not of the CA: a balancer's page, say.
            Self::Acme(Timeout(_) | Http(_) | Json(_) | Other(_)) => true,
            _ => false,
        }
    }
}

/// What kind of problem it is, in the word that the RFC has for it.
fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(ERROR)).unwrap_or_default()
}

/// What is to be ordered, and with what.
pub(super) struct Ordering<'a> {
    pub(super) acme: &'a Acme,
    pub(super) host: &'a str,
    pub(super) storage: &'a Storage,
    pub(super) challenges: &'a Arc<Challenges>,
    pub(super) client: &'a Client,
}

impl Ordering<'_> {
    /// Orders; answers the chain and its key in PEM.
    pub(super) async fn order(&self) -> Result<String, OrderError> {
        let account = self.account().await?;
        let done = match self.take_up(&account).await {
            Ok(None) => self.through(&account).await,
            Ok(Some(pem)) => Ok(pem),
            Err(error) => Err(error),
        };
        match done {
            Err(OrderError::Acme(instant_acme::Error::Api(problem))) if kind(&problem) == "accountDoesNotExist" => {
                self.storage.set_aside(ACCOUNT)?;
                Err(OrderError::AccountGone)
            }
            done => done,
        }
    }

    async fn account(&self) -> Result<Account, OrderError> {
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        if let Some(kept) = self.storage.read(ACCOUNT)? {
            let credentials: AccountCredentials = serde_json::from_slice(&kept).map_err(OrderError::Account)?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<&str> = self.acme.contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = self.external_account()?;
        let (account, credentials) = builder.create(&new, self.acme.directory.clone(), external.as_ref()).await?;
        let text = serde_json::to_vec(&credentials).map_err(OrderError::Account)?;
        self.storage.stage(ACCOUNT, &text)?.commit()?;
        tracing::info!(directory = %self.acme.directory, account = %Escaped(account.id()), "ACME account made");
        Ok(account)
    }

    fn external_account(&self) -> Result<Option<ExternalAccountKey>, OrderError> {
        let Some(external) = &self.acme.external_account else { return Ok(None) };
        let unusable = |source| OrderError::ExternalKey { path: external.key.clone(), source };
        let text = std::fs::read_to_string(&external.key).map_err(|error| unusable(error.into()))?;
        let text = text.trim().trim_end_matches('=');
        let key = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| unusable(error.into()))?;
        Ok(Some(ExternalAccountKey::new(external.id.clone(), &key)))
    }

    /// The certificate of an order that was finalized, or nearly, and then left; `None` where there is none to be had.
    async fn take_up(&self, account: &Account) -> Result<Option<String>, OrderError> {
        let Some(progress) = Progress::resume(self.storage, self.host, account.id()) else { return Ok(None) };
        tracing::info!(host = self.host, order = %Escaped(&progress.url), "taking up the order of an earlier attempt");
        let finished = match account.order(progress.url).await {
            Ok(order) => self.finish(order, &progress.key).await,
            Err(error) => Err(error.into()),
        };
        match finished {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.leaves_the_order() => Err(error),
            Err(error) => {
                progress::give_up(self.storage, self.host, &error.to_string());
                Ok(None)
            }
        }
    }

    async fn through(&self, account: &Account) -> Result<String, OrderError> {
        let identifiers = [Identifier::Dns(self.host.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        // Answers are given until the CA has decided, and not a moment longer.
        let mut standing = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let kind = match self.acme.challenge {
                Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
                Challenge::Http01 => ChallengeType::Http01,
            };
            let none = OrderError::NoChallenge(self.acme.challenge.name());
            let mut challenge = authorization.challenge(kind).ok_or(none)?;
            standing.push(self.stand(&challenge)?);
            challenge.set_ready().await?;
        }
        match order.poll_ready(&POLL).await? {
            OrderStatus::Ready => {}
            OrderStatus::Invalid => return Err(OrderError::Invalid(why(&mut order).await)),
            other => return Err(OrderError::State(other)),
        }
        drop(standing);
        let progress = Progress::new(account.id(), order.url(), KeyPair::generate()?);
        progress.keep(self.storage, self.host);
        self.finish(order, &progress.key).await
    }

    /// From an order that is ready, or further, to its chain and key.
    async fn finish(&self, mut order: Order, key: &KeyPair) -> Result<String, OrderError> {
        match order.state().status {
            OrderStatus::Ready => {
                let mut params = CertificateParams::new([self.host.to_owned()])?;
                params.distinguished_name = DistinguishedName::new();
                order.finalize_csr(params.serialize_request(key)?.der()).await?;
            }
            OrderStatus::Processing | OrderStatus::Valid => {}
            other => return Err(OrderError::State(other)),
        }
        let chain = order.poll_certificate(&POLL).await?;
        Ok(format!("{}{chain}", key.serialize_pem()))
    }

    fn stand(&self, challenge: &instant_acme::ChallengeHandle<'_>) -> Result<Standing, OrderError> {
        let authorization = challenge.key_authorization();
        Ok(match self.acme.challenge {
            Challenge::Http01 => self.challenges.stand_token(&challenge.token, authorization.as_str()),
            Challenge::TlsAlpn01 => self.challenges.stand_host(self.host, authorization.digest().as_ref())?,
        })
    }

    /// Puts it in the place of the old one, unless it cannot serve.
    pub(super) fn keep(&self, pem: &str) -> Result<Validity, OrderError> {
        let staged = self.storage.stage(&format!("{}.pem", self.host), pem.as_bytes())?;
        let pair = PairFiles { certificate: staged.passing().to_owned(), key: staged.passing().to_owned() };
        let validity = certificates::read_validity(&pair)?;
        if !validity.names.iter().any(|name| name == self.host) {
            return Err(OrderError::OtherName);
        }
        staged.commit()?;
        Ok(validity)
    }
}

/// A client that trusts what the config says.
pub(super) fn client(acme: &Acme) -> Result<Client, TlsError> {
    Ok(Client::new(Arc::new(ClientTls::anonymous(acme.ca.as_deref())?)))
}

/// What the CA saw when it came to look; it stands in the authorization, not in the order.
async fn why(order: &mut Order) -> String {
    let mut seen = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await {
            seen.extend(state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()?.detail.clone()));
        }
    }
    if seen.is_empty() { "it gave no reason".to_owned() } else { seen.join("; ") }
}
