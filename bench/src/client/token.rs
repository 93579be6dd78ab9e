//! Device tokens: JSON Web Tokens [RFC 7519] that this program signs itself, and the keys for it.
//!
//! Decides what stands in one: the algorithm and the name of its key, and who, by whom, from when and until when. Keys are files
//! in one folder: `NAME.der` to sign with (PKCS #8), `NAME.pem` for the server to check by. [`write_keys`] makes them when a
//! server is started that is to take tokens; a scenario reads them from there. Signing is never part of what is measured: tokens
//! are made before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use data_encoding::BASE64URL_NOPAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use crate::measure::clock;

/// How a token is signed [RFC 7518 3.1, RFC 8037 3.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "ES256")]
    Es256,
    /// With a key of 2,048 bits
    #[value(name = "RS256")]
    Rs256,
}

impl Algorithm {
    pub const ALL: [Algorithm; 3] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

    /// As it stands in a token; its key has the same name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }

    /// The public key in `folder`.
    pub fn public_key(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.pem", self.name()))
    }

    fn private_key(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.der", self.name()))
    }
}

/// How long a token is good for: nothing that is measured here takes as long.
const LIFE_S: u64 = 24 * 3_600;

/// Makes a key for each algorithm in `folder`.
pub fn write_keys(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for algorithm in Algorithm::ALL {
        let pair = match algorithm {
            Algorithm::EdDsa => KeyPair::generate_for(&PKCS_ED25519)?,
            Algorithm::Es256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Algorithm::Rs256 => KeyPair::from_pkcs8_pem_and_sign_algo(&make_rsa_key()?, &PKCS_RSA_SHA256)?,
        };
        fs::write(algorithm.private_key(folder), pair.serialized_der())?;
        fs::write(algorithm.public_key(folder), pair.public_key_pem())?;
    }
    Ok(())
}

/// PKCS #8 in PEM. Neither `ring` nor what is built on it makes RSA keys.
fn make_rsa_key() -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let made = command.output().context("an RSA key is made by `openssl`, which could not be started")?;
    ensure!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).context("what `openssl` made is no PEM")
}

/// Signs tokens with one key.
pub struct Signer {
    /// The first part of each token.
    header: String,
    key: Key,
    random: SystemRandom,
}

enum Key {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl Signer {
    /// With the key of that algorithm that `write_keys` made in `folder`.
    pub fn read(folder: &Path, algorithm: Algorithm) -> Result<Signer> {
        let path = algorithm.private_key(folder);
        let der = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let random = SystemRandom::new();
        let key = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Key::EdDsa),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).map(Key::Es256)
            }
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(&der).map(Key::Rs256),
        };
        let key = key.map_err(|error| anyhow!("{} is no key: {error}", path.display()))?;
        let header = json!({ "alg": algorithm.name(), "kid": algorithm.name(), "typ": "JWT" });
        Ok(Signer { header: BASE64URL_NOPAD.encode(header.to_string().as_bytes()), key, random })
    }

    /// A token that says that its bearer is `subject`.
    pub fn token(&self, subject: &str) -> Result<String> {
        let now = clock::unix_seconds();
        let claims = json!({ "iss": "ironpost-bench", "sub": subject, "iat": now, "exp": now + LIFE_S });
        let mut token = format!("{}.{}", self.header, BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&signature));
        Ok(token)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signed = match &self.key {
            Key::EdDsa(key) => Ok(key.sign(message).as_ref().to_vec()),
            Key::Es256(key) => key.sign(&self.random, message).map(|signature| signature.as_ref().to_vec()),
            Key::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature).map(|()| signature)
            }
        };
        signed.ok().context("a token could not be signed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };

    /// What a server has: the PEM file, of which the last bytes are the key itself.
    fn public_key(folder: &Path, algorithm: Algorithm) -> Vec<u8> {
        let pem = fs::read_to_string(algorithm.public_key(folder)).unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        // The frame around it: a sequence, the algorithm, and a string of bits (RFC 5480 2, RFC 8410 4, RFC 3279 2.3.1).
        let frame = match algorithm {
            Algorithm::EdDsa => 12,
            Algorithm::Es256 => 26,
            Algorithm::Rs256 => 24,
        };
        der[frame..].to_vec()
    }

    #[test]
    fn a_token_is_signed_by_the_key_whose_public_half_is_in_the_file() {
        let folder = std::env::temp_dir().join(format!("ironpost-bench-token-test-{}", std::process::id()));
        write_keys(&folder).unwrap();
        let verify: [&dyn VerificationAlgorithm; 3] =
            [&ED25519, &ECDSA_P256_SHA256_FIXED, &RSA_PKCS1_2048_8192_SHA256];
        for (algorithm, verify) in Algorithm::ALL.into_iter().zip(verify) {
            let token = Signer::read(&folder, algorithm).unwrap().token("device-7").unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
            let key = UnparsedPublicKey::new(verify, public_key(&folder, algorithm));
            assert!(key.verify(signed.as_bytes(), &signature).is_ok(), "{token}");
            let [header, claims] = signed
                .split_once('.')
                .map(|(header, claims)| [header, claims])
                .unwrap()
                .map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
                .map(|part| serde_json::from_slice::<serde_json::Value>(&part).unwrap());
            assert_eq!((&header["alg"], &claims["sub"]), (&json!(algorithm.name()), &json!("device-7")));
            assert!(claims["exp"].as_u64() > claims["iat"].as_u64());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
