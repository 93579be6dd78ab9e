//! Who takes part in a round: publishers and subscribers of every kind that an acknowledgement must hold for.

use std::num::NonZeroU16;
use std::time::Duration;

use ironpost::wire::Version;

use crate::books::Books;
use crate::link::Identity;
use crate::publisher::{Publisher, Return};
use crate::random::Random;
use crate::subscriber::{Manner, Subscriber};

/// All clients of a round.
pub struct Cast {
    pub publishers: Vec<Publisher>,
    pub subscribers: Vec<Subscriber>,
}

/// The publishers: name, version, manner of coming back, QoS of its streams.
const PUBLISHERS: [(&str, Version, Return, &[u8]); 6] = [
    ("resuming-5", Version::V5, Return::Resume, &[1, 2]),
    ("resuming-3", Version::V311, Return::Resume, &[1, 2]),
    ("exact-5", Version::V5, Return::Resume, &[2, 2]),
    ("exact-3", Version::V311, Return::Resume, &[2]),
    ("repeating-3", Version::V311, Return::SendAgain, &[1, 1]),
    ("forgetful-5", Version::V5, Return::Forget, &[1, 2]),
];

/// Those who wait for nothing: at once, always there.
pub const PROMPT: Manner = Manner { late: Duration::ZERO, present_permille: 1_000, reading_permille: 1_000 };

/// Draws a cast; enters its streams and recipients into the books.
pub fn draw(random: &mut Random, books: &mut Books) -> Cast {
    let mut publishers = Vec::new();
    for (name, version, manner, qualities) in PUBLISHERS {
        let mut streams = Vec::new();
        for qos in qualities {
            // The first two levels place a topic: several owners among the shards, several streams at each.
            let topic =
                format!("{}/{}/s{}", random.one_of(&["a", "b"]), random.between(0, 2), books.streams.len());
            streams.push(books.add_stream(topic, *qos));
        }
        let window = usize::try_from(random.one_of(&[1, 5, 20, 60])).expect("a small number");
        let durable = manner == Return::Resume;
        publishers.push(Publisher::new(identity(name, version, durable, None), manner, streams, window));
    }
    let subscribers = Subscribers { random, books, made: Vec::new() }.draw();
    Cast { publishers, subscribers }
}

struct Subscribers<'a> {
    random: &'a mut Random,
    books: &'a mut Books,
    made: Vec<Subscriber>,
}

impl Subscribers<'_> {
    fn draw(mut self) -> Vec<Subscriber> {
        let filters = |list: &[(&str, u8)]| -> Vec<(String, u8)> {
            list.iter().map(|(filter, qos)| ((*filter).to_owned(), *qos)).collect()
        };
        let exact = |books: &Books, rest: usize, qos: u8| -> Vec<(String, u8)> {
            let topics = books.streams.iter().enumerate().filter(|(index, _)| index % 2 == rest);
            topics.map(|(_, stream)| (stream.topic.clone(), qos)).collect()
        };
        let (v3, v5) = (Version::V311, Version::V5);
        let late = Manner { late: Duration::from_millis(self.random.between(5, 200)), ..PROMPT };
        let rare = Manner { present_permille: 200, ..PROMPT };
        let spells = Manner { reading_permille: self.random.between(1, 200), ..late };
        self.session("all-5", v5, filters(&[("#", 2)]), PROMPT, None);
        let some = exact(self.books, 0, 1);
        self.session("exact-late-3", v3, some, late, None);
        self.session("rare-5", v5, filters(&[("a/+/#", 2), ("b/1/#", 1)]), rare, None);
        let small = NonZeroU16::new(u16::try_from(self.random.between(1, 4)).expect("small"));
        let others = exact(self.books, 1, 2);
        self.session("small-window-5", v5, others, PROMPT, small);
        let mut overlapping = exact(self.books, 0, 1);
        overlapping.extend(filters(&[("+/+/#", 2)]));
        self.session("overlapping-3", v3, overlapping, late, None);
        self.session("spells-5", v5, filters(&[("b/#", 1), ("a/0/+", 2)]), spells, None);
        self.session("prompt-3", v3, filters(&[("+/1/#", 1), ("a/2/#", 1)]), PROMPT, None);
        self.guest();
        self.group(late);
        self.made
    }

    fn session(
        &mut self,
        name: &str,
        version: Version,
        filters: Vec<(String, u8)>,
        manner: Manner,
        receive_maximum: Option<NonZeroU16>,
    ) {
        let wanted = |topic: &str| highest(&filters, topic);
        let recipient = self.books.add_recipient(name, true, 1, wanted);
        let identity = identity(name, version, true, receive_maximum);
        self.made.push(Subscriber::new(identity, filters, recipient, manner));
    }

    /// A session that ends with its connection: owed nothing, but the rest has to bear it.
    fn guest(&mut self) {
        let filters = vec![("#".to_owned(), 1)];
        let recipient = self.books.add_recipient("guest-5", false, 1, |_| Some(1));
        let identity = identity("guest-5", Version::V5, false, None);
        self.made.push(Subscriber::new(identity, filters, recipient, PROMPT));
    }

    /// Two members of a shared subscription, one of them seldom there.
    fn group(&mut self, late: Manner) {
        let recipient = self.books.add_recipient("group", true, 2, |_| Some(2));
        for (name, manner) in
            [("member-5", late), ("rare-member-3", Manner { present_permille: 500, ..PROMPT })]
        {
            let version = if name.ends_with('5') { Version::V5 } else { Version::V311 };
            let filters = vec![("$share/group/#".to_owned(), 2)];
            self.made.push(Subscriber::new(identity(name, version, true, None), filters, recipient, manner));
        }
    }
}

fn identity(name: &str, version: Version, durable: bool, receive_maximum: Option<NonZeroU16>) -> Identity {
    Identity { client_id: name.to_owned(), version, durable, receive_maximum }
}

/// What overlapping subscriptions come to: one copy, at the highest QoS that they grant.
fn highest(filters: &[(String, u8)], topic: &str) -> Option<u8> {
    filters.iter().filter(|(filter, _)| matches(filter, topic)).map(|(_, qos)| *qos).max()
}

/// Not the broker's own: a mistake in that one must not be repeated here.
fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[test]
fn filters_match_as_the_standard_says() {
    for (filter, topic, expected) in [
        ("#", "a/1/s0", true),
        ("a/+/#", "a/1/s0", true),
        ("a/1/#", "a/1", true),
        ("a/1/+", "a/1", false),
        ("a/1", "a/1/s0", false),
        ("+/1/#", "b/2/s0", false),
        ("a/1/s0", "a/1/s0", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
}
