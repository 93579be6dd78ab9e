//! The example is the truth about the settings, and every way to write one wrongly ends in place, cause and cure.

use std::path::Path;

use super::*;

use crate::config::explain::{LISTENER_TABLE, meaning};

fn host() -> Host {
    Host { state_directory: None }
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    assemble(Some(("x.toml", text)), &[], &host()).map(|loaded| loaded.config)
}

/// A listener with a certificate and that line.
fn tls(line: &str) -> String {
    format!("[listener.a]\naddress = 'tls://127.0.0.1:1'\ncertificates = ['c']\n{line}")
}

fn override_with(key: &'static str, value: Value) -> Override {
    Override { key, flag: "--flag", value }
}

#[test]
fn the_example_has_every_setting_at_its_default_and_explains_it() {
    let loaded = assemble(Some(("example.toml", EXAMPLE)), &[], &host()).unwrap();
    assert_eq!(loaded.config, assemble(None, &[], &host()).unwrap().config);
    for setting in setting::all() {
        assert!(
            matches!(loaded.origin(setting.key), Origin::File(_)),
            "{} is not in the example",
            setting.key
        );
        assert!(!meaning(setting.key).is_empty(), "{} is not explained", setting.key);
    }
}

#[test]
fn the_listener_of_the_example_has_every_setting_and_explains_it() {
    let is_commented_out = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
    let text: Vec<&str> = EXAMPLE.lines().filter(is_commented_out).map(|line| &line[1..]).collect();
    let text = format!("allow_anonymous = true\n{}", text.join("\n"));
    let loaded = assemble(Some(("x", &text)), &[], &host()).unwrap();
    for setting in listener::SETTINGS {
        let path = format!("{LISTENER_TABLE}.{}", setting.key);
        assert!(matches!(loaded.origin(&path), Origin::File(_)), "{path} is not in the example");
        assert!(!meaning(&path).is_empty(), "{path} is not explained");
    }
    assert!(explain(&loaded).contains("listener.public.address = \"tls://0.0.0.0:8883\"   (from x:3)"));
}

#[test]
fn a_listener_of_its_own_takes_the_place_of_the_default() {
    let table = "[listener.a]\naddress = 'tcp://127.0.0.1:2000'\n";
    let config = load_text(table).unwrap();
    assert_eq!((config.listen.len(), config.listeners.len()), (0, 1));
    assert_eq!(config.listeners[0].address().to_string(), "tcp://127.0.0.1:2000");
    let config = load_text(&format!("listen = ['tcp://127.0.0.1:1883']\n{table}")).unwrap();
    assert_eq!((config.listen.len(), config.listeners.len()), (1, 1));
}

#[test]
fn the_explanation_says_value_origin_and_meaning() {
    let given = [override_with("shards", Value::Integer(2))];
    let loaded = assemble(Some(("x.toml", "[broker]\nhold_ms = 7\n")), &given, &host()).unwrap();
    let text = explain(&loaded);
    assert!(
        text.contains("broker.hold_ms = 7   (from x.toml:2)\n    How long an accepted message"),
        "{text}"
    );
    assert!(text.contains("shards = 2   (from --flag)"), "{text}");
    assert!(text.contains("reactor = \"auto\"   (default)"), "{text}");
}

#[test]
fn each_setting_can_be_set_and_reaches_its_field() {
    let config = load_text(
        "listen = ['tcp://[::1]:1884', 'tcp://127.0.0.1:0']\ndata = '/d'\nshards = 64\nreactor = 'epoll'\n\
         allow_anonymous = true\naccount = 'username'\naccount_topic_pattern = 'u/{account}/#'\ndrain_ms = 1\n\
         [broker]\nhold_ms = 2\nsend_window = 3\npacket_bytes_max = 70000\nsession_expiry_max_s = 5\n\
         keep_alive_max_s = 6\nqueue_messages_max = 7\nqueue_bytes_max = 80000\nresident_bytes_max = 90000\n\
         sys_interval_s = 10\n[log]\nformat = 'json'\nlevel = 'trace'\n",
    )
    .unwrap();
    let settings = config.broker_settings(config.placement(64, [1; 16]), [1; 16]);
    assert_eq!(
        config.listen.iter().map(|address| address.place.is_fixed()).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!((config.data.to_str().unwrap(), config.shards), ("/d", Some(64)));
    assert_eq!((config.reactor, config.allow_anonymous), (ReactorChoice::Epoll, true));
    assert_eq!((config.account, config.drain_ms), (AccountSource::Username, 1));
    assert_eq!(config.account_topic_pattern.as_deref(), Some("u/{account}/#"));
    assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: LogLevel::Trace });
    assert_eq!((settings.hold_ms, settings.send_window, settings.packet_bytes_max), (2, 3, 70_000));
    assert_eq!((settings.session_expiry_max_s, settings.keep_alive_max_s), (5, 6));
    assert_eq!((settings.queue_messages_max, settings.queue_bytes_max), (7, 80_000));
    assert_eq!((settings.resident_bytes_max, settings.sys_interval_s), (90_000, 10));
    assert_eq!((settings.placement.shards(), settings.hash_key), (64, [1; 16]));
}

#[test]
fn what_is_wrong_is_said_with_line_cause_and_cure() {
    for (text, line, cause, cure) in [
        ("\nlisten = [", 2, "not TOML", "check --example"),
        ("shards = 65", 1, "out of bounds", "from 0 to 64"),
        ("\n\nshards = -1", 3, "out of bounds", "from 0 to 64"),
        ("shards = '2'", 1, "cannot be a string", "without quotes"),
        ("shards = 1.5", 1, "cannot be a fraction", "a number"),
        ("shards = 99999999999999999999", 1, "that large", "from 0 to 64"),
        ("shard = 2", 1, "no setting shard", "did you mean shards"),
        ("hold_ms = 2", 1, "no setting hold_ms", "hold_ms under [broker]"),
        ("[broker]\nholdms = 2", 2, "no setting broker.holdms", "hold_ms under [broker]"),
        ("[tls]\nx = 2", 1, "no setting tls", "--example"),
        ("broker = 2", 1, "no setting broker", "--example"),
        ("data = ''", 1, "data is empty", "name a directory"),
        ("listen = []", 1, "listen is empty", "at least one"),
        ("listen = 'tcp://127.0.0.1:1883'", 1, "cannot be a string", "list"),
        ("listen = [1]", 1, "cannot be a list", "list of strings"),
        ("listen = ['127.0.0.1:1']", 1, "not an address", "tcp://"),
        ("listen = ['tcp://127.0.0.1']", 1, "not an address", "tcp://127.0.0.1:1883"),
        ("listen = ['tcp://localhost:1']", 1, "not an address", "literal address"),
        ("listen = ['tcp://127.0.0.1:1', 'tcp://127.0.0.1:1']", 1, "twice", "delete"),
        ("listen = ['tcp://0.0.0.0:1']", 1, "lets other hosts in", "--allow-anonymous"),
        ("reactor = 'kqueue'", 1, "no choice \"kqueue\"", "\"uring\""),
        ("account_topic_pattern = 'u/#'", 1, "one {account}", "u/{account}/#"),
        ("allow_anonymous = 1", 1, "cannot be a number", "true or false"),
        ("[broker]\npacket_bytes_max = 1", 2, "out of bounds", "from 65536"),
        ("[broker]\nqueue_bytes_max = 1", 2, "not even one packet", "at least 1048576"),
        ("[broker]\nhold_ms = 0\nresident_bytes_max = 1", 3, "not even one packet", "at least"),
        ("listen = ['tls://127.0.0.1:1']", 1, "needs more settings", "[listener.NAME]"),
        ("listen = ['tls://127.0.0.1']", 1, "not an address", "tls://127.0.0.1:8883"),
        ("[listener]\nx = 1", 2, "listener.x is no table", "[listener.NAME]"),
        ("[listener.A]", 1, "name of a listener", "a-z"),
        ("[listener.a]\nadress = ''", 2, "no setting listener.a.adress", "did you mean address"),
        ("[listener.a]\naddress = 'http://1.1.1.1:1'", 2, "not an address", "tls://, ws://"),
        ("[listener.a]\naddress = 'ws://127.0.0.1'", 2, "not an address", "ws://127.0.0.1:8083"),
        (
            "[listener.a]\naddress = 'tcp://127.0.0.1:1'\norigins = ['http://x']",
            3,
            "no use for origins",
            "ws://",
        ),
        (
            "[listener.a]\naddress = 'tcp://127.0.0.1:1'\nclient_authorities = ['a']",
            3,
            "no use for",
            "tls://",
        ),
        (&tls("keys = ['k']\nclient_revoked = ['r']"), 5, "no client is asked", "client_authorities"),
        (&tls("client_certificates = 'maybe'"), 4, "client_certificates", "optional"),
        ("[listener.a]\naddress = 'ws://127.0.0.1:1'\norigins = ['http://x/']", 3, "no origin", "https://"),
        ("[listener.a]\naddress = 'wss://127.0.0.1:1'\nkeys = ['k']", 2, "needs a certificate", "PEM"),
        ("[listener.a]", 1, "listener.a is empty", "address"),
        ("[listener.a]\nkeys = []", 2, "has no address", "tls://"),
        ("[listener.a]\naddress = 'tls://127.0.0.1:1'\nkeys = ['k']", 2, "needs a certificate", "PEM"),
        (&tls("keys = []"), 4, "one key", "same order"),
        (&tls("keys = ['']"), 4, "file name is empty", "PEM"),
        ("[listener.a]\naddress = 'tcp://127.0.0.1:1'\nkeys = ['k']", 3, "no use for keys", "tls://"),
        ("[listener.a]\naddress = 'ws://127.0.0.1:1'\ncertificates = ['k']", 3, "no use for cert", "wss://"),
        ("listen = ['tcp://127.0.0.1:1']\n[listener.a]\naddress = 'tcp://127.0.0.1:1'", 3, "twice", "delete"),
        ("[listener.a]\naddress = 'tcp://0.0.0.0:1'", 2, "lets other hosts in", "allow_anonymous"),
    ] {
        let error = load_text(text).expect_err(text);
        assert_eq!(error.place, format!("x.toml:{line}"), "{text}");
        assert!(error.cause.contains(cause), "{text}: {error}");
        assert!(error.cure.contains(cure), "{text}: {error}");
    }
}

#[test]
fn an_open_listener_needs_a_word_and_loopback_does_not() {
    for (listen, needs_a_word) in
        [("127.0.0.1", false), ("127.9.9.9", false), ("[::1]", false), ("0.0.0.0", true), ("[::]", true)]
    {
        let text = format!("listen = ['tcp://{listen}:1']\n");
        assert_eq!(load_text(&text).is_err(), needs_a_word, "{listen}");
        assert!(load_text(&format!("{text}allow_anonymous = true\n")).is_ok(), "{listen}");
    }
}

#[test]
fn a_flag_overrides_the_file_and_is_named_in_its_error() {
    let file = Some(("x.toml", "shards = 4\nreactor = 'uring'\n"));
    let given = [override_with("shards", Value::Integer(2))];
    let config = assemble(file, &given, &host()).unwrap().config;
    assert_eq!((config.shards, config.reactor), (Some(2), ReactorChoice::Uring));
    let error = assemble(file, &[override_with("shards", Value::Integer(65))], &host()).unwrap_err();
    assert_eq!(error.place, "--flag");
}

#[test]
fn the_host_decides_what_nobody_else_does() {
    let host = Host { state_directory: Some("/var/lib/a:/var/lib/b".to_owned()) };
    let loaded = assemble(None, &[], &host).unwrap();
    assert_eq!(loaded.config.data, Path::new("/var/lib/a"));
    assert_eq!(assemble(Some(("x", "data = 'd'")), &[], &host).unwrap().config.data, Path::new("d"));
}

#[test]
fn an_unreadable_file_is_named() {
    let error = load(Some(Path::new("/nonexistent/x.toml")), &[], &host()).unwrap_err();
    assert_eq!(error.place, "/nonexistent/x.toml");
    assert!(error.to_string().contains("cannot read the configuration"));
}
