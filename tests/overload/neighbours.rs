//! Two clients that have nothing to do with whoever is at a limit.

use crate::broker::Broker;
use crate::bytes::{Connect, Publish};
use crate::client::Client;

/// A publisher, and a subscriber whose session outlives its connection.
pub struct Neighbours {
    subscriber: Client,
    publisher: Client,
    sent: u32,
}

impl Neighbours {
    pub fn of(broker: &Broker) -> Neighbours {
        Neighbours::who_connect(broker, &Connect::durable("neighbour"))
    }

    /// The same with nothing of theirs in the journal.
    pub fn passing(broker: &Broker) -> Neighbours {
        Neighbours::who_connect(broker, &Connect::v5("neighbour"))
    }

    fn who_connect(broker: &Broker, connect: &Connect) -> Neighbours {
        let mut subscriber = Client::connect(broker, connect);
        assert_eq!(subscriber.subscribe("next/door", 1), 1);
        Neighbours { subscriber, publisher: Client::v5(broker, "neighbour's friend"), sent: 0 }
    }

    /// Their messages arrive and are acknowledged, and their pings are answered.
    pub fn go_on(&mut self) {
        self.sent += 1;
        let text = format!("message {}", self.sent);
        let id = self.publisher.id();
        self.publisher.publish(&Publish::new("next/door", &text).qos(1, id));
        self.subscriber.take(&text);
        assert_eq!(self.publisher.receive_other(), crate::bytes::success(4, id));
        self.are_there();
    }

    /// Their pings are answered: nothing else is asked of a broker whose disk is full.
    pub fn are_there(&mut self) {
        self.subscriber.expect_nothing();
        self.publisher.expect_nothing();
    }
}
