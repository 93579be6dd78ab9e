//! `ironpost passwd`: a user's password, from the terminal or a pipe into a password file.
//!
//! Decides where the password comes from and what is said; what a line looks like is `access/passwords.rs`, how the file is
//! replaced `rewrite.rs`. The password is asked for before the file is locked: nobody waits for a person who types.

mod rewrite;

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Failure;
use crate::access::passwords::{self, Kinds, Password, PasswordError, Salts};
use crate::limits;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost passwd /etc/ironpost/passwords alice            asks for the password, twice
  ironpost passwd /etc/ironpost/passwords alice --scram    for clients that authenticate by SCRAM-SHA-256, too
  pwgen 20 1 | tee key | ironpost passwd passwords gateway-7 --stdin
  ironpost passwd /etc/ironpost/passwords alice --delete")]
pub(super) struct Arguments {
    /// The password file; a new one is made readable for its owner only
    file: PathBuf,

    /// Name of the user; replaced if it is there already
    name: String,

    /// Write keys for SCRAM-SHA-256, by which clients of MQTT 5 prove the password without sending it
    #[arg(long)]
    scram: bool,

    /// Write no Argon2id hash: the user can log in by SCRAM only
    #[arg(long, requires = "scram")]
    no_argon2id: bool,

    /// Remove the user
    #[arg(long, conflicts_with_all = ["scram", "no_argon2id", "stdin"])]
    delete: bool,

    /// Read the password from standard input, one line, and do not ask
    #[arg(long)]
    stdin: bool,
}

/// Sets or removes.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    crate::reactor::forbid_core_dumps()
        .map_err(|error| Failure::work(format!("cannot forbid core dumps: {error}")))?;
    let Arguments { file, name, .. } = arguments;
    if arguments.delete {
        let change = |text: &str| passwords::without_user(text, name).map_err(|error| said(file, &error));
        rewrite::rewrite(file, false, change)?;
        return super::print(&format!("{name:?} was removed from {}\n", file.display()));
    }
    let password = if arguments.stdin { read_line()? } else { ask_twice(name)? };
    let password = Password::new(password).map_err(Failure::usage)?;
    let kinds = Kinds { argon2id: !arguments.no_argon2id, scram: arguments.scram };
    let salts = random_salts()?;
    rewrite::rewrite(file, true, |text| {
        passwords::with_user(text, name, &password, kinds, salts).map_err(|error| said(file, &error))
    })?;
    let kinds = match kinds {
        Kinds { argon2id: true, scram: true } => "Argon2id and SCRAM-SHA-256",
        Kinds { scram: true, .. } => "SCRAM-SHA-256",
        Kinds { .. } => "Argon2id",
    };
    super::print(&format!("the password of {name:?} is set in {} ({kinds})\n", file.display()))
}

/// What is wrong with the file is work that failed; the rest is what was asked for.
fn said(file: &Path, error: &PasswordError) -> Failure {
    match error.line {
        Some(line) => {
            Failure::work(format!("{}:{line}: {}\n  cure: {}", file.display(), error.cause, error.cure))
        }
        None => Failure::usage(error),
    }
}

fn ask_twice(name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let ask = |prompt: String| match rpassword::prompt_password(prompt) {
        Ok(password) => Ok(Zeroizing::new(password.into_bytes())),
        Err(error) => Err(Failure::work(format!(
            "cannot ask for the password on the terminal: {error}\n  cure: give it as a line of standard input, with --stdin"
        ))),
    };
    let first = ask(format!("Password for {name}: "))?;
    if first.is_empty() {
        return Ok(first);
    }
    let second = ask("The same again: ".to_owned())?;
    if *first == *second {
        Ok(first)
    } else {
        Err(Failure::usage("the two passwords differ\n  cure: repeat the command"))
    }
}

/// The first line of standard input. Read without the standard library's buffer, which would keep it.
fn read_line() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| Failure::work(format!("cannot read standard input: {error}"));
    let mut input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    // One byte more than is taken, and the end of the line. Never grown: that would leave a copy behind.
    let mut buffer = Zeroizing::new(vec![0; limits::PASSWORD_BYTES_MAX + 3]);
    let mut filled = 0;
    while filled < buffer.len() && !buffer[..filled].contains(&b'\n') {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let line = buffer[..filled].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Zeroizing::new(line.to_vec()))
}

fn random_salts() -> Result<Salts, Failure> {
    let mut salts = Salts { argon2id: [0; 16], scram: [0; 16] };
    for salt in [&mut salts.argon2id, &mut salts.scram] {
        getrandom::fill(salt)
            .map_err(|error| Failure::work(format!("the kernel gives no random bytes: {error}")))?;
    }
    Ok(salts)
}
