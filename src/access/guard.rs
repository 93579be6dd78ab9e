//! One listener's guard: which proofs it takes, and what follows from one.
//!
//! [`Guard::examine`] looks at a CONNECT and says at once what can be said at once. What takes long is a [`Check`], for a thread of
//! its [`Line`]; what takes another packet is an exchange. The first method of the listener's list that applies to what the client shows
//! decides; none after it is asked.
//!
//! | method | applies to |
//! |---|---|
//! | `certificate` | a connection with a client's certificate, which TLS has checked |
//! | `scram` | authentication method `SCRAM-SHA-256` |
//! | `token` | a password that has the form of a JSON Web Token |
//! | `password` | a user name and a password |
//! | `hook` | everything but an authentication method |

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::answers::Decision;
use super::keeper::Keeper;
use super::passport::{Passport, Reply};
use super::rules::Grants;
use super::scram::{self, Exchange};
use super::tokens::{self, Claims, Seen, TokenError};
use super::{certificate, hook};
use crate::ids::ConnectionId;
use crate::limits::{ACCOUNT_BYTES_MAX, CLIENT_ID_BYTES_MAX, PASSWORD_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::time::UnixMs;
use crate::wire::{Connect, ReasonCode};
use crate::workers::Work;

/// A way to prove who one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the module documentation has a row for each")]
pub enum Method {
    Certificate,
    Scram,
    Token,
    Password,
    Hook,
}

/// Where the account of a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccountSource {
    /// Each client is its own.
    ClientId,
    /// All clients of one user.
    Username,
}

/// What a client shows, beside its CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Which connection.
    pub connection: ConnectionId,
    /// Where it comes from; `None`: from this host, through a Unix socket.
    pub source: Option<IpAddr>,
    /// The certificate that TLS has checked, DER.
    pub certificate: Option<&'a [u8]>,
    /// When.
    pub at: UnixMs,
}

/// Somebody is let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// The account that decides identity and home; empty where it is the client id.
    pub account: Box<str>,
    /// The client id, if the client has left it to us and the proof says which.
    pub client_id: Option<Box<str>>,
    /// What the broker has to know.
    pub passport: Passport,
}

/// Somebody is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What the client is told.
    pub reason: ReasonCode,
    /// What the log is told. Nothing of a secret.
    pub why: String,
}

impl Refusal {
    /// With both.
    pub fn new(reason: ReasonCode, why: impl Into<String>) -> Refusal {
        Refusal { reason, why: why.into() }
    }
}

/// Which threads do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// Those that shake hands: it takes some tens of microseconds.
    Tokens,
    /// Some tens of milliseconds, and memory.
    Passwords,
    /// As long as somebody else takes.
    Hook,
}

/// What comes next.
pub enum Step {
    /// Come in.
    Admitted(Box<Admission>),
    /// Or not.
    Refused(Refusal),
    /// It will be known when this has been done.
    Later(Line, Box<Check>),
    /// The client has to say more: AUTH with this data, and its answer goes to [`Guard::finish`].
    Ask(Box<Asked>, Vec<u8>),
}

/// What a client was asked, until it has answered, or is gone.
#[derive(Debug)]
pub struct Asked {
    exchange: Option<Exchange>,
    keeper: Arc<Keeper>,
    name: Box<str>,
    source: Option<IpAddr>,
    at: UnixMs,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It has not answered: that is no wrong proof, and must not be counted as one that is still looked at.
        if self.exchange.is_some() {
            self.keeper.undecided(self.source, &self.name, self.at);
        }
    }
}

/// See the module documentation.
pub struct Guard {
    listener: Box<str>,
    methods: Vec<Method>,
    keeper: Arc<Keeper>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Guard")
            .field("listener", &self.listener)
            .field("methods", &self.methods)
            .finish()
    }
}

impl Guard {
    /// Of that listener.
    pub fn new(listener: &str, methods: &[Method], keeper: Arc<Keeper>) -> Guard {
        Guard { listener: listener.into(), methods: methods.to_vec(), keeper }
    }

    /// Whether that was found out against what holds now, and not against files that were read again since.
    pub fn stands_by(&self, checked: &Checked) -> bool {
        Arc::ptr_eq(&self.keeper, &checked.keeper)
    }

    /// The listener's name.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Looks at what a client shows. `seen` are the tokens that the caller has seen lately, under this guard's keeper.
    pub fn examine(
        self: &Arc<Guard>,
        connect: &Connect<'_>,
        shown: &Shown<'_>,
        seen: &mut Seen,
        nonce: impl FnOnce() -> [u8; 18],
    ) -> Step {
        let password = connect.password.unwrap_or_default();
        let is_enhanced = connect.authentication_method.is_some();
        let applies = |method: &&Method| match method {
            Method::Certificate => shown.certificate.is_some() && !is_enhanced,
            Method::Scram => connect.authentication_method == Some(scram::METHOD),
            Method::Token => !is_enhanced && tokens::looks_like_token(password),
            Method::Password => !is_enhanced && connect.username.is_some() && connect.password.is_some(),
            Method::Hook => !is_enhanced,
        };
        match self.methods.iter().find(applies) {
            Some(Method::Certificate) => self.certificate(connect, shown),
            Some(Method::Scram) => self.begin_exchange(connect, shown, nonce),
            Some(Method::Token) => self.token(connect, shown, password, seen),
            Some(Method::Password) => self.password(connect, shown, password),
            Some(Method::Hook) => self.ask_hook(connect, shown, password),
            // [MQTT-4.12.0-1]
            None if is_enhanced => {
                refused(ReasonCode::BadAuthenticationMethod, "an authentication method that is not offered")
            }
            None => refused(ReasonCode::NotAuthorized, "shows nothing that is asked for"),
        }
    }

    /// The client's answer in an exchange.
    pub fn finish(
        &self,
        connect: &Connect<'_>,
        shown: &Shown<'_>,
        mut asked: Asked,
        data: &[u8],
    ) -> Result<Box<Admission>, Refusal> {
        let name = asked.name.clone();
        if !Arc::ptr_eq(&asked.keeper, &self.keeper) {
            let why = "the password file was read again meanwhile";
            return Err(Refusal::new(ReasonCode::ServerBusy, why));
        }
        match asked.exchange.take().expect("it is asked once").finish(data) {
            Ok((name, last)) => {
                self.keeper.succeeded(shown.source, &name, shown.at);
                let reply = Reply { method: scram::METHOD.into(), data: last.into() };
                self.admit(
                    &name,
                    connect.client_id,
                    Passport { reply: Some(Box::new(reply)), ..Passport::default() },
                )
            }
            Err(error) => {
                self.keeper.failed(shown.source, &name, shown.at);
                Err(Refusal::new(ReasonCode::NotAuthorized, error.to_string()))
            }
        }
    }

    fn certificate(&self, connect: &Connect<'_>, shown: &Shown<'_>) -> Step {
        let der = shown.certificate.unwrap_or_default();
        match certificate::name(der, self.keeper.certificate_name()) {
            Ok(name) => step(self.admit(&name, connect.client_id, Passport::default())),
            Err(why) => refused(ReasonCode::NotAuthorized, why),
        }
    }

    fn begin_exchange(
        &self,
        connect: &Connect<'_>,
        shown: &Shown<'_>,
        nonce: impl FnOnce() -> [u8; 18],
    ) -> Step {
        let data = connect.authentication_data.unwrap_or_default();
        let lookup =
            |name: &str| self.keeper.passwords().and_then(|passwords| passwords.scram(name)).cloned();
        match scram::begin(data, lookup, self.keeper.decoys(), nonce()) {
            Ok((exchange, answer)) => match self.keeper.may_try(shown.source, exchange.name(), shown.at) {
                Ok(()) => {
                    let (keeper, name) = (self.keeper.clone(), exchange.name().into());
                    let (source, at) = (shown.source, shown.at);
                    Step::Ask(Box::new(Asked { exchange: Some(exchange), keeper, name, source, at }), answer)
                }
                Err(refusal) => Step::Refused(refusal),
            },
            Err(error) => refused(ReasonCode::NotAuthorized, error.to_string()),
        }
    }

    fn token(
        self: &Arc<Guard>,
        connect: &Connect<'_>,
        shown: &Shown<'_>,
        token: &[u8],
        seen: &mut Seen,
    ) -> Step {
        if token.len() > TOKEN_BYTES_MAX {
            return refused(ReasonCode::NotAuthorized, TokenError::TooLong.to_string());
        }
        if let Some(claims) = seen.get(token, shown.at.0 / 1_000) {
            return step(self.admit_by_token(&claims, connect.client_id, shown.at));
        }
        // A signature cannot be guessed, so nobody is slowed down for trying; and whole fleets come from one address.
        self.later(Line::Tokens, connect, shown, Credentials::Token(Zeroizing::new(token.to_vec())))
    }

    fn password(self: &Arc<Guard>, connect: &Connect<'_>, shown: &Shown<'_>, password: &[u8]) -> Step {
        let name = connect.username.unwrap_or_default();
        if let Err(refusal) = self.keeper.may_try(shown.source, name, shown.at) {
            return Step::Refused(refusal);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            self.keeper.failed(shown.source, name, shown.at);
            return refused(ReasonCode::BadUserNameOrPassword, "a password that is too long");
        }
        let credentials = Credentials::Password(name.into(), Zeroizing::new(password.to_vec()));
        self.later(Line::Passwords, connect, shown, credentials)
    }

    fn ask_hook(self: &Arc<Guard>, connect: &Connect<'_>, shown: &Shown<'_>, password: &[u8]) -> Step {
        // Who states no name is told apart by its client id.
        let name = connect.username.unwrap_or(connect.client_id);
        if password.len() > TOKEN_BYTES_MAX || name.len() > CLIENT_ID_BYTES_MAX {
            return refused(ReasonCode::BadUserNameOrPassword, "a name or a password that is too long");
        }
        if let Err(refusal) = self.keeper.may_try(shown.source, name, shown.at) {
            return Step::Refused(refusal);
        }
        let username = connect.username.map(Box::from);
        self.later(Line::Hook, connect, shown, Credentials::Hook(username, Zeroizing::new(password.to_vec())))
    }

    fn later(
        self: &Arc<Guard>,
        line: Line,
        connect: &Connect<'_>,
        shown: &Shown<'_>,
        credentials: Credentials,
    ) -> Step {
        let check = Check {
            guard: self.clone(),
            connection: shown.connection,
            client_id: connect.client_id.into(),
            version: connect.version as u8,
            source: shown.source,
            at: shown.at,
            credentials,
            is_over: Arc::default(),
        };
        Step::Later(line, Box::new(check))
    }

    fn admit_by_token(
        &self,
        claims: &Claims,
        client_id: &str,
        at: UnixMs,
    ) -> Result<Box<Admission>, Refusal> {
        let client_id = match &claims.client_id {
            Some(claimed) if !client_id.is_empty() && **claimed != *client_id => {
                let why = "the token is for another client id";
                return Err(Refusal::new(ReasonCode::ClientIdentifierNotValid, why));
            }
            Some(claimed) => claimed,
            None => client_id,
        };
        // Clocks may differ, but who is let in now would have to leave at once.
        if claims.expires_unix_s.saturating_mul(1_000) <= at.0 {
            return Err(Refusal::new(ReasonCode::NotAuthorized, "the token has just expired"));
        }
        let passport = Passport {
            groups: claims.groups.clone(),
            grants: grants(claims.permissions.as_deref())?,
            expires_at: Some(UnixMs(claims.expires_unix_s.saturating_mul(1_000))),
            ..Passport::default()
        };
        let mut admission = self.admit(&claims.account, client_id, passport)?;
        if claims.client_id.is_some() && admission.client_id.is_none() {
            admission.client_id = claims.client_id.clone();
        }
        Ok(admission)
    }

    /// Somebody has proven that name.
    fn admit(&self, name: &str, client_id: &str, passport: Passport) -> Result<Box<Admission>, Refusal> {
        let passport = Passport { is_proven: true, ..passport };
        let (account, client_id) = match self.keeper.account() {
            AccountSource::Username => (name, None),
            AccountSource::ClientId if client_id.is_empty() => ("", Some(name.into())),
            AccountSource::ClientId if client_id == name => ("", None),
            AccountSource::ClientId => {
                let why = "its client id is not the name that it has proven (account = \"client-id\")";
                return Err(Refusal::new(ReasonCode::ClientIdentifierNotValid, why));
            }
        };
        Ok(Box::new(Admission { account: account.into(), client_id, passport }))
    }
}

/// What is looked at elsewhere. Zeroised when it has been.
enum Credentials {
    Token(Zeroizing<Vec<u8>>),
    Password(Box<str>, Zeroizing<Vec<u8>>),
    Hook(Option<Box<str>>, Zeroizing<Vec<u8>>),
}

type Verdict = Result<Claims, TokenError>;

/// Finding out whether somebody is who it says.
pub struct Check {
    guard: Arc<Guard>,
    connection: ConnectionId,
    client_id: Box<str>,
    version: u8,
    source: Option<IpAddr>,
    at: UnixMs,
    credentials: Credentials,
    is_over: Arc<AtomicBool>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Check").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// What was found out.
pub struct Checked {
    /// About which connection.
    pub connection: ConnectionId,
    /// What.
    pub result: Result<Box<Admission>, Refusal>,
    /// A token that was good, to be known the next time, as long as its keys are.
    pub seen: Option<(Zeroizing<Vec<u8>>, Arc<Claims>)>,
    /// Against what.
    keeper: Arc<Keeper>,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No token.
        let Checked { connection, result, .. } = self;
        let mut shown = formatter.debug_struct("Checked");
        shown.field("connection", connection).field("is_good", &result.is_ok()).finish_non_exhaustive()
    }
}

impl Check {
    /// What the connection sets when it has ended: nobody wants to know any more.
    pub fn is_over(&self) -> Arc<AtomicBool> {
        self.is_over.clone()
    }

    /// It is not looked at after all.
    pub fn give_up(&self) {
        let name = match &self.credentials {
            Credentials::Token(_) => return,
            Credentials::Password(name, _) => name,
            Credentials::Hook(name, _) => name.as_deref().unwrap_or(&self.client_id),
        };
        self.guard.keeper.undecided(self.source, name, self.at);
    }

    /// Its token, unless nobody wants to know any more.
    fn token(&self) -> Option<(&[u8], UnixMs)> {
        match &self.credentials {
            Credentials::Token(token) if !self.is_over.load(Ordering::Relaxed) => Some((token, self.at)),
            _ => None,
        }
    }

    /// `verdict` is about its token, if that was looked at before.
    fn decide(self, verdict: Option<Verdict>) -> Checked {
        let mut good = None;
        let result = if verdict.is_none() && self.is_over.load(Ordering::Relaxed) {
            self.give_up();
            Err(Refusal::new(ReasonCode::ServerBusy, "gone before its turn came"))
        } else {
            self.find_out(verdict, &mut good)
        };
        let seen = match (self.credentials, good) {
            (Credentials::Token(token), Some(claims)) => Some((token, claims)),
            _ => None,
        };
        Checked { connection: self.connection, result, seen, keeper: self.guard.keeper.clone() }
    }

    fn find_out(
        &self,
        verdict: Option<Verdict>,
        good: &mut Option<Arc<Claims>>,
    ) -> Result<Box<Admission>, Refusal> {
        let keeper = &self.guard.keeper;
        match &self.credentials {
            Credentials::Token(token) => match verdict.unwrap_or_else(|| keeper.verify_token(token, self.at))
            {
                Ok(claims) => {
                    let claims = good.insert(Arc::new(claims));
                    self.guard.admit_by_token(claims, &self.client_id, self.at)
                }
                Err(error) => Err(Refusal::new(ReasonCode::NotAuthorized, error.to_string())),
            },
            Credentials::Password(name, password) => {
                let is_right = keeper.passwords().is_some_and(|passwords| passwords.verify(name, password));
                if !is_right {
                    keeper.failed(self.source, name, self.at);
                    let why = "a wrong password, or an unknown user";
                    return Err(Refusal::new(ReasonCode::BadUserNameOrPassword, why));
                }
                keeper.succeeded(self.source, name, self.at);
                self.guard.admit(name, &self.client_id, Passport::default())
            }
            Credentials::Hook(username, password) => self.ask(username.as_deref(), password),
        }
    }

    fn ask(&self, username: Option<&str>, password: &[u8]) -> Result<Box<Admission>, Refusal> {
        let keeper = &self.guard.keeper;
        let question = hook::Question {
            username,
            password,
            client_id: &self.client_id,
            address: self.source,
            listener: &self.guard.listener,
            version: self.version,
        };
        let asked_as = username.unwrap_or(&self.client_id);
        let decision = keeper
            .ask(&question, self.at)
            .inspect_err(|_| keeper.undecided(self.source, asked_as, self.at))?;
        match decision {
            Decision::Deny => {
                keeper.failed(self.source, asked_as, self.at);
                Err(Refusal::new(ReasonCode::NotAuthorized, "the hook says no"))
            }
            Decision::Allow(allowed) => {
                let name = allowed.account.as_deref().or(username).unwrap_or(&self.client_id);
                if !is_account(name) {
                    return Err(Refusal::new(ReasonCode::NotAuthorized, "what it calls itself is no name"));
                }
                keeper.succeeded(self.source, asked_as, self.at);
                let passport = Passport {
                    groups: allowed.groups.clone(),
                    grants: grants(allowed.permissions.as_deref())?,
                    expires_at: allowed.expires_in_s.map(|seconds| self.at.plus_s(seconds)),
                    ..Passport::default()
                };
                self.guard.admit(name, &self.client_id, passport)
            }
        }
    }
}

impl Work for Box<Check> {
    type Done = Checked;

    fn execute(self) -> Checked {
        self.decide(None)
    }

    /// Tokens are verified together, as far as they are to be verified by the same keys.
    fn execute_together(mut checks: Vec<Self>) -> Vec<Checked> {
        let mut done = Vec::with_capacity(checks.len());
        while let Some(first) = checks.first() {
            let keeper = first.guard.keeper.clone();
            let same = checks.iter().position(|check| !Arc::ptr_eq(&check.guard.keeper, &keeper));
            let later = checks.split_off(same.unwrap_or(checks.len()));
            let tokens: Vec<_> = checks.iter().map(|check| check.token()).collect();
            let mut verdicts = keeper.verify_tokens(&tokens).into_iter();
            done.extend(checks.into_iter().map(|check| check.decide(verdicts.next().flatten())));
            checks = later;
        }
        done
    }
}

/// Whether something can be the name of an account.
pub(super) fn is_account(name: &str) -> bool {
    (1..=ACCOUNT_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn grants(permissions: Option<&[(Box<str>, bool, bool)]>) -> Result<Option<Grants>, Refusal> {
    let Some(permissions) = permissions else { return Ok(None) };
    let all = permissions.iter().map(|(filter, publish, subscribe)| (&**filter, *publish, *subscribe));
    Grants::new(all).map(Some).map_err(|why| Refusal::new(ReasonCode::NotAuthorized, why))
}

fn step(result: Result<Box<Admission>, Refusal>) -> Step {
    match result {
        Ok(admission) => Step::Admitted(admission),
        Err(refusal) => Step::Refused(refusal),
    }
}

fn refused(reason: ReasonCode, why: impl Into<String>) -> Step {
    Step::Refused(Refusal::new(reason, why))
}
