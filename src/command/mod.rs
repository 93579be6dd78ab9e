//! The command line: from arguments to one of its subcommands, and from their outcome to an exit code.
//!
//! Decides how to run, not what a broker does. Called by `main` only. Exit codes: 0 done, 1 failed at work,
//! 2 wrong arguments or configuration; `journal verify`, `inspect` and `salvage` say what their own mean.

mod acl;
mod arguments;
mod backup;
mod check;
mod journal;
mod passwd;
mod publish;
mod serve;
mod subscribe;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Wrong arguments or configuration.
const USAGE: u8 = 2;

/// Failed at work.
const FAILURE: u8 = 1;

/// A store-and-forward MQTT broker (3.1.1 and 5).
///
/// What it has acknowledged is delivered, or is on disk: a crash loses nothing that a sender was told is safe.
#[derive(Parser)]
#[command(name = "ironpost", version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it out, each line in its own terminal:
  ironpost serve
  ironpost sub -c -i alice -q 1 -t 'inbox/#' -v
  ironpost pub -q 1 -t inbox/alice -m hello

`ironpost COMMAND --help` explains each command with examples.";

#[derive(Subcommand)]
enum Command {
    /// Run the broker until SIGTERM or SIGINT.
    Serve(serve::Arguments),
    /// Check a configuration and explain it, setting by setting.
    Check(check::Arguments),
    /// Ask who may do what.
    #[command(subcommand)]
    Acl(acl::Command),
    /// Add, change or delete a user of the password file.
    Passwd(passwd::Arguments),
    /// Work on the data of a broker that is stopped: is it sound, and in how many shards.
    #[command(subcommand)]
    Journal(journal::Command),
    /// Copy the data of a broker, while it runs or is stopped.
    ///
    /// Everything that the broker has acknowledged when this begins, and that is not consumed meanwhile, is in the backup. What
    /// a backup has already is not copied again. It can be interrupted at any point: until the new backup is whole, the one
    /// before counts.
    Backup(backup::Arguments),
    /// Make a data directory of a backup.
    Restore(backup::RestoreArguments),
    /// Publish messages.
    #[command(name = "pub")]
    Publish(publish::Arguments),
    /// Subscribe to topics and print what arrives.
    #[command(name = "sub")]
    Subscribe(subscribe::Arguments),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Acl(command) => acl::run(&command),
        Command::Passwd(arguments) => passwd::run(&arguments),
        Command::Journal(command) => journal::run(&command),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Subscribe(arguments) => subscribe::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ironpost: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ended badly: what to print, and the exit code.
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// The arguments or the configuration will not do.
    fn usage(error: impl std::fmt::Display) -> Failure {
        Failure { text: error.to_string(), code: USAGE }
    }

    /// The work could not be done.
    fn work(error: impl std::fmt::Display) -> Failure {
        Failure { text: error.to_string(), code: FAILURE }
    }
}

/// Prints to standard output. A reader that has left (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::work(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_that_this_command_line_promises_are_taken() {
        for line in [
            "ironpost serve",
            "ironpost serve --config x --listen tcp://127.0.0.1:1 --listen tcp://[::1]:1 --data d --shards 2 \
             --reactor uring --allow-anonymous",
            "ironpost check --config x --shards 2",
            "ironpost check --example",
            "ironpost acl explain alice publish a/b --config x --client-id me --group staff --group more",
            "ironpost journal verify --config x --data d --json",
            "ironpost journal inspect --data d --shard 1 --from 5 --to 9 --session me --needed --json",
            "ironpost journal inspect --segments",
            "ironpost journal salvage --to new --data d --config x --json",
            "ironpost journal reshard 4 --data d --config x --dry-run",
            "ironpost backup d --data x --config y --rate 20",
            "ironpost restore d --data x --rate 20",
            "ironpost pub -H h -p 1 -t a/b -m x -q 2 -r -i me -V 3.1.1 -u me -P secret",
            "ironpost pub -t a/b -l",
            "ironpost pub -t a/b -f file",
            "ironpost sub -t a -t b -q 1 -c --expiry 60 --count 3 -i me --keepalive 5 -v -V 5",
        ] {
            assert!(Arguments::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
        for line in [
            "ironpost",
            "ironpost pub -m x",
            "ironpost pub -t a",
            "ironpost sub -t a -q 3",
            "ironpost sub -c -t a",
            "ironpost journal salvage",
            "ironpost journal inspect --segments --session me",
            "ironpost journal reshard 0",
            "ironpost journal reshard 65",
            "ironpost journal reshard",
            "ironpost backup --data x",
            "ironpost backup d --rate 0",
            "ironpost restore d",
        ] {
            assert!(Arguments::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
