//! One publisher's window: which packet identifiers are in flight, and how far each one's handshake has come.
//!
//! Decides when a publisher may send again, and that an acknowledgement nobody waits for is an error: a broker that
//! acknowledges twice, or something it was never sent, must not look fast. Does not write to a connection by itself.
//!
//! Invariant: every identifier `1..=window` is either free or in flight, never both.

use std::collections::VecDeque;

use anyhow::{Result, bail, ensure};

use super::codec::{self, Frame, kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    AwaitsPuback,
    AwaitsPubrec,
    AwaitsPubcomp,
}

/// The packet identifiers of one publisher at QoS 1 or 2.
pub struct Window {
    free: VecDeque<u16>,
    /// By identifier minus one: the stage, and when the PUBLISH was sent.
    flights: Vec<(Stage, u64)>,
}

impl Window {
    /// A window of `width` messages.
    pub fn new(width: u16) -> Window {
        Window { free: (1..=width).collect(), flights: vec![(Stage::Free, 0); usize::from(width)] }
    }

    /// Takes an identifier for a message of QoS 1 or 2 sent at `now_ns`, if the window has room.
    pub fn take(&mut self, qos: u8, now_ns: u64) -> Option<u16> {
        let packet_id = self.free.pop_front()?;
        let stage = if qos == 1 { Stage::AwaitsPuback } else { Stage::AwaitsPubrec };
        self.flights[usize::from(packet_id) - 1] = (stage, now_ns);
        Some(packet_id)
    }

    /// Handles a PUBACK that may refuse: the identifier, which is free again, and the reason code.
    pub fn answered(&mut self, frame: &Frame<'_>) -> Result<(u16, u8)> {
        let (packet_id, reason) = codec::parse_ack(frame)?;
        let flight = usize::from(packet_id).checked_sub(1).and_then(|index| self.flights.get_mut(index));
        let awaited =
            flight.filter(|(stage, _)| (*stage, frame.kind()) == (Stage::AwaitsPuback, kind::PUBACK));
        let Some((stage, _)) = awaited else {
            bail!("packet type {} names {packet_id}, which does not await it", frame.kind())
        };
        *stage = Stage::Free;
        self.free.push_back(packet_id);
        Ok((packet_id, reason))
    }

    /// Handles PUBACK, PUBREC or PUBCOMP; a PUBREC is answered into `out`, the publisher's outgoing bytes.
    /// Returns when the message was sent, once its handshake is complete.
    pub fn acknowledge(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<Option<u64>> {
        let (packet_id, reason) = codec::parse_ack(frame)?;
        let kind = frame.kind();
        ensure!(reason < 0x80, "packet type {kind} refuses message {packet_id} with reason {reason:#04x}");
        let flight = usize::from(packet_id).checked_sub(1).and_then(|index| self.flights.get_mut(index));
        let Some((stage, sent_ns)) = flight else {
            bail!("packet type {kind} names {packet_id}, which was never sent")
        };
        match (*stage, kind) {
            (Stage::AwaitsPubrec, kind::PUBREC) => {
                *stage = Stage::AwaitsPubcomp;
                codec::encode_ack(out, kind::PUBREL, packet_id);
                Ok(None)
            }
            (Stage::AwaitsPuback, kind::PUBACK) | (Stage::AwaitsPubcomp, kind::PUBCOMP) => {
                *stage = Stage::Free;
                self.free.push_back(packet_id);
                Ok(Some(*sent_ns))
            }
            (stage, kind) => bail!("message {packet_id} ({stage:?}) got packet type {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledge(window: &mut Window, kind: u8, packet_id: u16, out: &mut Vec<u8>) -> Result<Option<u64>> {
        let mut bytes = Vec::new();
        codec::encode_ack(&mut bytes, kind, packet_id);
        window.acknowledge(&codec::split_frame(&bytes)?.unwrap(), out)
    }

    #[test]
    fn a_window_gives_out_its_width_and_takes_back_what_is_acknowledged() {
        let (mut window, mut out) = (Window::new(2), Vec::new());
        assert_eq!((window.take(1, 5), window.take(1, 6), window.take(1, 7)), (Some(1), Some(2), None));
        assert_eq!(acknowledge(&mut window, kind::PUBACK, 2, &mut out).unwrap(), Some(6));
        assert_eq!((window.take(1, 7), window.take(1, 8)), (Some(2), None));
        assert_eq!(acknowledge(&mut window, kind::PUBACK, 1, &mut out).unwrap(), Some(5));
        assert_eq!((window.take(1, 9), window.take(1, 9), out.len()), (Some(1), None, 0));
    }

    #[test]
    fn qos_2_is_complete_after_pubcomp_and_answers_pubrec_with_pubrel() {
        let (mut window, mut out) = (Window::new(1), Vec::new());
        assert_eq!(window.take(2, 9), Some(1));
        assert!(acknowledge(&mut window, kind::PUBCOMP, 1, &mut out).is_err());
        assert_eq!(acknowledge(&mut window, kind::PUBREC, 1, &mut out).unwrap(), None);
        assert_eq!(out, [0x62, 2, 0, 1]);
        assert_eq!(acknowledge(&mut window, kind::PUBCOMP, 1, &mut out).unwrap(), Some(9));
    }

    #[test]
    fn an_acknowledgement_nobody_waits_for_is_an_error() {
        let (mut window, mut out) = (Window::new(1), Vec::new());
        for packet_id in [0, 1, 2] {
            assert!(acknowledge(&mut window, kind::PUBACK, packet_id, &mut out).is_err());
        }
        window.take(1, 0);
        assert!(acknowledge(&mut window, kind::PUBREC, 1, &mut out).is_err());
        let refused = [0x40, 3, 0, 1, 0x97];
        assert!(window.acknowledge(&codec::split_frame(&refused).unwrap().unwrap(), &mut out).is_err());
    }

    #[test]
    fn a_refusal_is_an_answer_where_it_is_expected_but_only_once() {
        let mut window = Window::new(1);
        let refused = [0x40, 3, 0, 1, 0x97];
        let refused = codec::split_frame(&refused).unwrap().unwrap();
        assert!(window.answered(&refused).is_err(), "of nothing");
        window.take(1, 0);
        assert_eq!(window.answered(&refused).unwrap(), (1, 0x97));
        assert!(window.answered(&refused).is_err(), "twice");
        assert_eq!(window.take(1, 0), Some(1), "free again");
    }
}
