//! What proofs are checked against: everything that all listeners of the process share.
//!
//! Reads the files that the configuration names, and is as a whole replaced when they are read again; what must not be forgotten then
//! (who tried wrong proofs, what the hook said) is carried over. Called by `shard` at start, and by [`guard`](super::guard).

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::answers::{Answers, Breaker, Decision, Login, Outcome};
use super::back_off::BackOff;
use super::certificate::NameFrom;
use super::guard::{AccountSource, Refusal};
use super::hook::{self, Allowed, Answer, Hook, Question};
use super::passwords::Passwords;
use super::rules::Rules;
use super::scram::Decoys;
use super::tokens::{self, Claims, TokenError, Tokens};
use crate::limits::ACCESS_FILE_BYTES_MAX;
use crate::time::UnixMs;
use crate::wire::ReasonCode;

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What decides the account.
    pub account: AccountSource,
    /// Users and their passwords.
    pub password_file: Option<PathBuf>,
    /// Keys that tokens are signed with.
    pub token_keys: Vec<PathBuf>,
    /// What else tokens must say.
    pub tokens: tokens::Settings,
    /// What of a certificate is the name.
    pub certificate_name: NameFrom,
    /// The site's own service.
    pub hook: Option<HookSources>,
    /// Who may do what.
    pub rules: Option<PathBuf>,
    /// Of the table of rules, and others that are looked up by what peers choose: as random as can be had.
    pub hash_key: [u8; 16],
}

/// The same of the site's own service.
#[derive(Clone, Debug)]
pub struct HookSources {
    /// Where it is.
    pub url: String,
    /// A file with the secret that it knows us by.
    pub secret_file: Option<PathBuf>,
    /// A file with the authorities of its certificate.
    pub authorities: Option<PathBuf>,
    /// How long it may take.
    pub timeout_ms: u32,
    /// How long its answers hold, unless they say so.
    pub cache_s: u32,
}

/// A file that will not do. Its text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessError {
    /// Which, or which setting.
    pub place: String,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: String,
}

impl AccessError {
    fn new(place: impl Into<String>, cause: impl Into<String>, cure: impl Into<String>) -> AccessError {
        AccessError { place: place.into(), cause: cause.into(), cure: cure.into() }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n  cure: {}", self.place, self.cause, self.cure)
    }
}

impl std::error::Error for AccessError {}

/// What lasts when files are read again.
struct Lasting {
    back_off: Mutex<BackOff>,
    answers: Mutex<Answers<Arc<Allowed>>>,
    breaker: Mutex<Breaker>,
    /// From which what unknown users are asked is made.
    secret: Zeroizing<[u8; 32]>,
}

/// See the module documentation.
pub struct Keeper {
    account: AccountSource,
    certificate_name: NameFrom,
    passwords: Option<Passwords>,
    decoys: Decoys,
    tokens: Option<Tokens>,
    hook: Option<Hook>,
    hook_cache_s: u32,
    rules: Option<Arc<Rules>>,
    lasting: Arc<Lasting>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keeper")
    }
}

impl Keeper {
    /// Reads everything; `random` is for what no client may foresee.
    pub fn read(
        sources: &Sources,
        before: Option<&Keeper>,
        mut random: impl FnMut() -> u64,
    ) -> Result<Keeper, AccessError> {
        let lasting = match before {
            Some(before) => before.lasting.clone(),
            None => Arc::new(Lasting {
                back_off: Mutex::new(BackOff::new(key(&mut random))),
                answers: Mutex::new(Answers::new(bytes(&mut random))),
                breaker: Mutex::new(Breaker::default()),
                secret: Zeroizing::new(bytes(&mut random)),
            }),
        };
        let passwords = sources.password_file.as_deref().map(read_passwords).transpose()?;
        let tokens = if sources.token_keys.is_empty() { None } else { Some(read_tokens(sources)?) };
        let hook = sources.hook.as_ref().map(read_hook).transpose()?;
        let rules = sources.rules.as_deref().map(|file| read_rules(file, sources.hash_key)).transpose()?;
        let shape = passwords.as_ref().map(Passwords::scram_shape).unwrap_or_default();
        if passwords.is_some() || tokens.is_some() || rules.is_some() {
            tracing::info!(
                event = "access_read",
                users = passwords.as_ref().map_or(0, Passwords::len),
                token_keys = tokens.as_ref().map_or(0, Tokens::keys),
                token_keys_skipped = tokens.as_ref().map_or(0, Tokens::skipped),
                rules = rules.as_ref().map_or(0, Rules::len)
            );
        }
        // Who was let in lately may not be any more.
        held(&lasting.answers).clear();
        Ok(Keeper {
            decoys: Decoys::new(*lasting.secret, shape),
            account: sources.account,
            certificate_name: sources.certificate_name,
            passwords,
            tokens,
            hook,
            hook_cache_s: sources.hook.as_ref().map_or(0, |hook| hook.cache_s),
            rules: rules.map(Arc::new),
            lasting,
        })
    }

    /// Who may do what.
    pub fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.clone()
    }

    pub(super) fn account(&self) -> AccountSource {
        self.account
    }

    pub(super) fn certificate_name(&self) -> NameFrom {
        self.certificate_name
    }

    pub(super) fn passwords(&self) -> Option<&Passwords> {
        self.passwords.as_ref()
    }

    pub(super) fn decoys(&self) -> &Decoys {
        &self.decoys
    }

    pub(super) fn verify_token(&self, token: &[u8], at: UnixMs) -> Result<Claims, TokenError> {
        let tokens = self.tokens.as_ref().expect("a listener that takes tokens has keys for them");
        tokens.verify(token, at.0 / 1_000)
    }

    /// The same of several; `None` is nothing to say anything about.
    pub(super) fn verify_tokens(
        &self,
        tokens: &[Option<(&[u8], UnixMs)>],
    ) -> Vec<Option<Result<Claims, TokenError>>> {
        let Some(keys) = &self.tokens else { return tokens.iter().map(|_| None).collect() };
        let some = tokens.iter().flatten().map(|(token, at)| (*token, at.0 / 1_000)).collect::<Vec<_>>();
        let mut verdicts = keys.verify_together(&some).into_iter();
        tokens.iter().map(|token| token.and_then(|_| verdicts.next())).collect()
    }

    /// Whether a proof of that account may be looked at now, or there were too many wrong ones.
    pub(super) fn may_try(&self, source: Option<IpAddr>, account: &str, at: UnixMs) -> Result<(), Refusal> {
        held(&self.lasting.back_off).may_try(source, account, at.0).map_err(|wait_ms| {
            let why = format!("too many wrong proofs; the next is looked at in {wait_ms} ms");
            Refusal::new(ReasonCode::ConnectionRateExceeded, why)
        })
    }

    pub(super) fn failed(&self, source: Option<IpAddr>, account: &str, at: UnixMs) {
        held(&self.lasting.back_off).failed(source, account, at.0);
    }

    /// It was not looked at after all.
    pub(super) fn undecided(&self, source: Option<IpAddr>, account: &str, at: UnixMs) {
        held(&self.lasting.back_off).undecided(source, account, at.0);
    }

    pub(super) fn succeeded(&self, source: Option<IpAddr>, account: &str, at: UnixMs) {
        held(&self.lasting.back_off).succeeded(source, account, at.0);
    }

    /// What the site's own service says, or said lately. Whoever cannot be asked has said nothing, which is no.
    pub(super) fn ask(&self, question: &Question<'_>, at: UnixMs) -> Result<Decision<Arc<Allowed>>, Refusal> {
        let hook = self.hook.as_ref().expect("a listener with a hook has one");
        let login = Login {
            username: question.username,
            password: question.password,
            client_id: question.client_id,
            source: question.address,
            listener: question.listener,
        };
        let known = held(&self.lasting.answers).find(&login, at.0);
        if let Some(decision) = known {
            return Ok(decision);
        }
        let Ok(admission) = held(&self.lasting.breaker).admit(at.0) else {
            let why = "the hook was not reachable, and is not asked again yet";
            return Err(Refusal::new(ReasonCode::ServerUnavailable, why));
        };
        let answer = hook.ask(question);
        let outcome = if answer.is_ok() { Outcome::Success } else { Outcome::Failure };
        held(&self.lasting.breaker).settle(admission, outcome, at.0);
        match answer {
            Ok(answer) => {
                let (decision, cache_s) = match answer {
                    Answer::Allowed(allowed) => {
                        // What ends at a time is not said again later, as if that had moved.
                        let cache_s = if allowed.expires_in_s.is_some() { Some(0) } else { allowed.cache_s };
                        (Decision::Allow(Arc::new(allowed)), cache_s)
                    }
                    Answer::Denied { cache_s } => (Decision::Deny, cache_s),
                };
                let cache_s = cache_s.unwrap_or(self.hook_cache_s);
                held(&self.lasting.answers).remember(&login, decision.clone(), cache_s, at.0);
                Ok(decision)
            }
            Err(unreachable) => {
                tracing::warn!(event = "hook_unreachable", error = %unreachable, "who would have to ask it is refused");
                Err(Refusal::new(ReasonCode::ServerUnavailable, "the hook was not reachable"))
            }
        }
    }
}

fn held<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes<const N: usize>(random: &mut impl FnMut() -> u64) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]));
    bytes
}

fn key(random: &mut impl FnMut() -> u64) -> [u8; 16] {
    bytes(random)
}

fn read_file(file: &Path, cure: &str) -> Result<Zeroizing<Vec<u8>>, AccessError> {
    let name = file.display().to_string();
    let failed = |error: std::io::Error| AccessError::new(&name, format!("cannot be read: {error}"), cure);
    let length = std::fs::metadata(file).map_err(failed)?.len();
    if length > ACCESS_FILE_BYTES_MAX {
        let cause = format!("has {length} bytes, more than {ACCESS_FILE_BYTES_MAX}");
        return Err(AccessError::new(&name, cause, cure));
    }
    std::fs::read(file).map(Zeroizing::new).map_err(failed)
}

fn read_text(file: &Path, cure: &str) -> Result<Zeroizing<String>, AccessError> {
    let bytes = read_file(file, cure)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        AccessError::new(format!("{}:{line}", file.display()), "is not UTF-8", "write it as UTF-8")
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_passwords(file: &Path) -> Result<Passwords, AccessError> {
    let text =
        read_text(file, "make it with `ironpost passwd`, readable for the user that the broker runs as")?;
    Passwords::parse(&text).map_err(|error| {
        let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
        AccessError::new(format!("{}{line}", file.display()), error.cause, error.cure)
    })
}

fn read_rules(file: &Path, key: [u8; 16]) -> Result<Rules, AccessError> {
    let text = read_text(file, "write rules into it, or take it out of the configuration")?;
    Rules::parse(&text, key).map_err(|error| {
        AccessError::new(format!("{}:{}", file.display(), error.line), error.cause, error.cure)
    })
}

fn read_tokens(sources: &Sources) -> Result<Tokens, AccessError> {
    let cure =
        "name a PEM file with a public key, or a JWKS file, readable for the user that the broker runs as";
    let read = |file: &PathBuf| Ok((file.display().to_string(), read_file(file, cure)?));
    let files: Vec<(String, Zeroizing<Vec<u8>>)> =
        sources.token_keys.iter().map(read).collect::<Result<_, AccessError>>()?;
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &***bytes)).collect();
    Tokens::new(sources.tokens.clone(), &files)
        .map_err(|error| AccessError::new(error.file, error.cause, error.cure))
}

fn read_hook(sources: &HookSources) -> Result<Hook, AccessError> {
    let secret = sources.secret_file.as_deref();
    let secret = secret.map(|file| read_file(file, "write the secret into it, on one line")).transpose()?;
    let authorities = sources.authorities.as_deref();
    let authorities =
        authorities.map(|file| read_file(file, "name a PEM file with authorities")).transpose()?;
    let settings = hook::HookSettings {
        url: sources.url.clone(),
        timeout_ms: sources.timeout_ms,
        bearer: secret,
        authorities: authorities.map(|bytes| bytes.to_vec()),
    };
    Hook::new(settings).map_err(|error| AccessError::new("authentication.hook_url", error.cause, error.cure))
}
