//! `ironpost acl`: what the rules of a configuration say of somebody, and which of them.
//!
//! Exit codes of `explain`: 0 it is allowed, 1 it is not, 2 it could not be told.

use std::path::PathBuf;

use super::serve::Settings;
use super::{FAILURE, Failure};
use crate::access::passport::Passport;
use crate::access::permissions::{Bearer, By, Permissions};
use crate::access::rules::{Action, Rules};
use crate::wire::topic;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Say whether somebody may do something, and which rule decides.
    Explain(Explain),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ironpost acl explain alice publish u/bob/inbox --config /etc/ironpost.toml
  ironpost acl explain alice subscribe 'u/+/inbox' --client-id phone --group staff

Asks the files as they are now, which a running broker has only after a reload. Exit code: 0 allowed, 1 not, 2 could not tell.")]
pub(super) struct Explain {
    /// The account, as it is proven; \"\" for a client that proves nothing
    #[arg(value_name = "USER")]
    user: String,

    /// publish, subscribe, retain or will
    #[arg(value_name = "ACTION", value_parser = ["publish", "subscribe", "retain", "will"])]
    action: String,

    /// A topic; to subscribe, a topic filter
    #[arg(value_name = "TOPIC")]
    topic: String,

    /// Its client id [default: the account]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// A group that its token names; may be given several times. Those of the file it has anyway
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,

    /// Configuration file (TOML), the one that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one of them.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Explain(arguments) => explain(arguments),
    }
}

fn explain(asked: &Explain) -> Result<(), Failure> {
    let config = Settings::of_directory(asked.config.clone(), None).load()?.config;
    let file = config.authentication.rules.clone();
    let text = match &file {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))?,
        None => String::new(),
    };
    let rules = match &file {
        Some(file) => Some(Rules::parse(&text, [0; 16]).map_err(|error| {
            Failure::usage(format!(
                "{}:{}: {}\n  cure: {}",
                file.display(),
                error.line,
                error.cause,
                error.cure
            ))
        })?),
        None => None,
    };
    let action = action(&asked.action);
    let (shown, asked_topic) = (&asked.topic, shared_filter(action, &asked.topic)?);
    if action != Action::Subscribe && asked_topic.starts_with("$SYS") {
        super::print("no: $SYS is the broker's alone\n")?;
        return Err(Failure { text: "not allowed".to_owned(), code: FAILURE });
    }
    let somebody_proves = config.listeners.iter().any(|listener| !listener.authentication.is_empty());
    let placement = config.placement(1, [0; 16]);
    let permissions = Permissions::new(rules.map(Into::into), placement, somebody_proves);
    let passport = Passport {
        is_proven: !asked.user.is_empty(),
        groups: asked.group.iter().map(|group| group.as_str().into()).collect(),
        ..Passport::default()
    };
    let client_id = asked.client_id.as_deref().unwrap_or(&asked.user);
    let bearer = Bearer { account: &asked.user, client_id, passport: &passport };
    if !permissions.is_enforced() {
        return super::print("yes: there are no rules, and no listener asks for a proof\n");
    }
    let permission = permissions.decide(action, &bearer, asked_topic);
    let why = match (permission.by, &file) {
        (By::Rule(rule), Some(file)) => {
            let line = permissions.line_of(rule);
            let statement = Rules::statement_at(&text, line).unwrap_or_default();
            format!("{}:{line}: {statement}", file.display())
        }
        (By::TooManyRules, _) => {
            "the filter overlaps with more rules than are compared; ask for less".to_owned()
        }
        (By::Ownership, _) if permission.allowed => "account_topic_pattern: the topic is its own".to_owned(),
        (By::Ownership, _) => {
            "account_topic_pattern: the topic is another account's, or several accounts'".to_owned()
        }
        (_, Some(file)) => format!("no rule of {} applies: its default", file.display()),
        (_, None) => "there are no rules (authorization.rules)".to_owned(),
    };
    let (word, who) = (if permission.allowed { "yes" } else { "no" }, &asked.user);
    super::print(&format!("{word}: {who:?} {} {shown}\n  {why}\n", asked.action))?;
    if permission.allowed {
        return Ok(());
    }
    Err(Failure { text: "not allowed".to_owned(), code: FAILURE })
}

fn action(word: &str) -> Action {
    match word {
        "subscribe" => Action::Subscribe,
        "retain" => Action::Retain,
        "will" => Action::Will,
        _ => Action::Publish,
    }
}

/// What of it the rules are asked for; it has to be what the protocol allows.
fn shared_filter(action: Action, text: &str) -> Result<&str, Failure> {
    let is_filter = action == Action::Subscribe;
    let checked = if is_filter { topic::check_filter(text).is_ok() } else { topic::check_name(text).is_ok() };
    if !checked {
        let kind = if is_filter { "topic filter" } else { "topic" };
        return Err(Failure::usage(format!("{text:?} is no {kind}")));
    }
    Ok(if is_filter { topic::split_shared(text).map_or(text, |(_, filter)| filter) } else { text })
}
