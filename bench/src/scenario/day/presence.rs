//! Presence in scenario `day`: a retained QoS 0 message for each phone, and a will for when it is gone without a word.
//!
//! Decides what is said, what must be retained in the end, and who sees whose presence (a phone its first contact's).
//! Live presence is QoS 0, so one that a phone misses is no failure. What is retained is: at the end a new client must be
//! given the latest word of every phone, and that of one that vanished is its will.
//!
//! Called by `load`.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::client::codec::{self, Frame, Publish, Version, Will, kind};
use crate::client::fleet::{Dialect, Fleet, Session};
use crate::measure::clock;

/// What is said of a phone: one byte.
pub const HERE: u8 = b'1';
/// It said goodbye.
pub const AWAY: u8 = b'0';
/// It vanished, says its will.
pub const VANISHED: u8 = b'w';

/// How long the client that looks may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);

pub struct Presence {
    nonce: String,
    version: Version,
    /// By phone: its latest word.
    latest: Vec<u8>,
    /// Arrivals, and those of them that were wills.
    pub seen: u64,
    pub wills_seen: u64,
}

impl Presence {
    pub fn new(nonce: &str, version: Version, phones: usize) -> Presence {
        Presence { nonce: nonce.to_owned(), version, latest: vec![0; phones], seen: 0, wills_seen: 0 }
    }

    pub fn topic(nonce: &str, phone: usize) -> String {
        format!("p{nonce}/{phone}")
    }

    /// What the server is to say if that phone vanishes.
    pub fn will(nonce: &str, phone: usize) -> Will {
        Will { topic: Presence::topic(nonce, phone), payload: vec![VANISHED], retain: true }
    }

    /// Says so, retained, into the outgoing bytes of that phone.
    pub fn say(&mut self, out: &mut Vec<u8>, phone: usize, word: u8) {
        self.latest[phone] = word;
        put_retained(out, self.version, &Presence::topic(&self.nonce, phone), &[word]);
    }

    /// It has vanished without a word: the server says its will.
    pub fn vanished(&mut self, phone: usize) {
        self.latest[phone] = VANISHED;
    }

    /// A message of QoS 0 for one that watches `watched`.
    pub fn arrived(&mut self, watched: usize, publish: &Publish<'_>) -> Result<()> {
        let own = publish.topic == Presence::topic(&self.nonce, watched).as_bytes();
        let word = matches!(publish.payload, [HERE | AWAY | VANISHED]);
        ensure!(own && word, "a message of QoS 0 that is not the presence of phone {watched}");
        self.seen += 1;
        self.wills_seen += u64::from(publish.payload == [VANISHED]);
        Ok(())
    }

    /// Whose latest word `look` does not have: the phone, the word, and what it has.
    pub fn stale(&self, look: &Look) -> Vec<(usize, char, char)> {
        self.stale_of(&look.given.retained)
    }

    fn stale_of(&self, retained: &[u8]) -> Vec<(usize, char, char)> {
        let pairs = self.latest.iter().zip(retained).enumerate();
        let stale = pairs.filter(|(_, (latest, retained))| latest != retained);
        stale.map(|(phone, (latest, retained))| (phone, char::from(*latest), char::from(*retained))).collect()
    }
}

/// A new client that is given what is retained.
pub struct Look {
    fleet: Fleet,
    given: Given,
}

struct Given {
    version: Version,
    prefix: String,
    /// By phone.
    retained: Vec<u8>,
}

impl Look {
    /// Connects and subscribes.
    pub fn begin(dialect: Dialect, nonce: &str, phones: usize) -> Result<Look> {
        let mut fleet = Fleet::new(dialect)?;
        let prefix = format!("p{nonce}/");
        let session = |_| Session {
            client_id: format!("day-{nonce}-look"),
            clean: true,
            subscription: Some((format!("{prefix}+"), 0)),
        };
        let mut given = Given { version: dialect.version, prefix: prefix.clone(), retained: vec![0; phones] };
        fleet.open(1, clock::now() + CONNECT_MAX, &session, &mut |_, _, frame| given.on_frame(frame))?;
        Ok(Look { fleet, given })
    }

    /// Takes what has come.
    pub fn turn(&mut self) -> Result<()> {
        let Look { fleet, given } = self;
        fleet.turn(Duration::from_millis(10), &mut |_, _, frame| given.on_frame(frame))
    }
}

impl Given {
    fn on_frame(&mut self, frame: &Frame<'_>) -> Result<()> {
        ensure!(frame.kind() == kind::PUBLISH, "the look got packet type {}", frame.kind());
        let publish = codec::parse_publish(frame, self.version)?;
        let topic = std::str::from_utf8(publish.topic).ok();
        let phone = topic.and_then(|topic| topic.strip_prefix(&self.prefix)?.parse::<usize>().ok());
        let place = phone.and_then(|phone| self.retained.get_mut(phone));
        let (Some(place), [word]) = (place, publish.payload) else {
            bail!("the look got what is no presence")
        };
        *place = *word;
        Ok(())
    }
}

/// Appends a retained PUBLISH of QoS 0.
pub fn put_retained(out: &mut Vec<u8>, version: Version, topic: &str, payload: &[u8]) {
    let start = out.len();
    let publish = Publish { qos: 0, topic: topic.as_bytes(), packet_id: 0, payload };
    codec::encode_publish(out, version, &publish);
    out[start] |= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(look: &mut Given, topic: &str, payload: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        put_retained(&mut out, Version::V311, topic, payload);
        let frame = codec::split_frame(&out)?.unwrap();
        assert_eq!(frame.first & 1, 1, "retained");
        look.on_frame(&frame)
    }

    #[test]
    fn a_look_counts_whose_latest_word_it_was_not_given() {
        let mut presence = Presence::new("x", Version::V311, 3);
        let mut out = Vec::new();
        (0..3).for_each(|phone| presence.say(&mut out, phone, HERE));
        presence.say(&mut out, 1, AWAY);
        presence.vanished(2);
        let mut look = Given { version: Version::V311, prefix: "px/".to_owned(), retained: vec![0; 3] };
        assert_eq!(presence.stale_of(&look.retained).len(), 3);
        look_at(&mut look, "px/0", &[HERE]).unwrap();
        look_at(&mut look, "px/1", &[HERE]).unwrap();
        look_at(&mut look, "px/2", &[VANISHED]).unwrap();
        assert_eq!(presence.stale_of(&look.retained), [(1, '0', '1')], "it has left since");
        look_at(&mut look, "px/1", &[AWAY]).unwrap();
        assert!(presence.stale_of(&look.retained).is_empty());
        assert!(look_at(&mut look, "px/3", &[HERE]).is_err() && look_at(&mut look, "py/0", &[HERE]).is_err());
    }

    #[test]
    fn a_phone_sees_the_presence_that_it_watches_and_no_other() {
        let mut presence = Presence::new("x", Version::V311, 3);
        let mut of = |topic: &[u8], payload: &[u8]| {
            presence.arrived(2, &Publish { qos: 0, topic, packet_id: 0, payload })
        };
        assert!(of(b"px/2", &[HERE]).is_ok() && of(b"px/2", &[VANISHED]).is_ok());
        assert!(of(b"px/1", &[HERE]).is_err() && of(b"px/2", b"?").is_err());
        assert_eq!((presence.seen, presence.wills_seen), (2, 1));
    }
}
