//! What topic names and topic filters may look like, and which name a filter matches (section 4.7 of the standard).
//!
//! `decode` judges names, because a PUBLISH with a bad one ends the connection; the broker judges filters, because a
//! SUBACK can refuse one. [`matches()`] is the definition that the broker's subscription tree is tested against.

use crate::limits;

/// Why a string is not a topic name or filter we take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicError {
    /// No characters `[MQTT-4.7.3-1]`.
    Empty,
    /// Holds U+0000 `[MQTT-4.7.3-2]`.
    Null,
    /// More than [`limits::TOPIC_BYTES_MAX`] bytes.
    TooLong,
    /// More than [`limits::TOPIC_LEVELS_MAX`] levels.
    TooManyLevels,
    /// A wildcard in a topic name `[MQTT-4.7.0-1]`, or in a filter where none may stand `[MQTT-4.7.1-1]`
    /// `[MQTT-4.7.1-2]`.
    Wildcard,
    /// `$share/` without a valid group name and a filter after it `[MQTT-4.8.2-1]` `[MQTT-4.8.2-2]`.
    Share,
}

impl std::fmt::Display for TopicError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TopicError::Empty => "topic is empty",
            TopicError::Null => "topic with U+0000",
            TopicError::TooLong => "topic too long",
            TopicError::TooManyLevels => "topic with too many levels",
            TopicError::Wildcard => "wildcard where none may stand",
            TopicError::Share => "shared subscription without group or filter",
        })
    }
}

impl std::error::Error for TopicError {}

/// Whether a topic name is one we take; says why not.
#[inline]
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_size(name)?;
    let scan = Scan::of(name.as_bytes());
    if scan.null {
        return Err(TopicError::Null);
    }
    if scan.wildcard {
        return Err(TopicError::Wildcard);
    }
    if scan.slashes >= limits::TOPIC_LEVELS_MAX { Err(TopicError::TooManyLevels) } else { Ok(()) }
}

/// The bytes that matter in a topic name, found eight at a time: this was a quarter of decoding a PUBLISH when done
/// one by one.
struct Scan {
    slashes: usize,
    wildcard: bool,
    null: bool,
}

impl Scan {
    #[inline]
    fn of(bytes: &[u8]) -> Scan {
        let mut found = Found::default();
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            found.add(u64::from_le_bytes(*word), u64::MAX);
        }
        if let (Some(last), false) = (bytes.last_chunk::<8>(), rest.is_empty()) {
            // The last eight again; only those that are new count.
            found.add(u64::from_le_bytes(*last), u64::MAX << (8 * (8 - rest.len())));
        } else {
            for &byte in rest {
                found.add(u64::from(byte), 0xFF);
            }
        }
        Scan { slashes: found.slashes as usize, wildcard: found.wildcards != 0, null: found.nulls != 0 }
    }
}

/// What the words so far held: a count, and bits that are set if there was any.
#[derive(Default)]
struct Found {
    slashes: u32,
    wildcards: u64,
    nulls: u64,
}

impl Found {
    #[inline]
    fn add(&mut self, word: u64, counted: u64) {
        self.slashes += (equal_bytes(word, b'/') & counted).count_ones();
        // '#' and '+' differ in one bit only.
        self.wildcards |= equal_bytes(word | u64::from_le_bytes([b'#' ^ b'+'; 8]), b'+') & counted;
        self.nulls |= equal_bytes(word, 0) & counted;
    }
}

/// The highest bit of every byte of the word that equals `byte`, exactly.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW_BITS: u64 = u64::from_le_bytes([0x7F; 8]);
    let differs = word ^ u64::from_le_bytes([byte; 8]);
    !(((differs & LOW_BITS) + LOW_BITS) | differs | LOW_BITS)
}

/// Whether a topic name is one we take.
pub fn name_is_valid(name: &str) -> bool {
    check_name(name).is_ok()
}

/// Whether a topic filter, shared or not, is one we take; says why not. The bytes bound counts the whole string, the
/// levels bound only the filter after `$share/GROUP/`.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_size(filter)?;
    if filter.as_bytes().contains(&0) {
        return Err(TopicError::Null);
    }
    let inner = if is_shared(filter) { split_shared(filter).ok_or(TopicError::Share)?.1 } else { filter };
    let mut levels = 0;
    let mut ended = false;
    for level in inner.split('/') {
        // `#` only as the last level, and a wildcard only as a whole level.
        if ended || (level.len() > 1 && level.contains(['+', '#'])) {
            return Err(TopicError::Wildcard);
        }
        ended = level == "#";
        levels += 1;
    }
    if levels > limits::TOPIC_LEVELS_MAX { Err(TopicError::TooManyLevels) } else { Ok(()) }
}

/// Whether a topic filter is one we take.
pub fn filter_is_valid(filter: &str) -> bool {
    check_filter(filter).is_ok()
}

/// Whether a subscription to that filter asks for a shared one, rightly formed or not.
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// Group name and filter of a shared subscription; `None` if it is not one, or the group name is empty or holds a
/// wildcard, or no filter follows `[MQTT-4.8.2-1]` `[MQTT-4.8.2-2]`. The filter is not judged further.
pub fn split_shared(filter: &str) -> Option<(&str, &str)> {
    let (group, inner) = filter.strip_prefix("$share/")?.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#']) && !inner.is_empty()).then_some((group, inner))
}

/// Whether a valid filter, without `$share/` prefix, matches a valid name.
pub fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1]: a wildcard in front does not reach the server's own topics.
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        // `#` also matches the parent: "a/#" takes "a", which has no level left here.
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

fn check_size(topic: &str) -> Result<(), TopicError> {
    match topic.len() {
        0 => Err(TopicError::Empty),
        1..=limits::TOPIC_BYTES_MAX => Ok(()),
        _ => Err(TopicError::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_wildcards_and_keep_our_bounds() {
        for name in ["a", "/", "a b/ü", "$SYS/x", "//", &"a".repeat(limits::TOPIC_BYTES_MAX)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a\0"), Err(TopicError::Null));
        assert_eq!(check_name("a+"), Err(TopicError::Wildcard));
        assert_eq!(check_name("a/#"), Err(TopicError::Wildcard));
        assert_eq!(check_name(&"a".repeat(limits::TOPIC_BYTES_MAX + 1)), Err(TopicError::TooLong));
        assert_eq!(check_name(&"/".repeat(limits::TOPIC_LEVELS_MAX - 1)), Ok(()));
        assert_eq!(check_name(&"/".repeat(limits::TOPIC_LEVELS_MAX)), Err(TopicError::TooManyLevels));
    }

    #[test]
    fn every_byte_is_judged_alike_wherever_it_stands() {
        for at in 0..20 {
            for byte in 0..=0x7F {
                let mut bytes = *b"aaaaaaaaaaaaaaaaaaaa";
                bytes[at] = byte;
                let expected = match byte {
                    0 => Err(TopicError::Null),
                    b'#' | b'+' => Err(TopicError::Wildcard),
                    _ => Ok(()),
                };
                let name = std::str::from_utf8(&bytes).expect("ASCII");
                assert_eq!(check_name(name), expected, "{byte:02X} at {at}");
                for end in at + 1..=20 {
                    assert_eq!(check_name(&name[..end]), expected, "{byte:02X} at {at} of {end}");
                    assert_eq!(Scan::of(&bytes[..end]).slashes, usize::from(byte == b'/'));
                }
            }
        }
        assert_eq!(Scan::of("ð/«£€+/ı#".as_bytes()).slashes, 2);
        assert_eq!(check_name("«£€¯°ðïÿ«£€¯°ðïÿ"), Ok(()), "bytes that differ in the highest bit only");
    }

    #[test]
    fn filters_have_wildcards_only_as_whole_levels() {
        for filter in
            ["#", "+", "a/#", "/#", "+/+/#", "a/+/b", "/", "$SYS/#", "$share/g/#", "$share/g//", "$share"]
        {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["a#", "#/a", "a/#/b", "a+", "+a/b", "##", "$share/g/a#", "a/##"] {
            assert_eq!(check_filter(filter), Err(TopicError::Wildcard), "{filter}");
        }
        for filter in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"] {
            assert_eq!(check_filter(filter), Err(TopicError::Share), "{filter}");
        }
        assert_eq!(check_filter(""), Err(TopicError::Empty));
        assert_eq!(check_filter("\0"), Err(TopicError::Null));
        let deepest = "+/".repeat(limits::TOPIC_LEVELS_MAX - 1) + "#";
        assert_eq!(check_filter(&deepest), Ok(()));
        assert_eq!(check_filter(&format!("$share/g/{deepest}")), Ok(()));
        assert_eq!(check_filter(&format!("+/{deepest}")), Err(TopicError::TooManyLevels));
        assert_eq!(check_filter(&"a".repeat(limits::TOPIC_BYTES_MAX + 1)), Err(TopicError::TooLong));
    }

    #[test]
    fn a_shared_filter_splits_into_group_and_filter() {
        assert_eq!(split_shared("$share/g/a/b"), Some(("g", "a/b")));
        assert_eq!(split_shared("$share/g//b"), Some(("g", "/b")));
        assert_eq!(split_shared("$share/g"), None);
        assert_eq!(split_shared("$shared/g/a"), None);
        assert_eq!(split_shared("a/b"), None);
    }

    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        let yes = [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/monitor/Clients"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a/+/c", "a//c"),
        ];
        let no = [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("a/b", "a/b/c"),
            ("a/b/c", "a/b"),
            ("ACCOUNTS", "Accounts"),
            ("a", "a/"),
        ];
        for (filter, name) in yes {
            assert!(matches(filter, name), "{filter} takes {name}");
        }
        for (filter, name) in no {
            assert!(!matches(filter, name), "{filter} leaves {name}");
        }
    }
}
