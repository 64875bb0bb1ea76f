//! Signed messages (RFC 7515, RFC 8555 §6.2), as strictly as the RFC has them.

use aws_lc_rs::{
    digest, hmac,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

use super::{Refusal, malformed};

/// The key of an account.
#[derive(Clone, Debug)]
pub(super) struct Key {
    point: Vec<u8>,
    jwk: Value,
    /// RFC 7638.
    pub(super) thumbprint: String,
    pub(super) known: bool,
}

/// A message whose signature is right.
pub(super) struct Message {
    pub(super) nonce: String,
    /// Null in a POST-as-GET.
    pub(super) payload: Value,
    /// The key it came with, if it is a new one.
    pub(super) key: Option<Key>,
    /// The account that it names otherwise.
    pub(super) account: Option<usize>,
}

impl Message {
    pub(super) fn must_be_json(&self) -> Result<(), Refusal> {
        if self.payload.is_object() { Ok(()) } else { Err(malformed("an empty payload where `{}` is wanted")) }
    }
}

struct Opened {
    header: Value,
    payload: Vec<u8>,
    signed: String,
    signature: Vec<u8>,
}

fn opened(jws: &Value) -> Result<Opened, Refusal> {
    let text = |name: &str| jws[name].as_str().ok_or_else(|| malformed(format!("no {name}")));
    let bytes = |name: &str| BASE64.decode(text(name)?).map_err(|error| malformed(format!("{name}: {error}")));
    Ok(Opened {
        header: serde_json::from_slice(&bytes("protected")?).map_err(|error| malformed(error.to_string()))?,
        payload: bytes("payload")?,
        signed: format!("{}.{}", text("protected")?, text("payload")?),
        signature: bytes("signature")?,
    })
}

pub(super) fn open(body: &[u8], url: &str, accounts: &[Key]) -> Result<Message, Refusal> {
    let jws: Value = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let Opened { header, payload, signed, signature } = opened(&jws)?;
    if header["url"] != url || header["alg"] != "ES256" {
        return Err(malformed(format!("signed {} for {}", header["alg"], header["url"])));
    }
    let (key, account) = match (&header["jwk"], header["kid"].as_str()) {
        (jwk @ Value::Object(_), None) => (Some(key(jwk)?), None),
        (Value::Null, Some(id)) => {
            let index = id.rsplit('/').next().and_then(|index| index.parse::<usize>().ok());
            let known = index.filter(|index| *index < accounts.len());
            (None, Some(known.ok_or_else(|| malformed("an account that never was"))?))
        }
        _ => return Err(malformed("one of jwk and kid")),
    };
    let signer = key.as_ref().or(account.map(|index| &accounts[index])).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &signer.point)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| malformed("the signature is wrong"))?;
    let payload = if payload.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&payload) };
    let payload = payload.map_err(|error| malformed(error.to_string()))?;
    let nonce = header["nonce"].as_str().unwrap_or_default().to_owned();
    Ok(Message { nonce, payload, key, account })
}

fn key(jwk: &Value) -> Result<Key, Refusal> {
    let part =
        |name: &str| jwk[name].as_str().and_then(|text| BASE64.decode(text).ok()).filter(|part| part.len() == 32);
    let (Some(x), Some(y)) = (part("x"), part("y")) else { return Err(malformed("no P-256 key")) };
    if jwk["kty"] != "EC" || jwk["crv"] != "P-256" {
        return Err(malformed("another kind of key"));
    }
    // RFC 7638: these members in this order, and nothing else.
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
    let thumbprint = BASE64.encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    Ok(Key { point: [vec![4], x, y].concat(), jwk: jwk.clone(), thumbprint, known: true })
}

/// Whether the binding is signed with the secret, for this account key (RFC 8555 §7.3.4).
pub(super) fn check_binding(binding: &Value, id: &str, secret: &[u8], url: &str, key: &Key) -> Result<(), Refusal> {
    let Opened { header, payload, signed, signature } = opened(binding)?;
    if header != json!({ "alg": "HS256", "kid": id, "url": url }) {
        return Err(malformed(format!("bound with {header}")));
    }
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes(), &signature)
        .map_err(|_| malformed("the binding is not signed with the key that was given"))?;
    let bound: Value = serde_json::from_slice(&payload).map_err(|error| malformed(error.to_string()))?;
    if bound == key.jwk { Ok(()) } else { Err(malformed("the binding is for another key")) }
}
