//! What is read back of a message between the journal and the broker.

use crate::record::{Body, Record};
use crate::time::UnixMs;
use crate::wire::QoS;

/// A body read back, copied out of the journal: the broker answers with appends to the same journal.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    bytes: Vec<u8>,
    topic_len: usize,
    forward_len: usize,
    qos: QoS,
    retain: bool,
    accepted_at: UnixMs,
    expires_at: UnixMs,
}

impl Fetched {
    /// Copies a body.
    pub(super) fn keep(&mut self, record: &Record<'_>) {
        let (Record::Message { body, .. } | Record::Inbound { body, .. }) = record else {
            panic!("the broker fetches bodies only");
        };
        self.bytes.clear();
        self.bytes.extend_from_slice(body.topic.as_bytes());
        self.bytes.extend_from_slice(body.forward);
        self.bytes.extend_from_slice(body.payload);
        self.topic_len = body.topic.len();
        self.forward_len = body.forward.len();
        self.qos = body.qos;
        self.retain = body.retain;
        self.accepted_at = body.accepted_at;
        self.expires_at = body.expires_at;
    }

    /// What was copied last.
    pub(super) fn body(&self) -> Body<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_len);
        let (forward, payload) = rest.split_at(self.forward_len);
        Body {
            topic: std::str::from_utf8(topic).expect("copied from a string"),
            forward,
            payload,
            qos: self.qos,
            retain: self.retain,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
        }
    }
}
