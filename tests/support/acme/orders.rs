//! Orders, authorizations and challenges as they are shown, and the two ends of an order: the look and the signature.

use super::*;

impl Inner {
    pub(super) fn shown(&self, index: usize) -> Response<Full<Bytes>> {
        let (base, mut order) = (&self.base, self.state().orders[index].clone());
        if order.status == "valid" && self.state().rules.slow {
            order.status = "processing";
        }
        let mut body = json!({
            "status": order.status, "identifiers": [{ "type": "dns", "value": order.host }],
            "authorizations": [format!("{base}/authz/{index}")], "finalize": format!("{base}/finalize/{index}"),
        });
        if order.status == "valid" {
            body["certificate"] = format!("{base}/certificate/{index}").into();
        }
        Response::new(Full::from(body.to_string()))
    }

    pub(super) fn authorization(&self, index: usize) -> Response<Full<Bytes>> {
        let order = self.state().orders[index].clone();
        let status = if order.status == "ready" { "valid" } else { order.status };
        let challenges = ["http-01", "tls-alpn-01", "dns-01"].map(|kind| self.challenge(index, kind));
        let body = json!({ "status": status, "identifier": { "type": "dns", "value": order.host },
            "challenges": challenges });
        Response::new(Full::from(body.to_string()))
    }

    pub(super) fn challenge(&self, index: usize, kind: &str) -> Value {
        let order = self.state().orders[index].clone();
        let status = if order.status == "ready" { "valid" } else { order.status };
        let mut body = BTreeMap::from([
            ("type", Value::from(kind)),
            ("url", format!("{}/challenge/{kind}/{index}", self.base).into()),
            ("token", order.token.into()),
            ("status", status.into()),
        ]);
        if let Some((_, error)) = order.error.filter(|(of, _)| of == kind) {
            let problem = json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": error });
            body.insert("error", problem);
        }
        json!(body)
    }

    /// Comes to look at it, once there is somewhere to look.
    pub(super) async fn validate(self: Arc<Self>, index: usize, kind: String) {
        let mut known = self.look.subscribe();
        let Ok(at) = known.wait_for(Option::is_some).await.map(|at| (*at).clone().unwrap()) else { return };
        let order = self.state().orders[index].clone();
        let thumbprint = self.state().accounts[order.account].thumbprint.clone();
        let outcome = validate::look(&at, &kind, &order.host, &order.token, &thumbprint).await;
        let mut state = self.state();
        match outcome {
            Ok(()) => state.orders[index].status = "ready",
            Err(error) => {
                state.orders[index].status = "invalid";
                state.orders[index].error = Some((kind, error));
            }
        }
    }

    pub(super) fn finalize(&self, index: usize, payload: &Value) -> Result<Response<Full<Bytes>>, Refusal> {
        {
            let mut state = self.state();
            state.seen.finalized += 1;
            if state.rules.finalize_faults > 0 {
                state.rules.finalize_faults -= 1;
                return Err((StatusCode::INTERNAL_SERVER_ERROR, "serverInternal", "as the test wants it".into()));
            }
        }
        let csr = payload["csr"].as_str().and_then(|text| BASE64.decode(text).ok());
        let csr = csr.ok_or_else(|| malformed("no CSR"))?;
        let order = self.state().orders[index].clone();
        if order.status != "ready" {
            return Err((StatusCode::FORBIDDEN, "orderNotReady", order.status.into()));
        }
        // Whoever asks has the key: the request is signed with it.
        let (_, parsed) = X509CertificationRequest::from_der(&csr).map_err(|error| malformed(error.to_string()))?;
        let point = &parsed.certification_request_info.subject_pki.subject_public_key.data;
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
            .verify(parsed.certification_request_info.raw, &parsed.signature_value.data)
            .map_err(|_| malformed("the CSR is not signed with its key"))?;
        let mut request = CertificateSigningRequestParams::from_der(&csr.as_slice().into())
            .map_err(|error| malformed(error.to_string()))?;
        let names: Vec<String> = request.params.subject_alt_names.iter().map(|name| format!("{name:?}")).collect();
        if !matches!(names.as_slice(), [name] if name.contains(&format!("\"{}\"", order.host))) {
            return Err(malformed(format!("a CSR for {names:?}")));
        }
        let mut state = self.state();
        let (begun, end) = (SystemTime::now() - state.rules.age, SystemTime::now() + state.rules.left);
        (request.params.not_before, request.params.not_after) = (begun.into(), end.into());
        state.counted += 1;
        request.params.serial_number = Some(SerialNumber::from(state.counted));
        let signed = if state.rules.wrong_key {
            request.params.signed_by(&KeyPair::generate().unwrap(), &self.issuer.0)
        } else {
            request.signed_by(&self.issuer.0)
        };
        let chain = format!("{}{}", signed.unwrap().pem(), self.issuer.0.pem());
        state.seen.issued += 1;
        state.orders[index].chain = Some(chain);
        state.orders[index].status = "valid";
        drop(state);
        Ok(self.shown(index))
    }
}
