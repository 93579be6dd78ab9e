//! Asks a site's own HTTP service whether a client may connect.
//!
//! Decides what the service is told, what counts as its answer, and that everything else is none: [`Unreachable`], upon
//! which the caller refuses the client. Nothing but a whole, well-formed answer ever allows anybody. Does not decide when
//! to ask, how long an answer stays good, what a permission means, or when to stop asking a service that fails. Called by
//! the threads that may wait: [`Hook::ask`] blocks, for the time in the settings at most.
//!
//! The question is a POST of one JSON object (RFC 8259):
//!
//! | field | value |
//! |---|---|
//! | `username` | text or null |
//! | `password` | text; absent if it is not UTF-8 |
//! | `password_base64` | in its place then (RFC 4648 section 4, padded) |
//! | `client_id`, `listener` | text |
//! | `address` | the client's, as text, or null |
//! | `protocol_version` | 3, 4 or 5 |
//!
//! | answer | means |
//! |---|---|
//! | 200 and a JSON object | what its `allow` says; see [`Allowed`] for the other fields, all of them optional |
//! | 204 | allowed, nothing more said |
//! | 401, 403 | denied, whatever the body |
//! | 400, 413, 422, 431 | the same: it does not take what this client sent |
//! | anything else, or none | unreachable |
//!
//! A field that we do not know is ignored, null is as good as absent, and a field of another type or beyond its bound makes
//! the whole answer none. Redirects are not followed, cookies not kept, and no environment variable names a proxy: a
//! password goes to the host in the URL or nowhere. It is wiped from every buffer of ours once sent, and so is the secret
//! that we show; neither is in any text. Nor is the URL's path, where a site may have put a key.
//!
//! ureq was chosen for deadlines that hold from the name's lookup to the body's last byte, kept connections, and bounded
//! headers, on the rustls that is here already. minreq makes a connection for each request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{HeaderValue, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use crate::limits;

mod connection;
#[cfg(test)]
mod tests;

/// Where the certificates lie that a platform trusts, by family: Debian, Red Hat, SUSE, Alpine.
const PLATFORM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the operator sets.
pub struct HookSettings {
    /// `http://` or `https://`, at most [`limits::HOOK_URL_BYTES_MAX`] bytes, without user name and fragment.
    pub url: String,
    /// 1..=[`limits::HOOK_TIMEOUT_MS_MAX`], from the lookup of the name to the last byte.
    pub timeout_ms: u32,
    /// The content of a file with the secret to show (RFC 6750 section 2.1), white space around it ignored.
    pub bearer: Option<Zeroizing<Vec<u8>>>,
    /// PEM certificates of who vouches for the service; without, those that the platform trusts. For `https://` only.
    pub authorities: Option<Vec<u8>>,
}

impl fmt::Debug for HookSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HookSettings")
            .field("timeout_ms", &self.timeout_ms)
            .field("bearer", &self.bearer.as_ref().map(|_| "redacted"))
            .field("authorities_bytes", &self.authorities.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// Settings that will not do. Its text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookError {
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: &'static str,
}

impl fmt::Display for HookError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n  cure: {}", self.cause, self.cure)
    }
}

impl std::error::Error for HookError {}

/// A client that wants to connect.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The user name of its CONNECT.
    pub username: Option<&'a str>,
    /// The password of its CONNECT, empty if there is none.
    pub password: &'a [u8],
    /// Its client id.
    pub client_id: &'a str,
    /// Where it comes from, if that is known.
    pub address: Option<IpAddr>,
    /// The name of the listener that accepted it.
    pub listener: &'a str,
    /// The protocol version of its CONNECT.
    pub version: u8,
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Question")
            .field("username", &self.username)
            .field("client_id", &self.client_id)
            .field("address", &self.address)
            .field("listener", &self.listener)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What the service said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The client may connect.
    Allowed(Allowed),
    /// It may not.
    Denied {
        /// How long the service stands by that, in seconds: `cache_s`.
        cache_s: Option<u32>,
    },
}

/// What goes with a yes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Allowed {
    /// `account`: 1..=[`limits::HOOK_NAME_BYTES_MAX`] bytes without control characters.
    pub account: Option<Box<str>>,
    /// `groups`: at most [`limits::HOOK_GROUPS_MAX`], each like an account.
    pub groups: Vec<Box<str>>,
    /// `permissions`: at most [`limits::HOOK_PERMISSIONS_MAX`] of a topic filter, whether to publish and whether to
    /// subscribe (AIF-MQTT, RFC 9431 section 3). Filters are as the service wrote them, not judged here. An empty list
    /// grants nothing; none leaves it to other rules.
    pub permissions: Option<Vec<(Box<str>, bool, bool)>>,
    /// `expires_in_s`: after how many seconds the client has to be gone.
    pub expires_in_s: Option<u64>,
    /// `cache_s`: for how many seconds the same question has the same answer.
    pub cache_s: Option<u32>,
}

/// No answer, or none that counts. Its text is for the log, without secrets and without what the service sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// A site's service, with connections to it. Threads share it.
pub struct Hook {
    agent: Agent,
    url: Uri,
    authorization: Option<HeaderValue>,
    timeout_ms: u32,
}

impl fmt::Debug for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hook")
            .field("service", &format_args!("{}", self.origin()))
            .finish_non_exhaustive()
    }
}

impl Hook {
    /// Judges the settings; makes no connection. Reads the platform's certificates if it needs them.
    pub fn new(settings: HookSettings) -> Result<Hook, HookError> {
        let HookSettings { url, timeout_ms, bearer, authorities } = settings;
        let (url, names) = parse_url(&url)?;
        if !(1..=limits::HOOK_TIMEOUT_MS_MAX).contains(&timeout_ms) {
            let most = limits::HOOK_TIMEOUT_MS_MAX;
            let cause =
                format!("{timeout_ms} ms for the access service to answer, where 1 to {most} will do");
            return Err(HookError { cause, cure: "set a time within that range" });
        }
        let authorization = bearer.as_deref().map(|secret| authorization(secret)).transpose()?;
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(u64::from(timeout_ms))))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("ironpost")
            .accept("application/json")
            .max_response_header_size(limits::HOOK_HEADER_BYTES_MAX)
            .input_buffer_size(2 * limits::HOOK_HEADER_BYTES_MAX)
            .output_buffer_size(4 * limits::HOOK_BEARER_BYTES_MAX)
            .max_idle_connections(limits::HOOK_IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(limits::HOOK_IDLE_CONNECTIONS_MAX)
            .max_idle_age(Duration::from_millis(limits::HOOK_IDLE_MS_MAX));
        if url.scheme_str() == Some("https") {
            let roots = match authorities {
                Some(pem) => configured_roots(&pem)?,
                None => platform_roots()?,
            };
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(roots)))
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
            config = config.tls_config(tls.build());
        }
        Ok(Hook { agent: connection::agent(config.build(), names), url, authorization, timeout_ms })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&self, question: &Question<'_>) -> Result<Answer, Unreachable> {
        let json = question.json();
        let mut request = self.agent.post(self.url.clone()).content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send(json.as_slice()).map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let mut body =
            || response.body_mut().with_config().limit(limits::HOOK_ANSWER_BYTES_MAX).read_to_vec();
        match status {
            200 => {
                let body = body().map_err(|error| self.unreachable(&error))?;
                parse_reply(&body).map_err(|cause| self.no_answer(cause))
            }
            204 => Ok(Answer::Allowed(Allowed::default())),
            // Or it does not take what this client sent: that is no reason not to ask it about others.
            401 | 403 | 400 | 413 | 422 | 431 => {
                // Read so that the connection can be used again; a no is a no, whatever becomes of its body.
                let _ = body();
                Ok(Answer::Denied { cache_s: None })
            }
            other => Err(self.no_answer(format_args!("answered with status {other}"))),
        }
    }

    fn no_answer(&self, cause: impl fmt::Display) -> Unreachable {
        Unreachable(format!("access service {} {cause}", self.origin()))
    }

    /// What of an error may be said. Texts about the content of an answer are ours: it may repeat what it was sent.
    fn unreachable(&self, error: &ureq::Error) -> Unreachable {
        use ureq::Error;
        match error {
            Error::Timeout(_) => {
                self.no_answer(format_args!("had not answered after {} ms", self.timeout_ms))
            }
            Error::HostNotFound => {
                self.no_answer("has a name without an address: ask the host's name service")
            }
            Error::BodyExceedsLimit(limit) => {
                self.no_answer(format_args!("answered with more than {limit} bytes"))
            }
            Error::LargeResponseHeader(_, limit) => {
                self.no_answer(format_args!("answered with headers of more than {limit} bytes"))
            }
            Error::Io(error) => self.no_answer(format_args!("cannot be talked to: {}", one_line(error))),
            Error::Rustls(error) => self.no_answer(format_args!("cannot be trusted: {}", one_line(error))),
            Error::Protocol(_) => self.no_answer("answered with what is not HTTP/1.1"),
            _ => self.no_answer("could not be asked"),
        }
    }

    /// The URL without what may be secret.
    fn origin(&self) -> impl fmt::Display {
        let (scheme, authority) = (self.url.scheme_str(), self.url.authority());
        format!("{}://{}", scheme.unwrap_or_default(), authority.map_or("", |authority| authority.as_str()))
    }
}

/// The fields of the question's object.
#[derive(Serialize)]
struct Fields<'a> {
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<&'a str>,
    client_id: &'a str,
    address: Option<IpAddr>,
    listener: &'a str,
    protocol_version: u8,
}

impl Question<'_> {
    fn json(&self) -> Zeroizing<Vec<u8>> {
        let text = std::str::from_utf8(self.password).ok();
        let base64 = match text {
            Some(_) => None,
            None => Some(Zeroizing::new(data_encoding::BASE64.encode(self.password))),
        };
        let fields = Fields {
            username: self.username,
            password: text,
            password_base64: base64.as_ref().map(|base64| base64.as_str()),
            client_id: self.client_id,
            address: self.address.map(|address| address.to_canonical()),
            listener: self.listener,
            protocol_version: self.version,
        };
        // A vector that grew would leave a copy of the password behind, so it never does: one byte of text takes at most
        // the six of \u0000, and names and punctuation of the object, with an address, stay below 256.
        let texts = self.username.map_or(0, str::len) + self.client_id.len() + self.listener.len();
        let capacity = 256 + 6 * (texts + self.password.len());
        let mut json = Zeroizing::new(Vec::with_capacity(capacity));
        serde_json::to_writer(&mut *json, &fields).expect("text and numbers, written to memory");
        assert!(json.len() <= capacity, "room for the longest form was made");
        json
    }
}

/// The fields of the answer's object.
#[derive(Deserialize)]
struct Reply {
    allow: bool,
    account: Option<Box<str>>,
    groups: Option<Vec<Box<str>>>,
    permissions: Option<Vec<(Box<str>, Vec<Right>)>>,
    expires_in_s: Option<u64>,
    cache_s: Option<u32>,
}

#[derive(Deserialize, PartialEq, Eq)]
enum Right {
    #[serde(rename = "pub")]
    Publish,
    #[serde(rename = "sub")]
    Subscribe,
}

/// The error is a text that continues "the service ...".
fn parse_reply(body: &[u8]) -> Result<Answer, String> {
    // The parser's own text would quote the answer.
    let reply: Reply = serde_json::from_slice(body).map_err(|error| {
        let wrong =
            if error.is_data() { "a field that is missing, doubled or of another type" } else { "no JSON" };
        format!("answered with {wrong}, noticed in line {} at column {}", error.line(), error.column())
    })?;
    if !reply.allow {
        return Ok(Answer::Denied { cache_s: reply.cache_s });
    }
    if reply.account.as_ref().is_some_and(|account| !is_name(account)) {
        return Err("answered with an account that is empty, too long or has a control character".to_owned());
    }
    let groups = reply.groups.unwrap_or_default();
    if groups.len() > limits::HOOK_GROUPS_MAX {
        return Err(format!("answered with more than {} groups", limits::HOOK_GROUPS_MAX));
    }
    if !groups.iter().all(|group| is_name(group)) {
        return Err("answered with a group that is empty, too long or has a control character".to_owned());
    }
    if reply.permissions.as_ref().is_some_and(|list| list.len() > limits::HOOK_PERMISSIONS_MAX) {
        return Err(format!("answered with more than {} permissions", limits::HOOK_PERMISSIONS_MAX));
    }
    let permission = |(filter, rights): (Box<str>, Vec<Right>)| {
        (filter, rights.contains(&Right::Publish), rights.contains(&Right::Subscribe))
    };
    Ok(Answer::Allowed(Allowed {
        account: reply.account,
        groups,
        permissions: reply.permissions.map(|list| list.into_iter().map(permission).collect()),
        expires_in_s: reply.expires_in_s,
        cache_s: reply.cache_s,
    }))
}

fn is_name(text: &str) -> bool {
    (1..=limits::HOOK_NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn parse_url(text: &str) -> Result<(Uri, connection::Names), HookError> {
    let wrong = |cause: &str| HookError {
        cause: format!("the URL of the access service {cause}"),
        cure: "write it like https://access.example.net/mqtt or http://127.0.0.1:8080/mqtt",
    };
    if text.len() > limits::HOOK_URL_BYTES_MAX {
        return Err(wrong("is too long"));
    }
    // Of the text nothing is shown: it may hold a password before an @, or a key in its path.
    if text.contains('#') {
        return Err(wrong("has a fragment"));
    }
    let url: Uri = text.parse().map_err(|_| wrong("is none"))?;
    let default_port = match url.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(wrong("begins neither with http:// nor with https://")),
    };
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else {
        return Err(wrong("has no host"));
    };
    if authority.as_str().contains('@') {
        return Err(wrong("has a user name in it, for which there is the bearer secret"));
    }
    let port = match (url.port_u16(), authority.as_str().len() > host.len()) {
        (Some(0), _) | (None, true) => return Err(wrong("has a port that is none")),
        (Some(port), _) => port,
        (None, false) => default_port,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if ServerName::try_from(bare).is_err() {
        return Err(wrong("has a host that is neither a name nor an address"));
    }
    let names = connection::Names::new(bare, port);
    Ok((url, names))
}

/// The header that shows the secret, over memory that is wiped with its last copy.
fn authorization(secret: &[u8]) -> Result<HeaderValue, HookError> {
    let secret = secret.trim_ascii();
    // The characters of a b64token [RFC 6750 2.1].
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if secret.is_empty() || secret.len() > limits::HOOK_BEARER_BYTES_MAX || !secret.iter().all(allowed) {
        return Err(HookError {
            cause: format!(
                "the secret for the access service is empty, longer than {} bytes, or has characters that none has",
                limits::HOOK_BEARER_BYTES_MAX
            ),
            cure: "put letters, digits and -._~+/= into its file, like those of `openssl rand -base64 32`",
        });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(b"Bearer ".len() + secret.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(secret);
    let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from_owner(text))
        .expect("ASCII without control characters");
    value.set_sensitive(true);
    Ok(value)
}

fn configured_roots(pem: &[u8]) -> Result<Vec<Certificate<'static>>, HookError> {
    let wrong = |cause: String| HookError {
        cause: format!("the authorities for the access service: {cause}"),
        cure: "name a PEM file with the certificates of who vouches for the service",
    };
    let mut store = RootCertStore::empty();
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| wrong(format!("no certificate could be read: {error}")))?;
        roots.push(Certificate::from_der(&certificate).to_owned());
        store
            .add(certificate)
            .map_err(|error| wrong(format!("a certificate is none, or vouches for nobody: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("there is no certificate in the file".to_owned())) } else { Ok(roots) }
}

/// Those that will not do are left out: the bundle is the distribution's.
fn platform_roots() -> Result<Vec<Certificate<'static>>, HookError> {
    for file in PLATFORM_AUTHORITIES {
        let Ok(pem) = std::fs::read(file) else { continue };
        let roots: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .filter_map(Result::ok)
            .map(|certificate| Certificate::from_der(&certificate).to_owned())
            .collect();
        if !roots.is_empty() {
            return Ok(roots);
        }
    }
    Err(HookError {
        cause: "this host has no certificates of authorities that vouch for the access service".to_owned(),
        cure: "install the package ca-certificates, or name a PEM file with the authority of the service",
    })
}

/// A text by others, made fit for a line of the log.
fn one_line(text: impl fmt::Display) -> String {
    let text = text.to_string();
    text.chars().filter(|character| !character.is_control()).take(limits::HOOK_CAUSE_CHARACTERS_MAX).collect()
}
