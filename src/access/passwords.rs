//! The password file: who may log in, and what proves it.
//!
//! ```text
//! # a comment; kept, like empty lines, when the file is rewritten
//! NAME:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH
//! NAME:$argon2id$v=19$...:SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY
//! NAME::SCRAM-SHA-256$...
//! ```
//!
//! The first kind (a PHC string) checks a password that the client sends, the second one [RFC 5803] a client that proves it
//! (`scram.rs`). Decides whether a name and a password belong together; reads no file and makes no random bytes. Called by
//! whoever judges a CONNECT, on a thread that may take its time, and by `ironpost passwd`.
//!
//! Invariants: names are unique and compared byte by byte; a name with SCRAM keys is one that SASLprep leaves as it is, since
//! it would never be found otherwise. No text and no error ever holds anything of a password or of a hash.

use std::collections::BTreeMap;
use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::scram::{self, ScramKeys, Shape};
use crate::limits;

/// Memory of new hashes: with [`PASSES`] and [`LANES`] what OWASP asks for at least. Every login takes it for as long as it is
/// verified, so more of it would let a storm of logins take the host's memory.
const MEMORY_KIB: u32 = 19 << 10;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Bytes of the hash that are written.
const HASH_BYTES: usize = 32;

/// Fewest bytes of a hash that are taken: fewer are found by chance or force.
const HASH_BYTES_MIN: usize = 16;

/// Most bytes of a hash: what a PHC string can hold.
const HASH_BYTES_MAX: usize = 64;

const SET_AGAIN: &str = "set the password again with `ironpost passwd FILE NAME`";
const EDIT_NAME: &str =
    "choose a name of 1 to 255 bytes without ':' and control characters that does not begin with '#'";

/// A file, a name or a password that will not do. Its text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PasswordError {
    /// Line of the file, from 1; `None` if it is not the file that is wrong.
    pub line: Option<usize>,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: &'static str,
}

impl PasswordError {
    fn new(cause: impl Into<String>, cure: &'static str) -> PasswordError {
        PasswordError { line: None, cause: cause.into(), cure }
    }

    fn at(self, line: usize) -> PasswordError {
        PasswordError { line: Some(line), ..self }
    }
}

impl fmt::Display for PasswordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, "line {line}: ")?;
        }
        write!(formatter, "{}\n  cure: {}", self.cause, self.cure)
    }
}

impl std::error::Error for PasswordError {}

/// A password to be set: 1 to [`limits::PASSWORD_BYTES_MAX`] bytes, gone from memory when dropped.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Refuses an empty one and one that is too long.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Password, PasswordError> {
        match bytes.len() {
            0 => Err(PasswordError::new("the password is empty", "choose one of at least one byte")),
            1..=limits::PASSWORD_BYTES_MAX => Ok(Password(bytes)),
            _ => Err(PasswordError::new(
                format!("the password has more than {} bytes", limits::PASSWORD_BYTES_MAX),
                "choose a shorter one; 20 random characters are beyond guessing",
            )),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

/// What is written of a password. At least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds {
    /// For clients that send it.
    pub argon2id: bool,
    /// For clients that prove it by SCRAM-SHA-256.
    pub scram: bool,
}

/// Random bytes for what is written.
#[derive(Clone, Copy)]
pub struct Salts {
    /// For Argon2id.
    pub argon2id: [u8; 16],
    /// For SCRAM-SHA-256.
    pub scram: [u8; scram::SALT_BYTES],
}

/// A password file, read.
pub struct Passwords {
    /// By name.
    users: Vec<User>,
    /// What is computed for a name that has no hash.
    decoy: Argon2id,
    scram_shape: Shape,
}

struct User {
    name: Box<str>,
    argon2id: Option<Argon2id>,
    /// Boxed because most files have none.
    scram: Option<Box<ScramKeys>>,
}

impl Passwords {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Passwords, PasswordError> {
        if text.starts_with('\u{FEFF}') {
            let cause = "a byte order mark in front, which would become part of a name";
            return Err(PasswordError::new(cause, "save the file as UTF-8 without one").at(1));
        }
        let mut read = Vec::new();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let line = content(line);
            if name_of(line).is_some() {
                read.push((parse_line(line).map_err(|error| error.at(index + 1))?, index + 1));
            }
        }
        // Stable: of two that are the same, the later line is the second.
        read.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        for pair in read.windows(2) {
            if pair[0].0.name == pair[1].0.name {
                let cause = format!("the same name as in line {}", pair[0].1);
                return Err(PasswordError::new(cause, "remove one of the two lines").at(pair[1].1));
            }
        }
        let mut users = Vec::with_capacity(read.len());
        users.extend(read.into_iter().map(|(user, _)| user));
        let costs = most_frequent(users.iter().filter_map(|user| Some(user.argon2id.as_ref()?.costs)));
        let decoy = Argon2id {
            costs: costs.unwrap_or(Costs { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES }),
            salt: [0; 16].into(),
            hash: Zeroizing::new([0; HASH_BYTES].into()),
        };
        let shapes = users.iter().filter_map(|user| Some(user.scram.as_ref()?.shape()));
        let scram_shape = most_frequent(shapes).unwrap_or_default();
        Ok(Passwords { users, decoy, scram_shape })
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether that is the password of that name. Long: some tens of milliseconds and 19 MiB, or what the file says. An unknown
    /// name, and one with SCRAM keys alone, costs as much as most of the file's do, so that nobody learns which names there are;
    /// where hashes of one file differ in their costs, those that are not like most can be told by the time.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        if password.len() > limits::PASSWORD_BYTES_MAX {
            return false;
        }
        let found = self.find(name).and_then(|user| user.argon2id.as_ref());
        let matches = found.unwrap_or(&self.decoy).matches(password);
        matches & found.is_some()
    }

    /// What checks a client of that name that proves its password.
    pub fn scram(&self, name: &str) -> Option<&ScramKeys> {
        self.find(name)?.scram.as_deref()
    }

    /// What most SCRAM keys look like; for those of names that there are not.
    pub fn scram_shape(&self) -> Shape {
        self.scram_shape
    }

    fn find(&self, name: &str) -> Option<&User> {
        let index = self.users.binary_search_by(|user| (*user.name).cmp(name)).ok()?;
        Some(&self.users[index])
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Passwords").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

/// The text of the file with that user's password set, of these kinds and no other; added at the end if the name is new. Every
/// other line stays as it is. A file that could not be read is refused.
pub fn with_user(
    text: &str,
    name: &str,
    password: &Password,
    kinds: Kinds,
    salts: Salts,
) -> Result<String, PasswordError> {
    Passwords::parse(text)?;
    let line = write_line(name, password, kinds, salts)?;
    let mut new = String::with_capacity(text.len() + line.len() + 2);
    let mut replaced = false;
    for old in text.split_inclusive('\n') {
        if name_of(content(old)) == Some(name) {
            new.push_str(&line);
            new.push_str(&old[content(old).len()..]);
            replaced = true;
        } else {
            new.push_str(old);
        }
    }
    if !replaced {
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str(&line);
        new.push('\n');
    }
    Ok(new)
}

/// The text of the file without that user. A name that is not there is an error, and so is a file that could not be read.
pub fn without_user(text: &str, name: &str) -> Result<String, PasswordError> {
    if Passwords::parse(text)?.find(name).is_none() {
        let cause = format!("there is no user {name:?}");
        return Err(PasswordError::new(cause, "give the name as the file has it in front of ':'"));
    }
    let mut new = String::with_capacity(text.len());
    new.extend(text.split_inclusive('\n').filter(|line| name_of(content(line)) != Some(name)));
    Ok(new)
}

/// A line without its end.
fn content(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// The name that a line is of; `None` for a comment and an empty line.
fn name_of(line: &str) -> Option<&str> {
    let blank = line.starts_with('#') || line.trim().is_empty();
    (!blank).then(|| line.split(':').next().unwrap_or_default())
}

fn parse_line(line: &str) -> Result<User, PasswordError> {
    if line.len() > limits::PASSWORD_LINE_BYTES_MAX {
        let cause = format!("more than {} bytes", limits::PASSWORD_LINE_BYTES_MAX);
        return Err(PasswordError::new(cause, SET_AGAIN));
    }
    let Some((name, rest)) = line.split_once(':') else {
        return Err(PasswordError::new("no ':' behind the name", SET_AGAIN));
    };
    check_name(name)?;
    let (argon2id, scram) = rest.split_once(':').unwrap_or((rest, ""));
    if argon2id.is_empty() && scram.is_empty() {
        return Err(PasswordError::new("a name without a password", SET_AGAIN));
    }
    let wrong = |cause: &str| PasswordError::new(cause, SET_AGAIN);
    let argon2id = match argon2id {
        "" => None,
        field => Some(Argon2id::parse(field).map_err(wrong)?),
    };
    let scram = match scram {
        "" => None,
        field => {
            check_prepared(name)?;
            Some(Box::new(ScramKeys::parse(field).map_err(wrong)?))
        }
    };
    Ok(User { name: name.into(), argon2id, scram })
}

fn write_line(
    name: &str,
    password: &Password,
    kinds: Kinds,
    salts: Salts,
) -> Result<Zeroizing<String>, PasswordError> {
    check_name(name)?;
    if !kinds.argon2id && !kinds.scram {
        return Err(PasswordError::new("neither Argon2id nor SCRAM is to be written", "choose one or both"));
    }
    let mut line = Zeroizing::new(String::with_capacity(limits::PASSWORD_LINE_BYTES_MAX));
    line.push_str(name);
    line.push(':');
    if kinds.argon2id {
        let hash = Argon2id::of(&password.0, &salts.argon2id).ok_or_else(|| {
            PasswordError::new("there is no memory for the hash", "free 19 MiB of memory and repeat")
        })?;
        line.push_str(&hash.field());
    }
    if kinds.scram {
        check_prepared(name)?;
        let keys = ScramKeys::derive(&password.0, &salts.scram, scram::ITERATIONS).ok_or_else(|| {
            PasswordError::new(
                "SCRAM cannot have that password: SASLprep (RFC 4013) refuses it",
                "choose one of printable UTF-8 text, or leave out SCRAM",
            )
        })?;
        line.push(':');
        line.push_str(&keys.field());
    }
    Ok(line)
}

fn check_name(name: &str) -> Result<(), PasswordError> {
    let cause = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > limits::USER_NAME_BYTES_MAX {
        format!("the name has more than {} bytes", limits::USER_NAME_BYTES_MAX)
    } else if name.contains(':') || name.contains(char::is_control) {
        "the name holds ':' or a control character".to_owned()
    } else if name.starts_with(['#', '\u{FEFF}']) || name.trim().is_empty() {
        "the name would be read as a comment or an empty line".to_owned()
    } else {
        return Ok(());
    };
    Err(PasswordError::new(cause, EDIT_NAME))
}

/// SCRAM's clients send their name prepared, or have it prepared here.
fn check_prepared(name: &str) -> Result<(), PasswordError> {
    match scram::prepare(name) {
        Some(prepared) if prepared == name => Ok(()),
        Some(prepared) => Err(PasswordError::new(
            format!("SCRAM would never find the name: its clients call it {prepared:?}"),
            "write the name like that, or leave out SCRAM",
        )),
        None => Err(PasswordError::new(
            "SCRAM cannot have that name: SASLprep (RFC 4013) refuses it",
            "choose a name of printable text, or leave out SCRAM",
        )),
    }
}

/// The value that most have; of two as frequent, the larger.
fn most_frequent<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_insert(0_usize) += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

/// What a hash takes to compute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// A hash by Argon2id, version 1.3 [RFC 9106].
struct Argon2id {
    costs: Costs,
    salt: Box<[u8]>,
    hash: Zeroizing<Box<[u8]>>,
}

impl Argon2id {
    /// Of a new password; `None` if there is no memory.
    fn of(password: &[u8], salt: &[u8]) -> Option<Argon2id> {
        let mut hash = Zeroizing::new(Box::<[u8]>::from([0; HASH_BYTES]));
        let costs = Costs { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
        costs.compute(password, salt, &mut hash)?;
        Some(Argon2id { costs, salt: salt.into(), hash })
    }

    /// From a PHC string. The error says what is wrong, not what is there.
    fn parse(field: &str) -> Result<Argon2id, &'static str> {
        if !field.starts_with("$argon2id$v=19$") {
            return Err(
                "its password is not hashed by Argon2id, version 19: \"$argon2id$v=19$\" must follow the name",
            );
        }
        let broken = "its Argon2id hash is damaged";
        let read = PasswordHash::new(field).map_err(|_| broken)?;
        let params = Params::try_from(&read).map_err(|_| broken)?;
        let (Some(salt), Some(hash)) = (&read.salt, &read.hash) else {
            return Err("its Argon2id hash lacks salt or hash");
        };
        if !params.keyid().is_empty() || !params.data().is_empty() {
            return Err("its Argon2id hash has a key or data besides, which is not supported");
        }
        if params.m_cost() > limits::ARGON2_MEMORY_KIB_MAX {
            return Err("its Argon2id hash takes more than 256 MiB of memory (m)");
        }
        if params.t_cost() > limits::ARGON2_PASSES_MAX || params.p_cost() > limits::ARGON2_LANES_MAX {
            return Err("its Argon2id hash takes more than 16 passes (t) or more than 4 lanes (p)");
        }
        if hash.as_bytes().len() < HASH_BYTES_MIN {
            return Err("its Argon2id hash has less than 16 bytes");
        }
        let costs = Costs { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
        let salt: &[u8] = salt.as_ref();
        Ok(Argon2id { costs, salt: salt.into(), hash: Zeroizing::new(hash.as_bytes().into()) })
    }

    /// What [`Argon2id::parse`] takes.
    fn field(&self) -> Zeroizing<String> {
        let Costs { memory_kib, passes, lanes } = self.costs;
        let (salt, hash) = (BASE64.encode(&self.salt), Zeroizing::new(BASE64.encode(&**self.hash)));
        Zeroizing::new(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${}", *hash))
    }

    /// Without memory for the hash, nobody is let in.
    fn matches(&self, password: &[u8]) -> bool {
        let mut buffer = Zeroizing::new([0; HASH_BYTES_MAX]);
        let computed = &mut buffer[..self.hash.len()];
        let done = self.costs.compute(password, &self.salt, computed);
        done.is_some() && bool::from(computed.ct_eq(&self.hash))
    }
}

impl Costs {
    /// Fills `hash`; `None` if there is no memory.
    fn compute(self, password: &[u8], salt: &[u8], hash: &mut [u8]) -> Option<()> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(hash.len()))
            .expect("checked when the file was read");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(password, salt, hash).ok()
    }
}

#[cfg(test)]
mod tests;
