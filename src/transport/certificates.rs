//! From PEM files to what TLS presents: certificates, their keys, and which of them a client is shown.
//!
//! Files are read when the broker starts and when it is told to read them again. What is wrong with them is said with
//! the file's name and what to do; nothing of a key is ever in a text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

/// A file that will not do. Its text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateError {
    /// Which.
    pub file: PathBuf,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: &'static str,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n  cure: {}", self.file.display(), self.cause, self.cure)
    }
}

impl std::error::Error for CertificateError {}

/// The implementation of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates with their keys, and for which names each is.
#[derive(Debug)]
pub struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    /// In lower case; `*.` in front stands for one label [RFC 6125 6.4.3]. Indices of `keys`, in their order.
    by_name: BTreeMap<String, Vec<usize>>,
}

impl Certificates {
    /// Reads them; `files` are pairs of a chain and its key, at least one.
    pub fn read<'a>(
        files: impl Iterator<Item = (&'a Path, &'a Path)>,
    ) -> Result<Certificates, CertificateError> {
        let provider = provider();
        let (mut keys, mut by_name) = (Vec::new(), BTreeMap::<String, Vec<usize>>::new());
        for (chain_file, key_file) in files {
            let cure =
                "name a PEM file with the server's certificate first and those that vouch for it behind";
            let chain = read_chain(chain_file, cure)?;
            for name in names_of(chain_file, &chain[0])? {
                by_name.entry(name).or_default().push(keys.len());
            }
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| CertificateError {
                file: key_file.to_owned(),
                cause: format!("no private key could be read: {error}"),
                cure: "name a PEM file with a key that is not encrypted, readable for the user that the broker runs as",
            })?;
            let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| CertificateError {
                file: key_file.to_owned(),
                cause: format!("not a key for {}: {error}", chain_file.display()),
                cure: "name the ECDSA (P-256, P-384), Ed25519 or RSA key that the certificate was made with",
            })?;
            keys.push(Arc::new(certified));
        }
        Ok(Certificates { keys, by_name })
    }

    /// Those for that name, else all: a client that does not know us by a name we have may know the first.
    fn candidates(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let wildcard = |name: &str| Some(format!("*.{}", name.split_once('.')?.1));
        let found = name
            .map(str::to_ascii_lowercase)
            .and_then(|name| self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard(&name)?)));
        let (some, all) = match found {
            Some(indices) => (indices.as_slice(), 0..0),
            None => ([].as_slice(), 0..self.keys.len()),
        };
        some.iter().copied().chain(all).map(|index| &self.keys[index])
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can_sign = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let mut candidates = self.candidates(hello.server_name()).peekable();
        let first = candidates.peek().copied();
        // Where none will do, TLS finds nothing in common with the first and says so; without one it would say that access is denied.
        candidates.find(can_sign).or(first).cloned()
    }
}

/// Who may connect, by certificate.
#[derive(Debug)]
pub struct Clients<'a> {
    /// Files with the certificates of those who vouch for them, at least one.
    pub authorities: &'a [PathBuf],
    /// Files with lists of what they vouch for no more (CRL, RFC 5280). If there are any, there is one of each authority.
    pub revoked: &'a [PathBuf],
    /// Whether who shows none is refused.
    pub required: bool,
}

impl Clients<'_> {
    /// Reads these files.
    pub fn read(&self) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
        let mut roots = RootCertStore::empty();
        for file in self.authorities {
            for certificate in
                read_chain(file, "name a PEM file with the certificates of who vouches for clients")?
            {
                roots.add(certificate).map_err(|error| CertificateError {
                    file: file.clone(),
                    cause: format!("a certificate in it is none, or vouches for nobody: {error}"),
                    cure: "name a PEM file with the certificates of who vouches for clients",
                })?;
            }
        }
        let mut lists = Vec::new();
        for file in self.revoked {
            let wrong = |cause: String| CertificateError {
                file: file.clone(),
                cause,
                cure: "name a PEM file with a certificate revocation list of one of the client_authorities",
            };
            let read: Result<Vec<_>, _> =
                CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
            let read = read.map_err(|error| wrong(format!("no revocation list could be read: {error}")))?;
            if read.is_empty() {
                return Err(wrong("there is no revocation list in it".to_owned()));
            }
            for list in &read {
                webpki::BorrowedCertRevocationList::from_der(list)
                    .map_err(|error| wrong(format!("its revocation list is none: {error}")))?;
            }
            lists.extend(read);
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls(lists)
            .only_check_end_entity_revocation();
        let builder = if self.required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| CertificateError {
            file: self.authorities[0].clone(),
            cause: format!("clients cannot be checked by what is in it: {error}"),
            cure: "name a PEM file with the certificates of who vouches for clients",
        })
    }
}

fn read_chain(file: &Path, cure: &'static str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |cause: String| CertificateError { file: file.to_owned(), cause, cure };
    let read = |error| wrong(format!("no certificate could be read: {error}"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(read)?.collect();
    let chain = chain.map_err(read)?;
    if chain.is_empty() { Err(wrong("there is no certificate in it".to_owned())) } else { Ok(chain) }
}

/// The DNS names of a certificate, in lower case.
fn names_of(file: &Path, certificate: &CertificateDer<'_>) -> Result<Vec<String>, CertificateError> {
    ParsedCertificate::try_from(certificate).map_err(|error| CertificateError {
        file: file.to_owned(),
        cause: format!("its first certificate is none: {error}"),
        cure: "ask whoever made it for an X.509 certificate, version 3",
    })?;
    let parsed = webpki::EndEntityCert::try_from(certificate).expect("it was just parsed the same way");
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
