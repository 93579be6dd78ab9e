//! Starts the log: lines on standard error, for eyes on a terminal and as JSON elsewhere.
//!
//! Decides the form only. What is logged are events with identifiers, written where they happen; never a payload, a
//! password or a user name. Called once by `command`, before anything can go wrong that is worth a line.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::Subscriber;

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Installs the log of this process. A second call changes nothing.
pub fn start(config: LogConfig) {
    let is_terminal = std::io::stderr().is_terminal();
    let subscriber = Subscriber::builder()
        .with_max_level(level(config.level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(is_terminal);
    let installed = if is_json(config.format, is_terminal) {
        let subscriber = subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false);
        tracing::subscriber::set_global_default(subscriber.finish())
    } else {
        tracing::subscriber::set_global_default(subscriber.finish())
    };
    if installed.is_err() {
        tracing::debug!("the log had been started before");
    }
}

fn is_json(format: LogFormat, is_terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_setting_and_the_terminal() {
        for (format, is_terminal, json) in [
            (LogFormat::Auto, true, false),
            (LogFormat::Auto, false, true),
            (LogFormat::Human, false, false),
            (LogFormat::Json, true, true),
        ] {
            assert_eq!(is_json(format, is_terminal), json, "{format:?} {is_terminal}");
        }
    }
}
