//! The options that `pub` and `sub` share: whom to connect to, and as whom.

use crate::client::Options;
use crate::wire::{QoS, Version};

/// Whom to connect to, and as whom.
#[derive(clap::Args)]
pub(super) struct ConnectArguments {
    /// Broker's name or address
    #[arg(short = 'H', long, default_value = "127.0.0.1")]
    host: String,

    /// Broker's port
    #[arg(short, long, default_value_t = 1883)]
    port: u16,

    /// Client identifier; without one the broker assigns it
    #[arg(short, long, value_name = "CLIENT-ID")]
    pub(super) id: Option<String>,

    /// Protocol version
    #[arg(short = 'V', long = "protocol", value_enum, default_value = "5")]
    protocol: Protocol,

    /// User name
    #[arg(short, long)]
    username: Option<String>,

    /// Password
    #[arg(short = 'P', long, requires = "username")]
    password: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Protocol {
    #[value(name = "3.1.1", alias = "311", alias = "mqttv311")]
    V311,
    #[value(name = "5", alias = "mqttv5")]
    V5,
}

impl ConnectArguments {
    /// For a connection whose session ends with it.
    pub(super) fn options(&self, keep_alive_s: u16) -> Options {
        Options {
            host: self.host.clone(),
            port: self.port,
            version: match self.protocol {
                Protocol::V311 => Version::V311,
                Protocol::V5 => Version::V5,
            },
            client_id: self.id.clone().unwrap_or_default(),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s,
            username: self.username.clone(),
            password: self.password.clone(),
        }
    }
}

/// `-q`.
pub(super) fn parse_qos(text: &str) -> Result<QoS, String> {
    let bits = text.parse().ok();
    bits.and_then(QoS::from_bits)
        .ok_or_else(|| "0 (at most once), 1 (at least once) or 2 (exactly once)".to_owned())
}
