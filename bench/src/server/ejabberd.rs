//! ejabberd's MQTT module as a peer: a broker on the runtime that large messengers are built on.
//!
//! Decides how it is started: by the runtime itself instead of Debian's `ejabberdctl`, which changes to another user
//! through `su` and would leave a shell in the place of the process to account for. `erl` becomes `beam.smp` by two
//! `exec`s, so the process started is the one that serves. Options of the runtime are those of Debian's script; there is
//! no distribution, so that two of them never meet. Called by `broker`.
//!
//! The configuration has one listener and one module, and may not drop. What each setting is for stands beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::version;

/// What the runtime is called once it is the runtime.
pub const PROCESS_NAME: &str = "beam.smp";

/// Where Debian has the runtime, and the program that says its version.
const RUNTIME: &str = "/usr/bin/erl";
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
const QUERY: &str = "/usr/bin/dpkg-query";

/// As Debian's script has them: polling by the kernel, and room for that many processes; a connection needs one.
const OPTIONS: [&str; 4] = ["+K", "true", "+P", "250000"];

/// Sockets and files, as in Debian's script.
const PORTS_MAX: &str = "32000";

pub fn command(port: u16, data: &Path) -> Result<Command> {
    let file = data.join("ejabberd.yml");
    fs::write(&file, configuration(&port.to_string()))?;
    let path = data.to_str().context("the data directory is not UTF-8")?;
    let mut command = Command::new(RUNTIME);
    command.args(OPTIONS).arg("-noinput");
    // The value is a term of Erlang: a string in quotes.
    command.args(["-mnesia", "dir", &format!("{path:?}"), "-s", "ejabberd"]);
    command.env("EJABBERD_CONFIG_PATH", &file);
    command.env("EJABBERD_LOG_PATH", data.join("ejabberd.log"));
    command.env("ERL_CRASH_DUMP", data.join("crash.dump"));
    command.env("ERL_LIBS", LIBRARIES);
    command.env("ERL_MAX_PORTS", PORTS_MAX);
    command.env("HOME", data);
    command.current_dir(data);
    Ok(command)
}

pub fn describe() -> Value {
    let program = format!("{RUNTIME} {} -noinput -mnesia dir DATA -s ejabberd", OPTIONS.join(" "));
    json!({ "program": program, "configuration": configuration("PORT") })
}

/// The package's: asking the program itself would start a second runtime.
pub fn version() -> Option<String> {
    version::ask(QUERY, &["--show", "--showformat=ejabberd ${Version}\n", "ejabberd"])
}

/// What ejabberd is started with.
///
/// * `backlog`: the default of 5 would drop connections that come 64 at once.
/// * `max_fsm_queue`: beyond 10,000 messages that a session has not looked at yet it would be ended.
/// * `auth_method: anonymous`: any name and any password, but not none: its MQTT module sends away who brings no password.
/// * `allow_multiple_connections`: a session that comes back may find its name not yet given up.
/// * `max_queue: unlimited`: beyond 5,000 queued messages it would clear a session's queue and end the session.
/// * `session_expiry`: the default of five minutes may be shorter than a run.
/// * `loglevel`: no line for each connection.
fn configuration(port: &str) -> String {
    format!(
        "hosts: [localhost]\nloglevel: warning\nlisten:\n  - port: {port}\n    ip: \"127.0.0.1\"\n    module: mod_mqtt\n    \
         backlog: 1000\n    max_fsm_queue: 1000000\nauth_method: [anonymous]\nanonymous_protocol: login_anon\nallow_multiple_connections: true\n\
         modules:\n  mod_mqtt:\n    max_queue: unlimited\n    session_expiry: 30 days\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_port_and_all_state_is_below_the_data_directory() {
        let data = std::env::temp_dir().join(format!("ironpost-bench-ejabberd-test-{}", std::process::id()));
        fs::create_dir_all(&data).unwrap();
        let command = command(4711, &data).unwrap();
        let written = fs::read_to_string(data.join("ejabberd.yml")).unwrap();
        fs::remove_dir_all(&data).unwrap();
        assert!(
            written
                .contains("- port: 4711\n    ip: \"127.0.0.1\"\n    module: mod_mqtt\n    backlog: 1000\n"),
            "{written}"
        );
        let below =
            |value: Option<&std::ffi::OsStr>| value.is_some_and(|value| Path::new(value).starts_with(&data));
        for name in ["EJABBERD_CONFIG_PATH", "EJABBERD_LOG_PATH", "ERL_CRASH_DUMP", "HOME"] {
            let value = command.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
            assert!(below(value), "{name}: {value:?}");
        }
        let arguments: Vec<String> =
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let at = arguments.iter().position(|word| word == "dir").unwrap();
        assert_eq!(arguments[at + 1], format!("\"{}\"", data.display()));
    }
}
