//! What a client gets: decoded strictly, judged packet by packet, handed to the oracle.
//!
//! Everything that the protocol forbids a server on one connection is a violation here: a first packet that is not
//! CONNACK, a packet identifier in use, more deliveries than the client takes, acknowledgements out of order or of
//! nothing, PUBREL before PUBREC, an unknown topic alias, the end of a connection without a reason.

use ironpost::reactor::sim::ClientEnd;
use ironpost::wire::frame::{Peek, peek};
use ironpost::wire::{
    Ack, AckKind, Connack, Packet, PacketId, Publish, QoS, ReasonCode, Suback, Unsuback, Version, decode,
};

use crate::client::{Client, Incoming, Scene};
use crate::oracle::MessageId;

/// The broker's own word for a gap.
const GAP_PROPERTY: &str = "ironpost-skipped";

impl Client {
    /// Reads whatever has arrived.
    pub fn receive(&mut self, send_window: u16, scene: &mut Scene<'_>) {
        let version = self.habits.version;
        self.leaving.retain_mut(|leaving| {
            let ended = read(&mut leaving.end, &mut leaving.input);
            // Nobody listens any more; but what is said must be MQTT.
            let input = std::mem::take(&mut leaving.input);
            leaving.input = input[frames(&input, leaving.version, |_| true)..].to_vec();
            !ended
        });
        let Some(link) = &mut self.link else { return };
        let ended = read(&mut link.end, &mut link.input);
        if link.input.is_empty() && !ended {
            return;
        }
        let input = std::mem::take(&mut link.input);
        let used = frames(&input, version, |packet| {
            self.packet(packet, send_window, scene);
            self.link.is_some()
        });
        if let Some(link) = &mut self.link {
            link.input.extend_from_slice(&input[used..]);
        }
        if ended {
            self.lost(scene);
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, send_window: u16, scene: &mut Scene<'_>) {
        let (index, version) = (self.index, self.habits.version);
        let Some(link) = &mut self.link else { return };
        let told = link.told;
        assert!(told.is_none(), "client {index} got {packet:?} after the broker's last word {told:?}");
        match packet {
            Packet::Connack(connack) => self.connack(connack, scene),
            Packet::Disconnect(disconnect) if version.is_v5() => {
                let stopping =
                    disconnect.reason == ReasonCode::ServerShuttingDown && link.epoch != scene.epoch;
                assert!(stopping, "client {index} kept to the protocol and was told {:?}", disconnect.reason);
                link.told = Some(disconnect.reason);
            }
            other if !link.up => panic!("client {index} got {other:?} before CONNACK"),
            Packet::Publish(publish) => self.delivery(publish, send_window, scene),
            Packet::Ack(ack) if ack.kind == AckKind::Pubrel => self.release(ack, scene),
            Packet::Ack(ack) => self.answered(ack, scene),
            Packet::Suback(suback) => self.suback(suback, scene),
            Packet::Unsuback(unsuback) => self.unsuback(unsuback, scene),
            other => panic!("client {index} got {other:?}, which a server does not send"),
        }
    }

    fn connack(&mut self, connack: &Connack<'_>, scene: &mut Scene<'_>) {
        let (index, version) = (self.index, self.habits.version);
        let Some(link) = &mut self.link else { return };
        assert!(!link.up, "client {index} got a second CONNACK");
        let (asked, present) = (link.asked, connack.session_present);
        scene.oracle.moment();
        if connack.reason != ReasonCode::Success {
            let stopping = link.epoch != scene.epoch;
            // No new session on disk while the disk has no room; version 3 has one word for that and for stopping.
            let refusal =
                if version.is_v5() { ReasonCode::QuotaExceeded } else { ReasonCode::ServerUnavailable };
            let no_room = scene.disk_failed && asked.expiry_s > 0 && connack.reason == refusal;
            assert!(stopping || no_room, "client {index} was refused: {:?}", connack.reason);
            link.told = Some(connack.reason);
            return;
        }
        let gaps = connack.properties.user_properties().filter(|(name, _)| *name == GAP_PROPERTY);
        let gaps: u32 = gaps.map(|(_, count)| count.parse::<u32>().unwrap()).sum();
        scene
            .oracle
            .note(scene.now.mono, || format!("client {index} is connected, session {present}, gaps {gaps}"));
        link.up = true;
        self.must_start_clean = false;
        scene.oracle.session_begins(index);
        if !present {
            scene.oracle.session_has_ended(index);
        }
        let session = &mut scene.oracle.sessions[index];
        session.accepted(index, asked, present, scene.now.wall);
        session.gaps_told += gaps;
        scene.oracle.judge_groups();
        if present {
            self.send_again(scene);
        } else {
            self.forget_session();
        }
    }

    fn delivery(&mut self, publish: &Publish<'_>, send_window: u16, scene: &mut Scene<'_>) {
        let index = self.index;
        let topic = self.topic_of(publish);
        let text = std::str::from_utf8(publish.payload).unwrap();
        let number = text.strip_prefix('m').and_then(|number| number.parse::<MessageId>().ok());
        let Some(id) = number else { panic!("client {index} got {text:?}, which nobody sent") };
        let (qos, dup) = (publish.qos, publish.dup);
        scene.oracle.note(scene.now.mono, || {
            let retain = publish.retain;
            format!(
                "client {index} gets {id} at {qos:?} as {:?} dup {dup} retain {retain}",
                publish.packet_id
            )
        });
        let Some(packet_id) = publish.packet_id else {
            return scene.oracle.delivered(index, id, &topic, qos, publish.retain, dup);
        };
        let v5 = self.is_v5();
        let Some(link) = &mut self.link else { return };
        let fresh = link.unacknowledged.insert(packet_id);
        assert!(
            fresh,
            "client {index} got a PUBLISH with the packet identifier {packet_id}, which is in use"
        );
        let window = usize::from(if v5 { link.receive_maximum.min(send_window) } else { send_window });
        let flying = link.unacknowledged.len();
        assert!(flying <= window, "client {index} takes {window} deliveries at once and got {flying}");
        if qos == QoS::AtLeastOnce {
            scene.oracle.delivered(index, id, &topic, qos, publish.retain, dup);
            return self.answer(AckKind::Puback, packet_id, scene);
        }
        match self.incoming.get(&packet_id) {
            Some(known) => {
                let before = known.message;
                assert_eq!(
                    before, id,
                    "client {index} got another message as {packet_id}, which is not released"
                );
                assert!(dup, "client {index} got message {id} again without DUP");
            }
            None => {
                scene.oracle.delivered(index, id, &topic, qos, publish.retain, dup);
                self.incoming.insert(packet_id, Incoming { message: id, answered: false });
            }
        }
        self.answer(AckKind::Pubrec, packet_id, scene);
    }

    /// The topic, through this connection's aliases.
    fn topic_of(&mut self, publish: &Publish<'_>) -> String {
        let (index, max) = (self.index, self.habits.topic_alias_maximum);
        let Some(link) = &mut self.link else { return String::new() };
        let Some(alias) = publish.topic_alias else { return publish.topic.to_owned() };
        assert!(alias.get() <= max, "client {index} takes {max} aliases and got {alias}");
        if publish.topic.is_empty() {
            let known = link.aliases.get(&alias.get());
            return known.unwrap_or_else(|| panic!("client {index} was never told alias {alias}")).clone();
        }
        link.aliases.insert(alias.get(), publish.topic.to_owned());
        publish.topic.to_owned()
    }

    /// PUBREL.
    fn release(&mut self, ack: &Ack<'_>, scene: &mut Scene<'_>) {
        let (index, packet_id) = (self.index, ack.packet_id);
        if let Some(known) = self.incoming.remove(&packet_id) {
            assert!(known.answered, "client {index} got PUBREL {packet_id} before it sent PUBREC");
        }
        self.answer(AckKind::Pubcomp, packet_id, scene);
    }

    /// PUBACK, PUBREC or PUBCOMP.
    fn answered(&mut self, ack: &Ack<'_>, scene: &mut Scene<'_>) {
        let (index, packet_id, kind) = (self.index, ack.packet_id, ack.kind);
        scene
            .oracle
            .note(scene.now.mono, || format!("client {index} gets {kind:?} {packet_id} {:?}", ack.reason));
        let Some(position) = self.outgoing.iter().position(|outgoing| outgoing.packet_id == packet_id) else {
            panic!("client {index} got {kind:?} for {packet_id}, which is not in use");
        };
        let outgoing = self.outgoing[position];
        if kind == AckKind::Pubcomp {
            assert!(outgoing.received, "client {index} got PUBCOMP {packet_id} before PUBREC");
            self.outgoing.remove(position);
            return;
        }
        self.is_next(kind, packet_id);
        if self.is_wary {
            self.send_next(scene);
        }
        let exactly_once = outgoing.qos == QoS::ExactlyOnce;
        assert_eq!(kind == AckKind::Pubrec, exactly_once, "client {index}: {kind:?} answers {outgoing:?}");
        let failed = ack.reason.is_failure();
        assert!(
            !failed || (ack.reason == ReasonCode::QuotaExceeded && scene.may_refuse),
            "client {index}: {outgoing:?} was refused with {:?}, though there is room",
            ack.reason
        );
        scene.oracle.answered(outgoing.message, ack.reason, scene.disk_failed, scene.now.wall);
        if failed || !exactly_once {
            self.outgoing.remove(position);
        } else {
            self.outgoing[position].received = true;
            self.acknowledge(AckKind::Pubrel, packet_id, scene);
        }
    }

    /// PUBACKs come in the order of their PUBLISHes, and so do PUBRECs.
    fn is_next(&mut self, kind: AckKind, packet_id: PacketId) {
        let index = self.index;
        let Some(link) = &mut self.link else { return };
        let position = link.answers_due.iter().position(|(due, _)| *due == kind);
        let next = position.and_then(|position| link.answers_due.remove(position));
        assert_eq!(next, Some((kind, packet_id)), "client {index} got an acknowledgement out of order");
    }

    fn suback(&mut self, suback: &Suback<'_>, scene: &mut Scene<'_>) {
        let index = self.index;
        let Some(link) = &mut self.link else { return };
        let Some(request) = link.request.take().filter(|request| !request.unsubscribe) else {
            panic!("client {index} got a SUBACK for nothing");
        };
        assert_eq!(suback.packet_id, request.packet_id, "client {index} got the SUBACK of another SUBSCRIBE");
        scene.oracle.note(scene.now.mono, || format!("client {index} is subscribed {:?}", request.filters));
        let tick = scene.oracle.moment();
        assert_eq!(suback.reasons.len(), request.filters.len(), "one reason per filter");
        let v5 = self.habits.version.is_v5();
        let refusal = if v5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        for ((filter, qos), reason) in request.filters.into_iter().zip(suback.reasons.iter()) {
            if reason == refusal && scene.may_refuse {
                continue;
            }
            assert_eq!(reason as u8, qos as u8, "client {index} asked for {filter} at {qos:?}");
            scene.oracle.sessions[index].subscribed(filter, tick);
        }
        scene.oracle.judge_groups();
    }

    fn unsuback(&mut self, unsuback: &Unsuback<'_>, scene: &mut Scene<'_>) {
        let index = self.index;
        let Some(link) = &mut self.link else { return };
        let Some(request) = link.request.take().filter(|request| request.unsubscribe) else {
            panic!("client {index} got an UNSUBACK for nothing");
        };
        assert_eq!(
            unsuback.packet_id, request.packet_id,
            "client {index} got the UNSUBACK of another UNSUBSCRIBE"
        );
        scene.oracle.note(scene.now.mono, || format!("client {index} is unsubscribed {:?}", request.filters));
        let tick = scene.oracle.moment();
        for (filter, _) in request.filters {
            scene.oracle.sessions[index].unsubscribed(filter, tick);
        }
    }

    /// The connection is over, and not by the client's own doing.
    fn lost(&mut self, scene: &mut Scene<'_>) {
        let (index, version) = (self.index, self.habits.version);
        scene.oracle.moment();
        let Some(link) = self.link.take() else { return };
        let (asked, up) = (link.asked, link.up);
        scene.oracle.note(scene.now.mono, || format!("client {index} lost its connection, up {up}"));
        let excused = link.epoch != scene.epoch
            || !link.served
            || link.told.is_some()
            || (!version.is_v5() && scene.may_refuse);
        assert!(excused, "the broker closed the connection of client {index} without a reason");
        self.is_wary |= up && !version.is_v5() && scene.may_refuse;
        if up {
            self.session_may_end(scene, scene.now.wall);
        } else {
            let session = &mut scene.oracle.sessions[index];
            // Whether CONNECT was handled, nobody knows; if that could leave one of two sessions, start anew.
            let doubtful = match session.existence {
                crate::sessions::Existence::None => false,
                _ => !session.surely_exists(scene.now.wall) && asked.expiry_s > 0,
            };
            self.must_start_clean |= asked.clean || doubtful;
            session.connect_unanswered(asked, scene.now.wall);
        }
        scene.oracle.judge_groups();
    }
}

/// Appends what has arrived; whether the stream has ended.
fn read(end: &mut ClientEnd, input: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4_096];
    loop {
        match end.try_read(&mut bytes) {
            Ok(0) => return true,
            Ok(count) => input.extend_from_slice(&bytes[..count]),
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Shows each whole packet to `see` until that says false; how many bytes they were.
fn frames(input: &[u8], version: Version, mut see: impl FnMut(&Packet<'_>) -> bool) -> usize {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        match peek(rest, 1 << 20) {
            Ok(Peek::Complete { len }) => {
                let packet = decode::packet(&rest[..len], Some(version));
                let packet =
                    packet.unwrap_or_else(|error| panic!("the broker sent {:?}: {error}", &rest[..len]));
                used += len;
                if !see(&packet) {
                    return used;
                }
            }
            Ok(Peek::Incomplete { .. }) => return used,
            Err(error) => panic!("the broker sent {rest:?}: {error}"),
        }
    }
}
