//! Mosquitto as a peer: how it is started, and what a document says about it.
//!
//! Called by `broker`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::broker::Entrance;
use super::{certificate, version};

pub fn command(entrance: Entrance, port: u16, data: &Path) -> Result<Command> {
    let file = data.join("mosquitto.conf");
    fs::write(&file, configuration(entrance, &port.to_string(), data))?;
    let mut command = Command::new(program());
    command.arg("-c").arg(file);
    Ok(command)
}

pub fn describe(entrance: Entrance) -> Value {
    let configuration = configuration(entrance, "PORT", Path::new("DATA"));
    json!({ "program": program(), "configuration": configuration })
}

pub fn version() -> Option<String> {
    version::ask_whatever_the_status(program(), &["-h"])
}

/// The configuration Mosquitto is started with. Debian's, reduced to what matters here: it may not drop (no bound on
/// queued and unacknowledged messages), it persists as Debian has it, and it does not log each connection. With TLS it has what
/// Debian's OpenSSL has, and takes what clients offer.
fn configuration(entrance: Entrance, port: &str, data: &Path) -> String {
    let mut text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         max_queued_messages 0\nmax_inflight_messages 0\nlog_type error\nlog_type warning\n",
        data.display()
    );
    if entrance == Entrance::Tls {
        let (chain, key) = (certificate::chain(data), certificate::key(data));
        text.push_str(&format!("certfile {}\nkeyfile {}\n", chain.display(), key.display()));
    }
    text
}

/// Debian installs it where a user's PATH may not look.
fn program() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}
