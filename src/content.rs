//! What a message says: topic, forwarded properties and payload in one piece, made once and shared by all who need it.
//!
//! The only way to one is from a topic that is text already, so that a topic is read as text without being judged again:
//! twice a message, that was a twentieth of the instructions that a message takes.

use std::sync::Arc;

/// Topic, forwarded properties and payload, back to back. A clone shares them.
#[derive(Clone, PartialEq, Debug)]
pub struct Content {
    bytes: Arc<[u8]>,
    /// `bytes` begins with so much text.
    topic_len: u16,
    /// Length of the properties after it.
    forward_len: u32,
}

impl Content {
    /// In a place that is made for it: nothing is copied twice.
    ///
    /// # Panics
    ///
    /// If the topic or all of it is longer than a packet can be.
    pub fn new<'a>(
        topic: &'a str,
        forward: impl Iterator<Item = &'a [u8]> + Clone,
        payload: &'a [u8],
    ) -> Content {
        let forward_len = forward.clone().map(<[u8]>::len).sum();
        let mut bytes: Arc<[u8]> =
            std::iter::repeat_n(0, topic.len() + forward_len + payload.len()).collect();
        let mut rest = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        for part in [topic.as_bytes()].into_iter().chain(forward).chain([payload]) {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        Content::with_lengths(bytes, topic, forward_len)
    }

    /// What was joined elsewhere, and begins with that topic and that many bytes of properties.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn joined(bytes: Arc<[u8]>, topic: &str, forward_len: usize) -> Content {
        assert!(bytes.starts_with(topic.as_bytes()) && bytes.len() - topic.len() >= forward_len);
        Content::with_lengths(bytes, topic, forward_len)
    }

    fn with_lengths(bytes: Arc<[u8]>, topic: &str, forward_len: usize) -> Content {
        Content {
            bytes,
            topic_len: u16::try_from(topic.len()).expect("a topic's length was checked when it was decoded"),
            forward_len: u32::try_from(forward_len).expect("a packet's length fits 32 bits"),
        }
    }

    /// Bytes of all of it.
    #[expect(clippy::len_without_is_empty, reason = "a size; a message has a topic, and is not empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The three parts.
    #[inline]
    pub fn parts(&self) -> (&str, &[u8], &[u8]) {
        let (topic, rest) = self.bytes.split_at(usize::from(self.topic_len));
        let (forward, payload) = rest.split_at(self.forward_len as usize);
        // SAFETY: `bytes` begins with `topic_len` bytes that were copied from, or compared with, a string (`new`, `joined`),
        // and nobody can write to them: the field is private, and nothing here gives it out to be changed.
        (unsafe { std::str::from_utf8_unchecked(topic) }, forward, payload)
    }

    /// The first of them.
    #[inline]
    pub fn topic(&self) -> &str {
        self.parts().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_parts_are_what_it_was_made_of() {
        let parts: [&[u8]; 2] = [b"ab", b"c"];
        for (topic, payload) in [("t", &b"payload"[..]), ("räume/ü", &[0xFF; 3]), ("t", b"")] {
            let made = Content::new(topic, parts.into_iter(), payload);
            assert_eq!(made.parts(), (topic, &b"abc"[..], payload));
            assert_eq!((made.topic(), made.len()), (topic, topic.len() + 3 + payload.len()));
            let bytes = Arc::from([topic.as_bytes(), b"abc", payload].concat());
            assert_eq!(Content::joined(bytes, topic, 3), made);
        }
    }

    #[test]
    #[should_panic(expected = "starts_with")]
    fn what_does_not_begin_with_the_topic_is_none() {
        Content::joined(Arc::from(&b"\xFFopic"[..]), "topic", 0);
    }

    #[test]
    #[should_panic(expected = "forward_len")]
    fn what_is_too_short_is_none() {
        Content::joined(Arc::from(&b"topic1"[..]), "topic", 2);
    }
}
