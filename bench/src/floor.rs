//! The floor relay: the least an MQTT-shaped relay can do, as the limit that a real broker is compared with.
//!
//! One thread, one epoll set, no sessions, no storage, no wildcards, no limits to check. It answers CONNECT, SUBSCRIBE
//! and PINGREQ; a PUBLISH goes to the connections that subscribed to exactly its topic, with a packet identifier of
//! each; PUBACK and PUBREC leave at once and promise nothing. What one batch of events caused is written
//! once per connection. A slow subscriber is not held back: past `link`'s bound its connection is closed.
//!
//! One subscriber is the ordinary case and costs what it would if there could be no more: it stands in the table itself,
//! and a group of several is told from it by one bit. A filter with a wildcard and a shared one are refused.
//!
//! Do not use it for anything but comparison: it acknowledges messages that it has not stored.
//!
//! Invariants: a cached route is used only while `epoch` is the one it was looked up in; every change of the
//! subscriptions or connections raises it. A group's members are connected, each stands there once, in rising order.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

use crate::client::codec::{self, Frame, Malformed, Publish, Version, kind};
use crate::client::link::{Arrived, Link};
use crate::poll::{Interest, Poller};

const LISTENER: u64 = u64::MAX;
const SCRATCH_BYTES: usize = 256 << 10;

/// In the table of subscribers: below this a connection, from here on the group with that number and this.
const GROUPS: u32 = 1 << 31;

/// SUBACK: refused.
const REFUSED: u8 = 0x80;

/// One connection.
struct Peer {
    link: Link,
    version: Version,
    dirty: bool,
    next_packet_id: u16,
    /// The last topic published to, its subscriber or group, and the epoch of the lookup.
    route: Option<Box<Route>>,
}

struct Route {
    topic: Vec<u8>,
    subscriber: Option<u32>,
    epoch: u64,
}

struct Relay {
    poller: Poller,
    peers: Vec<Option<Peer>>,
    vacant: Vec<u32>,
    dirty: Vec<u32>,
    /// By topic: the connection, or `GROUPS` and the number of the group.
    subscribers: BTreeMap<Box<[u8]>, u32>,
    /// The members of each group. One that all have left stays with its topic, empty.
    groups: Vec<Vec<u32>>,
    epoch: u64,
}

/// Relays until the process is ended.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    listener.set_nonblocking(true)?;
    eprintln!("floor relay on {}", listener.local_addr()?);
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::Read)?;
    let mut relay = Relay {
        poller,
        peers: Vec::new(),
        vacant: Vec::new(),
        dirty: Vec::new(),
        subscribers: BTreeMap::new(),
        groups: Vec::new(),
        epoch: 1,
    };
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        let count = relay.poller.wait(None)?;
        for event in 0..count {
            let ready = relay.poller.ready(event);
            if ready.token == LISTENER {
                relay.accept(&listener);
                continue;
            }
            let index = ready.token as u32;
            if ready.writable {
                relay.flush(index);
            }
            if ready.readable && relay.read(index, &mut scratch).is_err() {
                relay.close(index);
            }
        }
        while let Some(index) = relay.dirty.pop() {
            relay.flush(index);
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) {
        // A failed accept (the peer left, no descriptors) concerns nobody else; epoll reports the listener again.
        while let Ok((stream, _)) = listener.accept() {
            let index = self.vacant.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() as u32 - 1
            });
            match register(stream, &self.poller, index) {
                Ok(link) => {
                    let version = Version::V311;
                    let peer = Peer { link, version, dirty: false, next_packet_id: 0, route: None };
                    self.peers[index as usize] = Some(peer);
                }
                Err(_) => self.vacant.push(index),
            }
        }
    }

    fn flush(&mut self, index: u32) {
        let Some(peer) = &mut self.peers[index as usize] else { return };
        peer.dirty = false;
        if peer.link.flush(&self.poller).is_err() {
            self.close(index);
        }
    }

    fn close(&mut self, index: u32) {
        if self.peers[index as usize].take().is_some() {
            self.subscribers.retain(|_, subscriber| *subscriber != index);
            for members in &mut self.groups {
                if let Ok(position) = members.binary_search(&index) {
                    members.remove(position);
                }
            }
            self.vacant.push(index);
            self.epoch += 1;
        }
    }

    fn read(&mut self, index: u32, scratch: &mut Vec<u8>) -> Result<()> {
        let Some(peer) = &mut self.peers[index as usize] else { return Ok(()) };
        let end = match peer.link.read(scratch)? {
            Arrived::Nothing => return Ok(()),
            Arrived::End => return Err(Malformed("the peer left").into()),
            Arrived::Bytes(end) => end,
        };
        let mut bytes = &scratch[..end];
        while let Some(frame) = codec::split_frame(bytes)? {
            self.frame(index, &frame)?;
            bytes = &bytes[frame.bytes.len()..];
        }
        if let Some(peer) = &mut self.peers[index as usize] {
            peer.link.keep(bytes);
        }
        Ok(())
    }

    fn frame(&mut self, index: u32, frame: &Frame<'_>) -> Result<(), Malformed> {
        match frame.kind() {
            kind::PUBLISH => return self.publish(index, frame),
            kind::PUBACK | kind::PUBCOMP => return Ok(()),
            kind::PUBREC => {
                codec::encode_ack(self.outbound(index)?, kind::PUBREL, codec::parse_ack(frame)?.0)
            }
            kind::PUBREL => {
                codec::encode_ack(self.outbound(index)?, kind::PUBCOMP, codec::parse_ack(frame)?.0)
            }
            kind::PINGREQ => codec::encode_empty(self.outbound(index)?, kind::PINGRESP),
            kind::SUBSCRIBE => return self.subscribe(index, frame),
            kind::CONNECT => {
                let version = codec::parse_connect_version(frame)?;
                self.peer(index)?.version = version;
                codec::encode_connack(self.outbound(index)?, version);
            }
            kind::DISCONNECT => return Err(Malformed("not one: the peer says goodbye")),
            _ => return Err(Malformed("a packet the floor does not know")),
        }
        Ok(())
    }

    fn subscribe(&mut self, index: u32, frame: &Frame<'_>) -> Result<(), Malformed> {
        let version = self.peer(index)?.version;
        let mut granted = Vec::new();
        let (subscribers, groups) = (&mut self.subscribers, &mut self.groups);
        let packet_id = codec::parse_subscribe(frame, version, |filter, options| {
            granted.push(if is_topic(filter) { options & 3 } else { REFUSED });
            if is_topic(filter) {
                let subscriber = subscribers.entry(filter.into()).or_insert(index);
                join(subscriber, groups, index);
            }
        })?;
        self.epoch += 1;
        codec::encode_suback(self.outbound(index)?, version, packet_id, &granted);
        Ok(())
    }

    fn publish(&mut self, index: u32, frame: &Frame<'_>) -> Result<(), Malformed> {
        let epoch = self.epoch;
        let peer = self.peer(index)?;
        let version = peer.version;
        let publish = codec::parse_publish(frame, version)?;
        let subscriber = match &peer.route {
            Some(route) if route.epoch == epoch && route.topic == publish.topic => route.subscriber,
            _ => self.look_up(index, publish.topic)?,
        };
        match subscriber {
            Some(subscriber) if subscriber < GROUPS => self.deliver(subscriber, frame, &publish)?,
            Some(group) => self.deliver_to_all((group - GROUPS) as usize, frame, &publish)?,
            None => {}
        }
        match publish.qos {
            0 => {}
            1 => codec::encode_ack(self.outbound(index)?, kind::PUBACK, publish.packet_id),
            _ => codec::encode_ack(self.outbound(index)?, kind::PUBREC, publish.packet_id),
        }
        Ok(())
    }

    /// Queues a message for one subscriber: the same packet, without DUP and RETAIN and with an identifier of its own.
    // As a call it costs the one-subscriber path some twenty instructions a message: `inline` alone leaves it one.
    #[inline(always)]
    fn deliver(
        &mut self,
        subscriber: u32,
        frame: &Frame<'_>,
        publish: &Publish<'_>,
    ) -> Result<(), Malformed> {
        let peer = self.peer(subscriber)?;
        if publish.qos > 0 {
            peer.next_packet_id = peer.next_packet_id.checked_add(1).unwrap_or(1);
        }
        let packet_id = peer.next_packet_id;
        let out = self.outbound(subscriber)?;
        let start = out.len();
        out.extend_from_slice(frame.bytes);
        out[start] = frame.first & 0xf6;
        if publish.qos > 0 {
            let header = frame.bytes.len() - frame.body.len();
            let position = start + header + 2 + publish.topic.len();
            out[position..position + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        Ok(())
    }

    #[inline(never)]
    fn deliver_to_all(
        &mut self,
        group: usize,
        frame: &Frame<'_>,
        publish: &Publish<'_>,
    ) -> Result<(), Malformed> {
        let members = std::mem::take(&mut self.groups[group]);
        let delivered = members.iter().try_for_each(|&member| self.deliver(member, frame, publish));
        self.groups[group] = members;
        delivered
    }

    fn look_up(&mut self, index: u32, topic: &[u8]) -> Result<Option<u32>, Malformed> {
        // The granted QoS is not compared: the scenarios publish at the QoS they subscribed with.
        let subscriber = self.subscribers.get(topic).copied();
        let epoch = self.epoch;
        self.peer(index)?.route = Some(Box::new(Route { topic: topic.to_vec(), subscriber, epoch }));
        Ok(subscriber)
    }

    fn peer(&mut self, index: u32) -> Result<&mut Peer, Malformed> {
        self.peers[index as usize].as_mut().ok_or(Malformed("its connection is closed"))
    }

    fn outbound(&mut self, index: u32) -> Result<&mut Vec<u8>, Malformed> {
        let peer = self.peers[index as usize].as_mut().ok_or(Malformed("its connection is closed"))?;
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push(index);
        }
        Ok(&mut peer.link.outbound)
    }
}

/// Whether a filter is one topic. `$SYS/` is let through: who subscribes to it there gets nothing, as from most brokers.
fn is_topic(filter: &[u8]) -> bool {
    filter.starts_with(b"$SYS/")
        || !(filter.starts_with(b"$share/") || filter.contains(&b'+') || filter.contains(&b'#'))
}

/// Adds a connection to who is subscribed to one topic; a second one makes a group.
fn join(subscriber: &mut u32, groups: &mut Vec<Vec<u32>>, index: u32) {
    if *subscriber == index {
        return;
    }
    if *subscriber < GROUPS {
        groups.push(vec![*subscriber]);
        *subscriber = GROUPS + (groups.len() as u32 - 1);
    }
    let members = &mut groups[(*subscriber - GROUPS) as usize];
    if let Err(position) = members.binary_search(&index) {
        members.insert(position, index);
    }
}

fn register(stream: TcpStream, poller: &Poller, index: u32) -> std::io::Result<Link> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Link::register(stream, poller, u64::from(index), Interest::Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subscriber_stands_in_the_table_and_more_are_a_group_in_which_each_is_once() {
        let (mut groups, mut subscriber) = (Vec::new(), 7);
        join(&mut subscriber, &mut groups, 7);
        assert_eq!((subscriber, groups.len()), (7, 0), "the same again");
        for index in [9, 3, 9, 7] {
            join(&mut subscriber, &mut groups, index);
        }
        assert_eq!((subscriber, &groups), (GROUPS, &vec![vec![3, 7, 9]]));
        let mut another = 1;
        join(&mut another, &mut groups, 3);
        assert_eq!((another, &groups[1]), (GROUPS + 1, &vec![1, 3]));
    }

    #[test]
    fn only_topics_are_subscribed_to() {
        assert!(is_topic(b"a/b") && is_topic(b"$SYS/broker/#"));
        assert!(!is_topic(b"a/+") && !is_topic(b"#") && !is_topic(b"$share/g/a"));
    }
}
