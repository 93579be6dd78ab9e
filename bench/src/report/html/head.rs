//! Where, when and with what was measured: the few lines at the top of the page, and the particulars at its end.
//!
//! Decides how time, machine, brokers and command of a document are put in words. What a document lacks is left out.
//! Called by `html`.

use serde_json::Value;

use super::document::Part;
use super::markup::Markup;

/// When and where, in a sentence.
pub fn summary(page: &mut Markup, document: &Value, parts: &[Part]) {
    let rounds = document["rounds"].as_u64();
    page.open("p", &[]);
    let times = if parts.len() == 1 { "1 scenario".to_owned() } else { format!("{} scenarios", parts.len()) };
    let rounds = rounds.map_or_else(String::new, |rounds| format!(", {rounds} rounds each"));
    page.text(&format!("{times}{rounds}, measured "));
    match document["measured_at_unix_s"].as_u64() {
        Some(seconds) => {
            let (day, time) = date(seconds);
            let machine = format!("{day}T{time}Z");
            page.leaf("time", &[("datetime", &machine)], &format!("{day} {time} UTC"));
        }
        None => page.text("at an unknown time"),
    }
    let machine = &document["machine"];
    if let Some(cpu) = machine["cpu"].as_str() {
        let cores = machine["cores"].as_u64().map_or_else(String::new, |cores| format!(", {cores} cores"));
        page.text(&format!(" on {cpu}{cores}."));
    }
    page.close("p");
}

/// Machine, brokers and command in full.
pub fn particulars(page: &mut Markup, document: &Value) {
    page.open("section", &[("aria-labelledby", "measured-with")]);
    page.leaf("h2", &[("id", "measured-with")], "Measured with");
    machine(page, document);
    page.leaf("h3", &[], "Brokers");
    let one = std::slice::from_ref(&document["broker"]);
    for broker in document["brokers"].as_array().map_or(one, Vec::as_slice) {
        described(page, broker);
    }
    page.close("section");
}

fn machine(page: &mut Markup, document: &Value) {
    let machine = &document["machine"];
    let command: Vec<String> =
        document["command"].as_array().into_iter().flatten().filter_map(Value::as_str).map(quoted).collect();
    let lines = [
        ("Command", command.join(" ")),
        ("Program", words(&document["tool"])),
        ("CPU", words(&machine["cpu"])),
        ("Cores", words(&machine["cores"])),
        ("Memory", words(&machine["memory"])),
        ("Kernel", words(&machine["kernel"])),
        ("Load average before", words(&machine["load_average"])),
        ("Placement", placement(document.get("placement"))),
    ];
    page.open("dl", &[]);
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        page.leaf("dt", &[], name);
        page.open("dd", &[]);
        page.leaf(if *name == "Command" { "code" } else { "span" }, &[], value);
        page.close("dd");
    }
    page.close("dl");
}

fn described(page: &mut Markup, broker: &Value) {
    let command = match &broker["command"] {
        Value::Object(parts) => {
            parts.iter().map(|(name, value)| format!("{name}: {}", words(value))).collect()
        }
        command => vec![words(command)],
    };
    let name = [&broker["name"], &broker["address"], broker].into_iter().find_map(Value::as_str);
    page.leaf("h4", &[], name.unwrap_or("the broker"));
    if let Some(version) = broker["version"].as_str() {
        page.leaf("p", &[], version);
    }
    for text in command.iter().filter(|text| !text.is_empty()) {
        // A configuration has lines; they are kept, and long ones wrap.
        page.open("pre", &[]);
        page.leaf("code", &[], text.trim_end());
        page.close("pre");
    }
}

/// A value as words; what is not there is none.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A word of a command as a shell would have to be given it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,@%+".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The placement as a document has it, in words.
fn placement(stored: Option<&Value>) -> String {
    let Some(stored) = stored else { return String::new() };
    match (&stored["server_cpu"], &stored["load_cpu"]) {
        (Value::Number(server), Value::Number(load)) => format!("server on CPU {server}, load on CPU {load}"),
        _ if stored.is_null() => "server and load on any CPU".to_owned(),
        _ => words(stored),
    }
}

/// Day and time of day in UTC.
fn date(unix_seconds: u64) -> (String, String) {
    let (mut days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    // A document may claim any time: the sun's years are counted as far as four digits go.
    while year < 9_999 && days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let day = format!("{year:04}-{:02}-{:02}", month + 1, days + 1);
    (day, format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seconds_since_1970_become_days_in_leap_years_too() {
        let at = |seconds| date(seconds).0;
        assert_eq!(date(0), ("1970-01-01".to_owned(), "00:00:00".to_owned()));
        assert_eq!(date(951_827_696), ("2000-02-29".to_owned(), "12:34:56".to_owned()));
        assert_eq!((at(951_868_800), at(978_307_199)), ("2000-03-01".to_owned(), "2000-12-31".to_owned()));
        assert_eq!(date(1_795_996_799), ("2026-11-29".to_owned(), "23:59:59".to_owned()));
        assert!(at(u64::MAX).starts_with("9999-"));
    }

    #[test]
    fn a_command_can_be_given_to_a_shell_again() {
        let words = ["--broker", "x=serve --listen {port}", "it's", ""];
        assert_eq!(
            words.map(quoted),
            ["--broker", "'x=serve --listen {port}'", "'it'\\''s'", "''"].map(str::to_owned)
        );
    }

    #[test]
    fn a_placement_is_put_in_words() {
        let stored = json!({ "server_cpu": 0, "load_cpu": 1 });
        assert_eq!(placement(Some(&stored)), "server on CPU 0, load on CPU 1");
        assert_eq!(placement(Some(&Value::Null)), "server and load on any CPU");
        assert_eq!(placement(None), "");
    }
}
