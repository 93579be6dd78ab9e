//! Mosquitto as a peer: how it is started, and what a document says about it.
//!
//! Called by `broker`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::version;

pub fn command(port: u16, data: &Path) -> Result<Command> {
    let file = data.join("mosquitto.conf");
    fs::write(&file, configuration(port, data))?;
    let mut command = Command::new(program());
    command.arg("-c").arg(file);
    Ok(command)
}

pub fn describe() -> Value {
    let configuration = configuration(0, Path::new("DATA")).replace("listener 0", "listener PORT");
    json!({ "program": program(), "configuration": configuration })
}

pub fn version() -> Option<String> {
    version::ask_whatever_the_status(program(), &["-h"])
}

/// The configuration Mosquitto is started with. Debian's, reduced to what matters here: it may not drop (no bound on
/// queued and unacknowledged messages), it persists as Debian has it, and it does not log each connection.
fn configuration(port: u16, data: &Path) -> String {
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         max_queued_messages 0\nmax_inflight_messages 0\nlog_type error\nlog_type warning\n",
        data.display()
    )
}

/// Debian installs it where a user's PATH may not look.
fn program() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}
