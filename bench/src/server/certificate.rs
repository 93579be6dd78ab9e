//! The certificate that a server started here shows to clients that speak TLS: made anew each time, vouched for by nobody
//! but itself.
//!
//! Decides its kind: ECDSA P-256, so that each server that is compared signs alike. Called by `server` before it starts one;
//! `mosquitto` and `ironpost` name both files in what they write.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// Whom it is for, and by which name clients ask for it.
pub const NAME: &str = "localhost";

/// The certificate, PEM.
pub fn chain(data: &Path) -> PathBuf {
    data.join("chain.pem")
}

/// Its private key, PEM.
pub fn key(data: &Path) -> PathBuf {
    data.join("key.pem")
}

/// Makes both in the server's data directory, and returns the certificate for the clients to believe in.
pub fn write(data: &Path) -> Result<String> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&pair)?.pem();
    for (path, text) in [(chain(data), &certificate), (key(data), &pair.serialize_pem())] {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(certificate)
}
