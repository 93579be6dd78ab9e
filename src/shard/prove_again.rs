//! A client that is connected proves once more who it is [MQTT 5, 4.12.1].
//!
//! Decides nothing about proofs: the guard of its listener does, as when it connected. What it publishes and is sent meanwhile goes
//! on under what it has proven before. If it fails, or turns out to be somebody else, its connection ends [MQTT-4.12.1-2].
//! Called by `inbound` and by `handshake`.
//!
//! Only who has come in by an exchange can do that, and only those have an entry here.

use std::net::IpAddr;

use crate::access::guard::{Asked, Refusal, Shown, Step};
use crate::access::passport::Passport;
use crate::access::scram;
use crate::broker::input::Input;
use crate::hash::ByNumber;
use crate::ids::ConnectionId;
use crate::journal::Storage;
use crate::reactor::Reactor;
use crate::wire::{Auth, Connect, Properties, ReasonCode, Version};

use super::inbound::Parsing;
use super::shard::Shard;

/// Connections that came in by an exchange, by slot.
#[derive(Default)]
pub(super) struct Provers {
    by_slot: ByNumber<u64, Box<Prover>>,
}

struct Prover {
    listener: u32,
    source: Option<IpAddr>,
    account: Box<str>,
    client_id: Box<str>,
    /// What it has to answer.
    exchange: Option<Box<Asked>>,
}

impl Provers {
    /// Whether that connection may prove again who it is.
    pub(super) fn has(&self, id: ConnectionId) -> bool {
        !self.by_slot.is_empty() && self.by_slot.contains_key(&u64::from(id.slot))
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        if !self.by_slot.is_empty() {
            self.by_slot.remove(&u64::from(id.slot));
        }
    }
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// A connection was let in with that; it may have to remember how.
    pub(super) fn remember_prover(
        &mut self,
        id: ConnectionId,
        account: &str,
        client_id: &str,
        passport: &Passport,
    ) {
        let buffers = self.out.connections.get(id).and_then(|entry| entry.buffers());
        let (Some(buffers), true) = (buffers, passport.reply.is_some()) else { return };
        let address = buffers.peer.ip();
        let prover = Prover {
            listener: buffers.listener,
            source: (!address.is_unspecified()).then_some(address),
            account: account.into(),
            client_id: client_id.into(),
            exchange: None,
        };
        self.provers.by_slot.insert(id.slot.into(), Box::new(prover));
    }

    /// AUTH of a connection that came in by an exchange.
    pub(super) fn prove_again(&mut self, id: ConnectionId, auth: &Auth<'_>) -> Parsing {
        self.input(Input::Heard { connection: id });
        match self.judge_again(id, auth) {
            Ok((reason, data)) => {
                let method = Some(scram::METHOD);
                let answer = Auth { reason, method, data: Some(&data), reason_string: None };
                self.out.answer(id, &answer);
                Parsing::Continue
            }
            Err(refusal) => {
                let slot = id.slot;
                tracing::debug!(event = "not_proven_again", slot, reason = ?refusal.reason, why = refusal.why);
                let reason = match refusal.reason {
                    // CONNACK has this, and DISCONNECT has not.
                    ReasonCode::BadUserNameOrPassword => ReasonCode::NotAuthorized,
                    reason => reason,
                };
                self.input(Input::Malformed { connection: id, reason });
                Parsing::Stop
            }
        }
    }

    /// What to answer: to go on, or that it has proven it.
    fn judge_again(&mut self, id: ConnectionId, auth: &Auth<'_>) -> Result<(ReasonCode, Box<[u8]>), Refusal> {
        let Some(prover) = self.provers.by_slot.get_mut(&u64::from(id.slot)) else {
            unreachable!("asked by who has an entry");
        };
        let guarded = self.listeners.get(prover.listener as usize);
        let Some(guarded) = guarded.and_then(|listening| listening.acceptor.guarded.clone()) else {
            return Err(Refusal::new(ReasonCode::ServerBusy, "the listeners are closed already"));
        };
        let source = prover.source;
        let shown = Shown { connection: id, source, certificate: None, at: self.now.wall };
        let client_id = prover.client_id.clone();
        let connect = showing(&client_id, auth);
        match (auth.reason, prover.exchange.take()) {
            (ReasonCode::ReAuthenticate, None) => {
                let names = &mut self.identities;
                match guarded.guard.examine(&connect, &shown, &mut self.seen, || names.nonce()) {
                    Step::Ask(exchange, data) => {
                        prover.exchange = Some(exchange);
                        Ok((ReasonCode::ContinueAuthentication, data.into()))
                    }
                    Step::Refused(refusal) => Err(refusal),
                    Step::Admitted(_) | Step::Later(..) => {
                        unreachable!("a method that is named asks, or refuses")
                    }
                }
            }
            (ReasonCode::ContinueAuthentication, Some(exchange)) if auth.method == Some(scram::METHOD) => {
                let data = auth.data.unwrap_or_default();
                let admission = guarded.guard.finish(&connect, &shown, *exchange, data)?;
                if *admission.account != *prover.account {
                    return Err(Refusal::new(ReasonCode::NotAuthorized, "has proven another account"));
                }
                let reply = admission.passport.reply.expect("an exchange has a last word");
                Ok((ReasonCode::Success, reply.data))
            }
            _ => Err(Refusal::new(ReasonCode::ProtocolError, "no answer, and no beginning, of an exchange")),
        }
    }
}

/// A CONNECT that shows what such an AUTH does.
fn showing<'a>(client_id: &'a str, auth: &Auth<'a>) -> Connect<'a> {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 0,
        session_expiry: None,
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: None,
        request_response_information: false,
        request_problem_information: true,
        // One that names none names no method of ours.
        authentication_method: Some(auth.method.unwrap_or_default()),
        authentication_data: auth.data,
        properties: Properties::EMPTY,
        client_id,
        will: None,
        username: None,
        password: None,
    }
}
