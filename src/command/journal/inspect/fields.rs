//! A record as names and values, which make a line of words or of JSON.
//!
//! Decides what is shown of each record: everything but bytes that clients sent as payload. Of those, only how many.

use std::fmt::Display;

use crate::ids::{SessionKey, ShardId};
use crate::journal::Evident;
use crate::json::{array, quoted};
use crate::live::Facts;
use crate::rates;
use crate::record::{Body, Recipients, Record, WillRecord};
use crate::time::UnixMs;
use crate::wire::Version;

/// Recipients of one record that are shown.
const RECIPIENTS_SHOWN: usize = 64;

/// Names, and values as JSON has them.
pub(super) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    pub(super) fn new() -> Fields {
        Fields(Vec::new())
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) -> &mut Fields {
        self.0.push((name, quoted(value)));
        self
    }

    pub(super) fn number(&mut self, name: &'static str, value: impl Display) -> &mut Fields {
        self.0.push((name, value.to_string()));
        self
    }

    pub(super) fn truth(&mut self, name: &'static str, value: bool) -> &mut Fields {
        self.0.push((name, value.to_string()));
        self
    }

    pub(super) fn array(&mut self, name: &'static str, values: impl Iterator<Item = String>) -> &mut Fields {
        self.0.push((name, array(values)));
        self
    }

    /// `null` for never.
    fn time(&mut self, name: &'static str, at: UnixMs) -> &mut Fields {
        let value = if at == UnixMs::NEVER { "null".to_owned() } else { at.0.to_string() };
        self.0.push((name, value));
        self
    }

    /// `null` for ever.
    fn seconds(&mut self, name: &'static str, seconds: u32) -> &mut Fields {
        let value = if seconds == u32::MAX { "null".to_owned() } else { seconds.to_string() };
        self.0.push((name, value));
        self
    }

    /// As one line.
    pub(super) fn line(&self, json: bool) -> String {
        let fields = self.0.iter();
        if json {
            let fields: Vec<String> = fields.map(|(name, value)| format!("\"{name}\":{value}")).collect();
            return format!("{{{}}}", fields.join(","));
        }
        fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }
}

/// Everything about a record that may be shown.
pub(super) fn of_record(shard: ShardId, one: &Evident<'_>) -> Fields {
    let mut fields = Fields::new();
    fields.number("shard", shard.0).text("file", one.file).number("offset", one.offset);
    fields.number("lsn", one.lsn.0).text("type", name(&one.record));
    fields.number("kind", one.kind.0).number("version", one.kind.1).truth("needed", one.needed);
    of_kind(&mut fields, &one.record, &one.facts);
    fields
}

fn name(record: &Record<'_>) -> &'static str {
    match record {
        Record::Session { .. } => "Session",
        Record::Disconnected { .. } => "Disconnected",
        Record::WillGone { .. } => "WillGone",
        Record::SessionEnded { .. } => "SessionEnded",
        Record::Subscribed { .. } => "Subscribed",
        Record::Unsubscribed { .. } => "Unsubscribed",
        Record::Message { .. } => "Message",
        Record::Deliver { .. } => "Deliver",
        Record::Acknowledged { .. } => "Acknowledged",
        Record::Inbound { .. } => "Inbound",
        Record::Routed { .. } => "Routed",
        Record::Released { .. } => "Released",
        Record::Sent { .. } => "Sent",
        Record::Received { .. } => "Received",
        Record::Retained { .. } => "Retained",
        Record::RetainedCleared { .. } => "RetainedCleared",
        Record::Gap { .. } => "Gap",
        Record::OriginReleased { .. } => "OriginReleased",
        Record::DeliveryDone { .. } => "DeliveryDone",
        Record::DeliveryBegun { .. } => "DeliveryBegun",
        Record::HandedOn { .. } => "HandedOn",
        Record::Spent { .. } => "Spent",
    }
}

fn of_kind(fields: &mut Fields, record: &Record<'_>, facts: &Facts<'_>) {
    match *record {
        Record::Message { ref body, origin, recipients } => {
            of_body(fields, body);
            if let Some(origin) = origin {
                fields.number("origin_shard", origin.shard.0).number("origin_lsn", origin.lsn.0);
            }
            of_recipients(fields, recipients, facts);
        }
        Record::Deliver { message, recipients } => {
            fields.number("message", message.0);
            of_recipients(fields, recipients, facts);
        }
        Record::Inbound { key, packet_id, ref body } => {
            fields.number("session", key.0).number("packet_id", packet_id);
            of_body(fields, body);
            fields.truth("routed", facts.routed).truth("released", facts.released);
        }
        Record::Acknowledged { key, message, packet_id } => {
            fields.number("session", key.0).number("message", message.0);
            if let Some(packet_id) = packet_id {
                fields.number("packet_id", packet_id);
            }
        }
        Record::Sent { key, message, packet_id } => {
            fields.number("session", key.0).number("message", message.0).number("packet_id", packet_id);
        }
        Record::Released { key, packet_id } | Record::Received { key, packet_id } => {
            fields.number("session", key.0).number("packet_id", packet_id);
        }
        Record::DeliveryDone { list, place } | Record::HandedOn { list, place } => {
            fields.number("list", list.0).number("place", place);
        }
        Record::DeliveryBegun { list, place, packet_id } => {
            fields.number("list", list.0).number("place", place).number("packet_id", packet_id);
        }
        Record::Routed { inbound } => {
            fields.number("inbound", inbound.0);
        }
        Record::Retained { message } => {
            fields.number("message", message.0);
        }
        Record::RetainedCleared { topic } => {
            fields.text("topic", topic);
        }
        Record::OriginReleased { mark } => {
            fields.number("origin_shard", mark.shard.0).number("origin_lsn", mark.lsn.0);
        }
        Record::Spent { account, client_id, limit, full_at } => {
            for (name, value) in [("account", account), ("client_id", client_id)] {
                if !value.is_empty() {
                    fields.text(name, value);
                }
            }
            match rates::limit_of(limit) {
                Some((scope, what)) => fields.text("scope", scope.word()).text("what", what.word()),
                None => fields.number("limit", limit),
            };
            fields.time("full_at_ms", full_at);
        }
        _ => of_session(fields, record),
    }
}

/// Of a record of nothing but a session.
fn of_session(fields: &mut Fields, record: &Record<'_>) {
    match *record {
        Record::Session { key, account, client_id, version, expiry_s, ref will } => {
            let protocol = match version {
                Version::V31 => "3.1",
                Version::V311 => "3.1.1",
                Version::V5 => "5",
            };
            fields.number("session", key.0).text("client_id", client_id);
            if !account.is_empty() {
                fields.text("account", account);
            }
            fields.text("protocol", protocol).seconds("expiry_s", expiry_s);
            if let Some(will) = will {
                of_will(fields, will);
            }
        }
        Record::Disconnected { key, at, expiry_s, will_due } => {
            fields.number("session", key.0).time("at_ms", at).seconds("expiry_s", expiry_s);
            fields.time("will_due_ms", will_due);
        }
        Record::WillGone { key } => {
            fields.number("session", key.0);
        }
        Record::SessionEnded { key, will_due } => {
            fields.number("session", key.0).time("will_due_ms", will_due);
        }
        Record::Subscribed { key, filter, options, subscription_id } => {
            fields.number("session", key.0).text("filter", filter).number("qos", options.qos as u8);
            fields.truth("no_local", options.no_local);
            fields.truth("retain_as_published", options.retain_as_published);
            fields.number("subscription_id", subscription_id);
        }
        Record::Unsubscribed { key, filter } => {
            fields.number("session", key.0).text("filter", filter);
        }
        Record::Gap { key, skipped } => {
            fields.number("session", key.0).number("skipped", skipped);
        }
        ref other => unreachable!("{other:?} is not only of a session"),
    }
}

fn of_body(fields: &mut Fields, body: &Body<'_>) {
    fields.text("topic", body.topic).number("qos", body.qos as u8).truth("retain", body.retain);
    fields.number("properties_bytes", body.forward.len()).number("payload_bytes", body.payload.len());
    fields.time("accepted_at_ms", body.accepted_at).time("expires_at_ms", body.expires_at);
}

fn of_will(fields: &mut Fields, will: &WillRecord<'_>) {
    let WillRecord { body, delay_s, message_expiry_s } = will;
    fields.text("will_topic", body.topic).number("will_qos", body.qos as u8);
    fields.truth("will_retain", body.retain).number("will_payload_bytes", body.payload.len());
    fields.number("will_delay_s", delay_s).seconds("will_expiry_s", *message_expiry_s);
}

/// Each with its place; those who need it no more as of the checkpoint are marked.
fn of_recipients(fields: &mut Fields, recipients: Recipients<'_>, facts: &Facts<'_>) {
    let listed = || recipients.iter().filter(|recipient| !recipient.more);
    fields.number("recipients", listed().count());
    let some = (0..).zip(listed()).take(RECIPIENTS_SHOWN).map(|(place, recipient)| {
        let mut one = Fields::new();
        one.number("place", place).number("session", recipient.session.0);
        one.number("qos", recipient.qos as u8).truth("retain", recipient.retain);
        if recipient.shared {
            one.truth("shared", true);
        }
        if recipient.subscription_id != 0 {
            one.number("subscription_id", recipient.subscription_id);
        }
        let is_gone = facts.gone.is_some_and(|gone| gone.contains(place));
        one.truth("gone", is_gone || recipient.session == SessionKey::NONE);
        one.line(true)
    });
    fields.array("to", some);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_of_a_limit_is_shown_in_the_words_of_the_settings() {
        let line = |account, client_id, limit| {
            let mut fields = Fields::new();
            let record = Record::Spent { account, client_id, limit, full_at: UnixMs(7) };
            of_kind(&mut fields, &record, &Facts::NONE);
            fields.line(false)
        };
        assert_eq!(line("", "c", 2), r#"client_id="c" scope="client" what="publishes" full_at_ms=7"#);
        assert_eq!(line("a", "", 0x10), r#"account="a" scope="account" what="connects" full_at_ms=7"#);
        assert_eq!(line("a", "", 0x99), r#"account="a" limit=153 full_at_ms=7"#);
    }
}
