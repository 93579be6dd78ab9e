//! The tables `[authentication]` and `[authorization]`: where proofs are checked against, and what says who may do what.
//!
//! Which listener asks for which proof, the listener's table says. Files are named here and read by `access`.

use std::path::PathBuf;

use super::Config;
use super::error::Complaint;
use super::setting::{Kind, Setting, choose, integer, narrow, word_of};
use crate::access::certificate::NameFrom;
use crate::limits;

/// The tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthenticationConfig {
    /// Users and what their passwords are checked against.
    pub password_file: Option<PathBuf>,
    /// Public keys that tokens are signed with: PEM, or JWKS.
    pub token_keys: Vec<PathBuf>,
    /// Who has to have issued a token.
    pub token_issuer: Option<String>,
    /// For whom a token has to be.
    pub token_audience: Option<String>,
    /// The claim that names the account.
    pub token_account_claim: String,
    /// What of a certificate names the account.
    pub certificate_name: NameFrom,
    /// The site's own service.
    pub hook_url: Option<String>,
    /// A file with the secret that it knows us by.
    pub hook_secret_file: Option<PathBuf>,
    /// A PEM file with the authorities of its certificate.
    pub hook_authorities: Option<PathBuf>,
    /// How long it may take to answer.
    pub hook_timeout_ms: u32,
    /// How long its answers hold, unless they say so themselves.
    pub hook_cache_s: u32,
    /// Who may do what.
    pub rules: Option<PathBuf>,
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        AuthenticationConfig {
            password_file: None,
            token_keys: Vec::new(),
            token_issuer: None,
            token_audience: None,
            token_account_claim: "sub".to_owned(),
            certificate_name: NameFrom::CommonName,
            hook_url: None,
            hook_secret_file: None,
            hook_authorities: None,
            hook_timeout_ms: limits::HOOK_TIMEOUT_MS_DEFAULT,
            hook_cache_s: limits::HOOK_CACHE_S_DEFAULT,
            rules: None,
        }
    }
}

const NAMES: &[(&str, NameFrom)] = &[
    ("common-name", NameFrom::CommonName),
    ("dns", NameFrom::Dns),
    ("email", NameFrom::Email),
    ("uri", NameFrom::Uri),
];

fn shown(path: Option<&PathBuf>) -> String {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

fn path(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn word(text: &str) -> Option<String> {
    Some(text).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn set_url(config: &mut Config, text: &str) -> Result<(), Complaint> {
    if !text.is_empty() && !text.starts_with("https://") && !text.starts_with("http://") {
        let cure = "write an address that begins with https://, or http:// on this host";
        return Err(Complaint::new(format!("{text:?} is no address of a hook"), cure));
    }
    let host = text.strip_prefix("http://").and_then(|rest| rest.split(['/', '?', ':']).next());
    let is_elsewhere =
        |host: &str| host != "localhost" && !host.starts_with("127.") && !text.starts_with("http://[::1]");
    if host.is_some_and(is_elsewhere) {
        let cure = "write https://, or an address of this host like http://127.0.0.1:8080/";
        return Err(Complaint::new(format!("{text:?} would send passwords in the clear"), cure));
    }
    config.authentication.hook_url = word(text);
    Ok(())
}

fn set_keys(config: &mut Config, texts: &[String]) -> Result<(), Complaint> {
    if texts.iter().any(String::is_empty) {
        return Err(Complaint::new("a file name is empty", "name a PEM or JWKS file, or delete the entry"));
    }
    config.authentication.token_keys = texts.iter().map(PathBuf::from).collect();
    Ok(())
}

fn set_claim(config: &mut Config, text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(Complaint::new("the claim has no name", "name one, like \"sub\""));
    }
    config.authentication.token_account_claim = text.to_owned();
    Ok(())
}

/// A setting of one text.
const fn text(
    key: &'static str,
    get: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> Result<(), Complaint>,
) -> Setting<Config> {
    Setting { key, kind: Kind::Text { get, set } }
}

/// All of these, in the order of the example.
pub(super) const SETTINGS: &[Setting<Config>] = &[
    text(
        "authentication.password_file",
        |config| shown(config.authentication.password_file.as_ref()),
        |config, text| {
            config.authentication.password_file = path(text);
            Ok(())
        },
    ),
    Setting {
        key: "authentication.token_keys",
        kind: Kind::Texts {
            get: |config| config.authentication.token_keys.iter().map(|key| shown(Some(key))).collect(),
            set: set_keys,
        },
    },
    text(
        "authentication.token_issuer",
        |config| config.authentication.token_issuer.clone().unwrap_or_default(),
        |config, text| {
            config.authentication.token_issuer = word(text);
            Ok(())
        },
    ),
    text(
        "authentication.token_audience",
        |config| config.authentication.token_audience.clone().unwrap_or_default(),
        |config, text| {
            config.authentication.token_audience = word(text);
            Ok(())
        },
    ),
    text(
        "authentication.token_account_claim",
        |config| config.authentication.token_account_claim.clone(),
        set_claim,
    ),
    text(
        "authentication.certificate_name",
        |config| word_of(&config.authentication.certificate_name, NAMES),
        |config, text| {
            choose("certificate_name", text, NAMES).map(|name| config.authentication.certificate_name = name)
        },
    ),
    text(
        "authentication.hook_url",
        |config| config.authentication.hook_url.clone().unwrap_or_default(),
        set_url,
    ),
    text(
        "authentication.hook_secret_file",
        |config| shown(config.authentication.hook_secret_file.as_ref()),
        |config, text| {
            config.authentication.hook_secret_file = path(text);
            Ok(())
        },
    ),
    text(
        "authentication.hook_authorities",
        |config| shown(config.authentication.hook_authorities.as_ref()),
        |config, text| {
            config.authentication.hook_authorities = path(text);
            Ok(())
        },
    ),
    integer(
        "authentication.hook_timeout_ms",
        1,
        limits::HOOK_TIMEOUT_MS_MAX as u64,
        |c| c.authentication.hook_timeout_ms.into(),
        |c, n| c.authentication.hook_timeout_ms = narrow(n),
    ),
    integer(
        "authentication.hook_cache_s",
        0,
        86_400,
        |c| c.authentication.hook_cache_s.into(),
        |c, n| c.authentication.hook_cache_s = narrow(n),
    ),
    text(
        "authorization.rules",
        |config| shown(config.authentication.rules.as_ref()),
        |config, text| {
            config.authentication.rules = path(text);
            Ok(())
        },
    ),
];
