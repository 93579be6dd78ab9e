//! Ironpost with a configuration that this program writes: for entrances that its command line alone cannot give it.
//!
//! Decides the listeners: one with TLS, or one that takes everybody beside one that takes device tokens, which differ by their
//! address (127.0.0.1 and 127.0.0.2) and have one port. Everything else is as it is without a configuration, with one shard; what
//! is to be different is said by arguments. The program is the one beside this one, unless another is named. Called by `broker`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::broker::Entrance;
use super::{certificate, version};
use crate::client::token::Algorithm;

/// Where the listener for tokens is, on the port of the other.
pub const TOKENS_ADDRESS: [u8; 4] = [127, 0, 0, 2];

/// Which program, and what else it is told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ironpost {
    /// `None`: the one beside this program.
    program: Option<String>,
    pub arguments: Vec<String>,
}

impl Ironpost {
    /// From the words behind its name: the program, then arguments of `serve`.
    pub fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Ironpost {
        let mut words = words.map(str::to_owned).peekable();
        let program = words.next_if(|word| !word.starts_with('-'));
        Ironpost { program, arguments: words.collect() }
    }

    pub fn command(&self, entrance: Entrance, port: u16, data: &Path) -> Result<Command> {
        let file = data.join("ironpost.toml");
        fs::write(&file, configuration(entrance, &port.to_string(), data))?;
        let mut command = Command::new(self.program()?);
        command.arg("serve").arg("--config").arg(file).arg("--data").arg(data.join("d"));
        command.args(&self.arguments);
        Ok(command)
    }

    pub fn describe(&self, entrance: Entrance) -> Value {
        let program = self.program().unwrap_or_default();
        let configuration = configuration(entrance, "PORT", Path::new("DATA"));
        json!({ "program": program, "arguments": self.arguments, "configuration": configuration })
    }

    pub fn version(&self) -> Option<String> {
        version::ask(self.program().ok()?.to_str()?, &["--version"])
    }

    fn program(&self) -> Result<PathBuf> {
        match &self.program {
            Some(program) => Ok(PathBuf::from(program)),
            None => Ok(env::current_exe().context("finding this program")?.with_file_name("ironpost")),
        }
    }
}

/// Where the keys that tokens are signed with and checked by are.
pub fn token_keys(data: &Path) -> PathBuf {
    data.join("token-keys")
}

/// One shard: what is measured beside it has one thread too.
fn configuration(entrance: Entrance, port: &str, data: &Path) -> String {
    let path = |path: PathBuf| format!("{:?}", path.display().to_string());
    let plain = format!("address = \"tcp://127.0.0.1:{port}\"\n");
    match entrance {
        Entrance::Plain => format!("shards = 1\n\n[listener.plain]\n{plain}"),
        Entrance::Tls => format!(
            "shards = 1\n\n[listener.tls]\naddress = \"tls://127.0.0.1:{port}\"\ncertificates = [{}]\nkeys = [{}]\n",
            path(certificate::chain(data)),
            path(certificate::key(data))
        ),
        Entrance::Tokens => {
            let folder = token_keys(data);
            let keys = Algorithm::ALL.map(|algorithm| path(algorithm.public_key(&folder))).join(", ");
            let address = std::net::Ipv4Addr::from(TOKENS_ADDRESS);
            format!(
                "shards = 1\n\n[authentication]\ntoken_keys = [{keys}]\n\n[listener.plain]\n{plain}\n\
                 [listener.tokens]\naddress = \"tcp://{address}:{port}\"\nauthentication = [\"token\"]\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_that_is_no_option_is_the_program() {
        let of = |text: &str| Ironpost::from_words(text.split_whitespace());
        assert_eq!(of(""), Ironpost::default());
        assert_eq!(of("--shards 2").arguments, ["--shards", "2"]);
        let other = of("target/other/ironpost --reactor epoll");
        assert_eq!(other.program.as_deref(), Some("target/other/ironpost"));
        assert_eq!(other.arguments, ["--reactor", "epoll"]);
    }

    #[test]
    fn listeners_for_everybody_and_for_tokens_have_one_port() {
        let text = configuration(Entrance::Tokens, "4711", Path::new("/data"));
        assert!(text.contains("address = \"tcp://127.0.0.1:4711\"\n"), "{text}");
        assert!(
            text.contains("address = \"tcp://127.0.0.2:4711\"\nauthentication = [\"token\"]\n"),
            "{text}"
        );
        assert!(text.contains("token_keys = [\"/data/token-keys/EdDSA.pem\", "), "{text}");
    }
}
