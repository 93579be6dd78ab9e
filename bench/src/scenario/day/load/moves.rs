//! Comings and goings in scenario `day`: how phones subscribe, leave, vanish, return, and are all called back at the end.
//!
//! Decides who leaves when somebody returns, and that a session which returns must be the one that was kept. Called by
//! `load`, whose loop decides when; the last step, `drain`, and the first, `open`, by `mod`.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::presence::{self, Presence};
use super::{DRAWS_MAX, Load, RETURNING_MAX, STEP_MAX, VANISH_PERCENT};
use crate::client::codec;
use crate::client::fleet::{Fleet, Session, nothing_expected};
use crate::client::publisher::Window;
use crate::load::recipients::State;
use crate::measure::clock;

impl Load {
    /// Everybody subscribes and says that it is there; then those leave who are away.
    pub(in crate::scenario::day) fn open(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + STEP_MAX;
        let nonce = self.nonce.clone();
        fleet.wills = Some(Box::new(move |phone| Some(Presence::will(&nonce, phone))));
        let count = self.phones.len();
        fleet.open(count, deadline, &|phone| self.session(phone), &mut nothing_expected)?;
        for phone in 0..count {
            let group = &self.group_topics[self.people.group_number(phone)];
            let watched = Presence::topic(&self.nonce, self.people.contact(phone, 0));
            let granted = fleet.links.client(phone).map_or(u16::MAX, |client| client.receive_maximum);
            self.phones[phone].window = Window::new(self.settings.day_window.min(granted));
            let out = fleet.links.outbound(phone);
            codec::encode_subscribe(out, self.version, 2, group.as_bytes(), 1);
            codec::encode_subscribe(out, self.version, 3, watched.as_bytes(), 0);
            self.presence.say(out, phone, presence::HERE);
            self.phones[phone].is_ready = true;
            if self.phones[phone].state == State::Silent {
                // It sends nothing from now on, not even pings, and the server's patience ends some time.
                fleet.may_end(phone);
            }
        }
        while self.granted < 2 * count as u64 {
            ensure!(clock::now() < deadline, "{} of {} SUBACKs came", self.granted, 2 * count);
            self.turn(fleet, Duration::from_millis(10))?;
        }
        // Time has not begun: absences count from 0.
        self.now_ns = 0;
        for phone in 0..count {
            if self.phones[phone].state == State::Away {
                self.leave(fleet, phone, false);
            }
        }
        self.settle(fleet)
    }

    /// Nothing new is published and nobody comes or goes, until senders are answered and comings and goings are over.
    pub(in crate::scenario::day) fn settle(&mut self, fleet: &mut Fleet) -> Result<()> {
        let deadline = clock::now() + STEP_MAX;
        loop {
            let unanswered = self.counts.sent - self.counts.acknowledged;
            let away = |phone: usize| self.phones[phone].state == State::Away;
            let moving = (0..self.phones.len()).any(|phone| away(phone) && !fleet.is_closed(phone));
            if unanswered == 0 && !moving && fleet.opening() == 0 && self.arriving.is_empty() {
                return Ok(());
            }
            ensure!(clock::now() < deadline, "{unanswered} unanswered messages, or phones that come or go");
            self.acknowledge(fleet);
            if self.has_begun {
                self.ping(fleet);
            }
            self.turn(fleet, Duration::from_millis(10))?;
        }
    }

    /// Everybody returns and acknowledges at once, until each message has arrived. What is missing at the end is
    /// counted by the books.
    pub(in crate::scenario::day) fn drain(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.draining = true;
        let deadline = clock::now() + STEP_MAX;
        self.give_up_silent(fleet);
        for (index, phone) in self.phones.iter_mut().enumerate() {
            if matches!(phone.state, State::Slow | State::Silent) {
                phone.state = State::Awake;
                // Before the server's patience with the silent ends.
                fleet.ping(index);
            }
        }
        self.acknowledgements.hasten();
        self.leaving.clear();
        self.returns.clear();
        let away = |phone: &usize| self.phones[*phone].state == State::Away;
        let mut to_return: VecDeque<usize> = (0..self.phones.len()).filter(away).collect();
        while clock::now() < deadline {
            self.act(fleet)?;
            while fleet.opening() < RETURNING_MAX
                && let Some(phone) = to_return.pop_front()
            {
                self.come_back(fleet, phone)?;
            }
            if to_return.is_empty() && self.arriving.is_empty() && self.books.awaited_all() == 0 {
                // The last acknowledgements go out too.
                return self.settle(fleet);
            }
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Lets those go that were chosen and have been answered.
    pub(super) fn let_go(&mut self, fleet: &mut Fleet) {
        let mut at = 0;
        while at < self.leaving.len() {
            let phone = self.leaving[at];
            if self.phones[phone].in_flight > 0 || !self.phones[phone].backlog.is_empty() {
                at += 1;
                continue;
            }
            self.leaving.swap_remove(at);
            let vanishes = self.delay.below(100) < VANISH_PERCENT;
            self.leave(fleet, phone, vanishes);
        }
    }

    fn leave(&mut self, fleet: &mut Fleet, index: usize, vanishes: bool) {
        self.goes_away(index);
        if vanishes {
            self.counts.vanished += 1;
            self.presence.vanished(index);
            fleet.abandon(index);
        } else {
            self.presence.say(fleet.links.outbound(index), index, presence::AWAY);
            fleet.leave_one(index);
        }
    }

    fn goes_away(&mut self, index: usize) {
        let absence_s = self.delay.exponential(self.settings.day_absence_seconds);
        self.returns.push(Reverse((self.now_ns + (absence_s * 1e9) as u64, index)));
        let phone = &mut self.phones[index];
        phone.state = State::Away;
        phone.is_ready = false;
        phone.connection += 1;
        phone.queue = 0;
        phone.last_due_ns = 0;
    }

    /// Silent phones that the server has ended are away now.
    pub(super) fn give_up_silent(&mut self, fleet: &Fleet) {
        for phone in 0..self.phones.len() {
            if self.phones[phone].state == State::Silent && fleet.is_closed(phone) {
                self.counts.given_up += 1;
                self.presence.vanished(phone);
                self.goes_away(phone);
            }
        }
    }

    pub(super) fn come_back(&mut self, fleet: &mut Fleet, index: usize) -> Result<()> {
        // A session that was kept is not subscribed again: its subscriptions must have been kept with it.
        let session = Session { subscription: None, ..self.session(index) };
        let queue = if self.draining { 0 } else { self.books.awaited(index) };
        let phone = &mut self.phones[index];
        (phone.state, phone.dialled_ns, phone.queue) = (State::Awake, self.now_ns, queue);
        self.arriving.push(index);
        fleet.reopen(index, session)
    }

    /// Somebody who is awake is chosen, so that as many are away as before.
    pub(super) fn one_leaves(&mut self) {
        for _ in 0..DRAWS_MAX {
            let index = self.delay.below(self.phones.len());
            let phone = &mut self.phones[index];
            if phone.state == State::Awake && phone.is_ready {
                phone.is_ready = false;
                self.leaving.push(index);
                return;
            }
        }
    }

    /// Those whose handshakes are over say that they are there.
    pub(super) fn greet(&mut self, fleet: &mut Fleet) -> Result<()> {
        if self.arriving.is_empty() {
            return Ok(());
        }
        self.read_clock();
        let mut at = 0;
        while at < self.arriving.len() {
            let index = self.arriving[at];
            if !fleet.is_open(index) {
                at += 1;
                continue;
            }
            self.arriving.swap_remove(at);
            let kept = fleet.links.client(index).is_some_and(|client| client.session_present);
            ensure!(kept, "the session of phone {index} was not kept");
            let phone = &mut self.phones[index];
            phone.is_ready = true;
            if !self.draining && self.now_ns >= self.measured_from_ns {
                self.times.login.record(phone.dialled_ns, self.now_ns);
            }
            self.presence.say(fleet.links.outbound(index), index, presence::HERE);
        }
        Ok(())
    }
}
