//! The report as text.

use std::fmt::Write;

use super::report::{Report, SessionLoss, ShardReport, State};
use crate::ids::Lsn;
use crate::journal::{Flaw, Lost};

impl Report {
    /// As text, with so many sessions of each shard at most.
    pub fn words(&self, sessions_max: usize) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        if let Some(meta) = &self.meta {
            line(format!("{meta}: what it said is in the segments"));
        }
        for report in &self.shards {
            line(format!("shard {}: {}", report.shard.0, state(report)));
            of_shard(report, sessions_max, &mut |words| line(format!("  {words}")));
        }
        line("what the new directory has".to_owned());
        line("shard  sessions  messages queued  retained".to_owned());
        for (shard, totals) in self.totals.iter().enumerate() {
            line(format!(
                "{shard:>5}  {:>8}  {:>15}  {:>8}",
                totals.sessions, totals.queued, totals.retained
            ));
        }
        if self.under_way > 0 {
            line(format!(
                "{} messages at QoS 2 are under way, and are delivered after the start",
                self.under_way
            ));
        }
        if self.again() {
            line("messages that were acknowledged may be delivered again, also at QoS 2".to_owned());
        }
        let whole = self.is_whole();
        line(if whole { "nothing is missing" } else { "something is missing, see above" }.to_owned());
        text
    }
}

fn state(report: &ShardReport) -> String {
    let (records, last) = (report.records, report.last.0);
    match report.state {
        State::Whole => format!("whole, {records} records, the last known is {last}"),
        State::Damaged => format!(
            "DAMAGED, {records} records are intact and {} are lost; the last known is {last}",
            report.records_lost()
        ),
        State::Missing => "MISSING, it begins empty: its sessions and all that they had are lost".to_owned(),
        State::NeverBegun => "never begun".to_owned(),
    }
}

fn of_shard(report: &ShardReport, sessions_max: usize, line: &mut dyn FnMut(String)) {
    // Of a whole one these are places that nothing depends on.
    let kind = if report.is_whole() { "remark" } else { "defect" };
    for Flaw { file, offset, expected, found } in &report.flaws {
        line(format!("{kind}: {file} at byte {offset}: expected {expected}; found {found}"));
    }
    for lost in &report.lost {
        let Lost { lsns, records, place } = lost;
        line(format!("lost: {records} needed of records {} to {}: {place}", lsns.start().0, lsns.end().0));
    }
    if !report.lost.is_empty() {
        line(
            "deliveries at QoS 2 whose state was lost begin anew; wills that were withdrawn may be published; what was used up \
             of rate limits may be there again"
                .to_owned(),
        );
    }
    if report.again {
        line("what was lost may have said that messages were acknowledged: these may come again".to_owned());
    }
    for record in &report.retained {
        line(format!(
            "lost: the retained message that record {} speaks of; an older one of its topic may be back",
            record.0
        ));
    }
    if let (Some(first), count) = (report.elsewhere.first(), report.elsewhere.len()) {
        line(format!(
            "{count} lost messages at QoS 2 of its publishers are in other shards for their sessions, and perhaps not in \
             all: record {} in shard {}{}",
            first.lsn.0,
            first.holder.0,
            if count > 1 { ", ..." } else { "" }
        ));
    }
    // Those first that have lost something for certain.
    let (sure, perhaps): (Vec<&SessionLoss>, Vec<&SessionLoss>) =
        report.sessions.iter().partition(|loss| loss.whole.is_some() || !loss.certain.is_empty());
    sure.iter().take(sessions_max).for_each(|loss| line(of_session(loss)));
    let left = sessions_max.saturating_sub(sure.len());
    perhaps.iter().take(left).for_each(|loss| line(of_session(loss)));
    let more = report.sessions.len().saturating_sub(sessions_max);
    if more > 0 {
        line(format!("{more} more sessions are in the report in the new directory"));
    }
}

fn of_session(loss: &SessionLoss) -> String {
    let name = match &loss.name {
        Some(name) if name.account.is_empty() => format!("client {:?}", name.client_id),
        Some(name) => format!("client {:?} of account {:?}", name.client_id, name.account),
        None => format!("a client whose name is lost (session {})", loss.key.0),
    };
    let certain = match &*loss.certain {
        [] => String::new(),
        certain => format!("message{} {}, and ", if certain.len() > 1 { "s" } else { "" }, list(certain)),
    };
    match &loss.whole {
        None => format!("{name}: lost {certain}perhaps some in the ranges above"),
        Some(whole) => format!(
            "{name}: lost with everything: {} messages ({}) and subscriptions to {:?}",
            whole.messages.len(),
            list(&whole.messages),
            whole.filters
        ),
    }
}

/// Numbers, the first few.
fn list(lsns: &[Lsn]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = lsns.iter().take(SHOWN).map(|lsn| lsn.0.to_string()).collect();
    let more = lsns.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
