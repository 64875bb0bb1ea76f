//! `[listener.tls]`: certificates of ours, and of clients.

use crate::config::reader::{Given, OneOrMany, Size, Span, raw_choice, raw_table};

raw_table! {
    /// TLS of a listener. Files that change are read again, within seconds and on SIGHUP.
    TlsTable {
        /// PEM file with the certificate chain, leaf first. Relative to this file.
        certificate: String,
        /// PEM file with its private key.
        key: String,
        /// Several pairs in place of `certificate` and `key`. A client gets the first that is good for the name it asks
        /// for (an exact name before a wildcard) and of a kind that it knows: put ECDSA before RSA.
        pairs: Vec<Given<PairTable>>,
        /// Certificates that are ordered and renewed from a CA by itself, in place of the others or beside `pairs`.
        acme: AcmeTable,
        /// What a client gets that asks for no name, or for one that no certificate is good for. Default `first`.
        unnamed: UnnamedWord,
        /// Maximum size of sent TLS records, including header and encryption overhead; 512B to 16KiB. Default `16KiB`:
        /// full-size records. Lower it for small devices, to the size of their receive buffer.
        max_record_size: Size,
        /// Which requests are served when their host belongs to another route than the name in the TLS handshake (SNI).
        /// Default `certificate`. Set `any` only behind a CDN that uses one fixed name for all hosts.
        foreign_host: ForeignHostWord,
        /// Versions of TLS. Default `intermediate`.
        versions: VersionsWord,
        /// Certificates of clients (mTLS). Default none are asked for. What upstreams are told of them, and what a
        /// listener that asks for them does without: see operations.md.
        client: ClientTable,
        /// Make a local CA and a certificate for localhost when the files are missing. Default false. Never in production.
        development: bool,
        /// Longest TLS handshake. Default `10s`.
        handshake_timeout: Span,
        /// Whether to speak HTTP/2 with clients that know it (ALPN `h2`), WebSockets included (RFC 8441). Default true.
        http2: bool,
    }
}

raw_table! {
    /// A certificate and its key.
    PairTable {
        /// PEM file with the certificate chain, leaf first. Relative to this file.
        certificate: String,
        /// PEM file with its private key.
        key: String,
    }
}

raw_table! {
    /// Certificates of clients. Files that change are read again, within seconds and on SIGHUP.
    ClientTable {
        /// Whether clients are asked for one. Default `required`. One that was not issued by `ca`, or has ended, or was
        /// revoked, is refused in the TLS handshake, by `optional` too.
        mode: ClientModeWord,
        /// PEM file with the CAs that issue them. Relative to this file. No other certificate is trusted here.
        ca: String,
        /// PEM file with CRLs, or several. Default none: nothing counts as revoked. With any, each CA that issued a
        /// certificate of the chain needs one that has not ended: without it, nobody of that CA is let in.
        crl: OneOrMany,
    }
}

raw_table! {
    /// Certificates from a CA that speaks ACME (RFC 8555), one for each host. To use it is to agree to the CA's terms.
    AcmeTable {
        /// `https` URL of the CA's directory. Begin with one for tests: real ones limit how often one may try.
        directory: String,
        /// Whom the CA writes to, such as `mailto:ops@example.com`. Default nobody.
        contact: OneOrMany,
        /// Hosts to have a certificate for, at most 100. No wildcards: those need DNS.
        hosts: OneOrMany,
        /// How the CA sees that the hosts are ours. Default `tls-alpn-01`.
        challenge: ChallengeWord,
        /// Folder for the account's key and the certificates, made where it is missing. Relative to this file.
        storage: String,
        /// PEM file with the root to trust when talking to the CA. Default the system's roots.
        ca: String,
        /// For CAs that want to know whom the account belongs to: the key id they gave (RFC 8555 §7.3.4).
        external_account: String,
        /// File with the key that came with it, in base64url.
        external_account_key: String,
    }
}

raw_choice! {
    /// What a client gets whose name has no certificate.
    UnnamedWord {
        /// The first certificate.
        First = "first",
        /// No TLS: the handshake fails.
        Refuse = "refuse",
    }
}

raw_choice! {
    /// Requests for a host of another route than the name in the TLS handshake.
    ForeignHostWord {
        /// Those whose host the certificate of the connection covers, unless that would bypass a client certificate
        /// that a listener requests. Others are answered with 421.
        Certificate = "certificate",
        /// All.
        Any = "any",
    }
}

raw_choice! {
    /// Versions of TLS.
    VersionsWord {
        /// 1.2 and 1.3, with forward secrecy and authenticated encryption only.
        Intermediate = "intermediate",
        /// 1.3 alone.
        Modern = "modern",
    }
}

raw_choice! {
    /// Whether clients are asked for certificates.
    ClientModeWord {
        /// They are not, whatever else stands here.
        Off = "off",
        /// A client may have none; upstreams are then told nothing of one.
        Optional = "optional",
        /// A client without one is refused in the TLS handshake.
        Required = "required",
    }
}

raw_choice! {
    /// How a CA sees that a host is ours.
    ChallengeWord {
        /// By a TLS handshake on port 443 of the host (RFC 8737), which this listener answers.
        TlsAlpn01 = "tls-alpn-01",
        /// By a request on port 80 of the host (RFC 8555 §8.3), which every plain listener answers.
        Http01 = "http-01",
    }
}
