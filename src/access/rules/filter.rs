//! Which topic filters a rule or a token may name, and when one plain filter covers another.
//!
//! Called by `statement` for every rule and by `grants`, which has few filters and compares them one by one. The tree of
//! the rules does the same level by level for all at once; that both agree is tested.

use crate::limits::{RULE_LEVELS_MAX, RULE_NAME_BYTES_MAX};

use super::Fault;

/// What stands for the account, as a whole level.
pub(super) const ACCOUNT_LEVEL: &str = "%u";

/// What stands for the client id, as a whole level.
pub(super) const CLIENT_LEVEL: &str = "%c";

/// Whether a rule may have that filter.
pub(super) fn check_pattern(filter: &str) -> Result<(), Fault> {
    check(filter)?;
    for level in filter.split('/') {
        for whole in [ACCOUNT_LEVEL, CLIENT_LEVEL] {
            if level != whole && level.contains(whole) {
                return Err(Fault::new(
                    format!("{whole} within the level {:?}", shown(level)),
                    format!("{whole} stands for a whole level: write \"a/{whole}/b\", not \"a{whole}/b\""),
                ));
            }
        }
    }
    Ok(())
}

/// Whether it is a topic filter, without `$share/GROUP/`, that can be compared with others.
pub(super) fn check(filter: &str) -> Result<(), Fault> {
    if filter.is_empty() {
        return Err(Fault::new("an empty topic filter", "write # for every topic"));
    }
    if filter.len() > RULE_NAME_BYTES_MAX {
        let cause = format!("a topic filter of {} bytes", filter.len());
        return Err(Fault::new(cause, format!("no topic has more than {RULE_NAME_BYTES_MAX}: shorten it")));
    }
    if filter.contains('\0') {
        return Err(Fault::new("a topic filter with U+0000", "no topic has one: remove it"));
    }
    if filter.starts_with("$share/") {
        let cause = format!("the shared subscription {:?}", shown(filter));
        return Err(Fault::new(cause, "write the topic filter behind $share/GROUP/ only"));
    }
    let levels = filter.split('/').count();
    if levels > RULE_LEVELS_MAX {
        let cause = format!("a topic filter of {levels} levels");
        return Err(Fault::new(
            cause,
            format!("use at most {RULE_LEVELS_MAX}; a final # takes what is below"),
        ));
    }
    for (number, level) in filter.split('/').enumerate() {
        if (level.len() > 1 && level.contains(['+', '#'])) || (level == "#" && number + 1 < levels) {
            return Err(Fault::new(
                format!("a wildcard where none may stand in {:?}", shown(filter)),
                "+ and # are whole levels, and # is the last one",
            ));
        }
    }
    Ok(())
}

/// The beginning of a text of any length, for a message.
pub(super) fn shown(text: &str) -> &str {
    const SHOWN_CHARACTERS: usize = 80;
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Whether a filter matches every topic that another one matches.
pub(super) fn covers(filter: &str, asked: &str) -> bool {
    if is_out_of_reach(filter, asked) {
        return false;
    }
    // "a/+/#" leaves "a", which "a/#" takes; but no topic is above the first level.
    if filter == "+/#" {
        return true;
    }
    let (mut filters, mut asked) = (filter.split('/'), asked.split('/'));
    loop {
        match (filters.next(), asked.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) | (None, Some(_)) | (Some(_), None) => return false,
            (Some(level), Some(asked)) if level == "+" || level == asked => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// [MQTT-4.7.2-1]: a wildcard in front does not reach the server's own topics.
fn is_out_of_reach(filter: &str, topic: &str) -> bool {
    topic.starts_with('$') && filter.starts_with(['+', '#'])
}
