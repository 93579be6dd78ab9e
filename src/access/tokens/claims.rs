//! What a token says once its signature is right: whether it holds now and here, for whom, and what it allows.
//!
//! Called by `tokens` with a verified payload, never before. The registered claims are those of RFC 7519 4.1. The permissions are
//! AIF-MQTT [RFC 9431 3]: pairs of a topic filter and a list of `"pub"` and `"sub"`. They stand in the claim `scope`, as that
//! RFC has it, or in `permissions`, for issuers whose `scope` is the list of words of OAuth [RFC 8693 4.2], which says nothing
//! about topics and is not read.
//!
//! A claim that is read here and has another type than it must is an error, never taken as absent: what limits a device must not
//! be lost by a mistake of spelling. Claims that are not read here are not judged.

use std::mem;

use super::document::{Json, Object};
use super::{Settings, TokenError};
use crate::limits;
use crate::wire::topic;

/// A topic filter, and whether it may be published and subscribed to.
pub type Permission = (Box<str>, bool, bool);

/// What a valid token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// The account: 1 to 255 bytes, no control characters.
    pub account: Box<str>,
    /// `exp`: when it ends, in Unix seconds, without leeway; at most [`limits::TOKEN_TIME_MAX_S`].
    pub expires_unix_s: u64,
    /// If present, the only MQTT client id that may use this token.
    pub client_id: Option<Box<str>>,
    /// Names of groups, at most 32 of 1 to 255 bytes, no control characters.
    pub groups: Vec<Box<str>>,
    /// If present, all that is allowed; empty: nothing. At most 64 valid topic filters, none of them shared.
    pub permissions: Option<Vec<Permission>>,
}

impl Claims {
    /// Reads and judges a payload.
    pub(super) fn read(
        payload: &Object<'_>,
        settings: &Settings,
        now_unix_s: u64,
    ) -> Result<Claims, TokenError> {
        let expires_unix_s = time(payload, "exp")?.ok_or(TokenError::NoExpiry)?;
        judge_times(payload, expires_unix_s, now_unix_s)?;
        judge_issuer(payload, settings)?;
        judge_audience(payload, settings)?;
        let account = payload.get(&settings.account_claim).ok_or(TokenError::NoAccount)?;
        let account = short(account).ok_or(TokenError::Account)?;
        Ok(Claims {
            account: account.into(),
            expires_unix_s,
            client_id: client_id(payload)?,
            groups: groups(payload)?,
            permissions: permissions(payload)?,
        })
    }

    /// Whether it has ended, with [`limits::TOKEN_LEEWAY_S`].
    pub fn expired(&self, now_unix_s: u64) -> bool {
        expired(self.expires_unix_s, now_unix_s)
    }

    /// About how many bytes it takes, with what each allocation costs besides.
    pub(super) fn bytes(&self) -> usize {
        let texts = |count: usize, bytes: usize, each: usize| count * (each + ALLOCATION_BYTES) + bytes;
        let groups = self.groups.iter().map(|group| group.len()).sum();
        let permissions = self.permissions.as_deref().unwrap_or_default();
        let filters = permissions.iter().map(|(filter, ..)| filter.len()).sum();
        let single = self.account.len() + self.client_id.as_ref().map_or(0, |id| id.len());
        mem::size_of::<Claims>()
            + texts(3, single, 0)
            + texts(self.groups.len(), groups, mem::size_of::<Box<str>>())
            + texts(permissions.len(), filters, mem::size_of::<Permission>())
    }
}

/// What an allocator rounds up and adds, about.
const ALLOCATION_BYTES: usize = 16;

fn expired(expires_unix_s: u64, now_unix_s: u64) -> bool {
    now_unix_s >= expires_unix_s.saturating_add(limits::TOKEN_LEEWAY_S)
}

/// A NumericDate [RFC 7519 2], whole seconds only: no issuer needs a fraction, and a float is where huge and negative hide.
fn time(payload: &Object<'_>, name: &'static str) -> Result<Option<u64>, TokenError> {
    match payload.get(name) {
        None => Ok(None),
        Some(Json::Whole(time)) if *time <= limits::TOKEN_TIME_MAX_S => Ok(Some(*time)),
        Some(_) => Err(TokenError::Time(name)),
    }
}

fn judge_times(payload: &Object<'_>, expires_unix_s: u64, now_unix_s: u64) -> Result<(), TokenError> {
    if expired(expires_unix_s, now_unix_s) {
        return Err(TokenError::Expired { ago_s: now_unix_s - expires_unix_s });
    }
    // Who issued it later than now has another clock than we, so its other times mean nothing either.
    for name in ["nbf", "iat"] {
        if let Some(from) = time(payload, name)?
            && from > now_unix_s.saturating_add(limits::TOKEN_LEEWAY_S)
        {
            return Err(TokenError::NotYetValid { in_s: from - now_unix_s });
        }
    }
    Ok(())
}

fn judge_issuer(payload: &Object<'_>, settings: &Settings) -> Result<(), TokenError> {
    let Some(issuer) = &settings.issuer else { return Ok(()) };
    match payload.get("iss").and_then(Json::text) {
        Some(text) if text == issuer => Ok(()),
        _ => Err(TokenError::Issuer),
    }
}

/// One text, or several of which one is ours [RFC 7519 4.1.3].
fn judge_audience(payload: &Object<'_>, settings: &Settings) -> Result<(), TokenError> {
    let Some(audience) = &settings.audience else { return Ok(()) };
    let ours = |value: &Json<'_>| value.text() == Some(audience);
    let fits = match payload.get("aud") {
        Some(Json::Array(items)) => items.iter().all(|item| item.text().is_some()) && items.iter().any(ours),
        Some(value) => ours(value),
        None => false,
    };
    if fits { Ok(()) } else { Err(TokenError::Audience) }
}

fn client_id(payload: &Object<'_>) -> Result<Option<Box<str>>, TokenError> {
    let Some(value) = payload.get("client_id") else { return Ok(None) };
    match value.text() {
        Some(text) if (1..=limits::CLIENT_ID_BYTES_MAX).contains(&text.len()) => Ok(Some(text.into())),
        _ => Err(TokenError::ClientId),
    }
}

fn groups(payload: &Object<'_>) -> Result<Vec<Box<str>>, TokenError> {
    let Some(value) = payload.get("groups") else { return Ok(Vec::new()) };
    match value.array() {
        Some(items) if items.len() <= limits::TOKEN_GROUPS_MAX => {
            let group = |item| short(item).map(Box::from).ok_or(TokenError::Groups);
            items.iter().map(group).collect()
        }
        _ => Err(TokenError::Groups),
    }
}

fn permissions(payload: &Object<'_>) -> Result<Option<Vec<Permission>>, TokenError> {
    let scope = payload.get("scope").filter(|scope| scope.text().is_none());
    let pairs = match (scope, payload.get("permissions")) {
        (None, None) => return Ok(None),
        (Some(pairs), None) | (None, Some(pairs)) => pairs,
        // Which of the two is meant cannot be known.
        (Some(_), Some(_)) => return Err(TokenError::Permissions),
    };
    let pairs = pairs.array().filter(|pairs| pairs.len() <= limits::TOKEN_PERMISSIONS_MAX);
    let pairs = pairs.ok_or(TokenError::Permissions)?;
    let read: Option<Vec<Permission>> = pairs.iter().map(permission).collect();
    read.map(Some).ok_or(TokenError::Permissions)
}

/// A pair of AIF-MQTT: `["sensors/#", ["pub", "sub"]]`.
fn permission(pair: &Json<'_>) -> Option<Permission> {
    let [filter, allowed] = pair.array()? else { return None };
    let filter = filter.text()?;
    if topic::is_shared(filter) || !topic::filter_is_valid(filter) {
        return None;
    }
    let (mut publish, mut subscribe) = (false, false);
    for word in allowed.array().filter(|words| !words.is_empty())? {
        let said = match word.text()? {
            "pub" => &mut publish,
            "sub" => &mut subscribe,
            _ => return None,
        };
        if mem::replace(said, true) {
            return None;
        }
    }
    Some((filter.into(), publish, subscribe))
}

/// A text that may be stored and logged.
fn short<'a>(value: &'a Json<'_>) -> Option<&'a str> {
    let fits = |text: &&str| {
        (1..=limits::TOKEN_TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
    };
    value.text().filter(fits)
}
