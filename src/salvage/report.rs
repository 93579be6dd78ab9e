//! What is missing: by shard, session and record. Also as JSON.
//!
//! Decides what counts as missing. Numbers of records and keys of sessions are those of the damaged journals.

use crate::ids::{Lsn, SessionKey, ShardId};
use crate::journal::{Flaw, Lost};
use crate::json::{array, quoted};
use crate::reshard::Totals;

/// What was salvaged, and what was not.
#[derive(Clone, Debug)]
pub struct Report {
    /// By shard.
    pub shards: Vec<ShardReport>,
    /// What is wrong with the directory's `meta` file. What it said is in every segment.
    pub meta: Option<String>,
    /// What each shard has in the new directory.
    pub totals: Vec<Totals>,
    /// QoS 2 messages that are still to be routed, and will be when a broker starts on it.
    pub under_way: u64,
}

/// How a shard was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Every record that is needed is there.
    Whole,
    /// Some are lost.
    Damaged,
    /// There is nothing of it: no directory, or none of its segments.
    Missing,
    /// The same, but there never was anything: the directory was made, and no broker came to serve on it.
    NeverBegun,
}

/// Of one shard.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which.
    pub shard: ShardId,
    /// How it was found.
    pub state: State,
    /// Records that were needed, and are there.
    pub records: u64,
    /// The last record that is known to have been written. Whether others followed cannot be told of a last block that is
    /// damaged, or of a last segment that is gone.
    pub last: Lsn,
    /// Places that are not as they were written.
    pub flaws: Vec<Flaw>,
    /// Records that were needed, or may have been, and are not there.
    pub lost: Vec<Lost>,
    /// A lost record may have said that something was done with: it may come again.
    pub again: bool,
    /// Its sessions, if something is lost: any of them may have lost a message in a lost range.
    pub sessions: Vec<SessionLoss>,
    /// Records that made a message the retained one of its topic, and the message is lost. The one before it may be back.
    pub retained: Vec<Lsn>,
    /// Messages at QoS 2 from its publishers that it has lost, and other shards have.
    pub elsewhere: Vec<Elsewhere>,
}

/// What a session has lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionLoss {
    /// Its key in the damaged journals.
    pub key: SessionKey,
    /// If that is known.
    pub name: Option<Name>,
    /// Messages that it was to get, and that are lost.
    pub certain: Vec<Lsn>,
    /// Set if its own record is lost, and so all of it.
    pub whole: Option<Whole>,
}

/// Whose session it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// Empty where the account is the client id.
    pub account: String,
    /// Client identifier.
    pub client_id: String,
}

impl Name {
    pub(super) fn new(account: &str, client_id: &str) -> Name {
        Name { account: account.to_owned(), client_id: client_id.to_owned() }
    }
}

/// What is known of a session whose own record is lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Whole {
    /// Records that list it as one who still had to get a message.
    pub messages: Vec<Lsn>,
    /// Its subscriptions.
    pub filters: Vec<String>,
}

/// A message that its own shard has lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// The record there.
    pub lsn: Lsn,
    /// The shard that has it for its sessions.
    pub holder: ShardId,
}

impl ShardReport {
    pub(super) fn empty(shard: ShardId, state: State) -> ShardReport {
        ShardReport {
            shard,
            state,
            records: 0,
            last: Lsn::NONE,
            flaws: Vec::new(),
            lost: Vec::new(),
            again: false,
            sessions: Vec::new(),
            retained: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Whether everything that was needed is there.
    pub fn is_whole(&self) -> bool {
        matches!(self.state, State::Whole | State::NeverBegun)
    }

    /// Needed records that are not there, as far as anybody knows.
    pub fn records_lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.records).sum()
    }
}

impl Report {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.shards.iter().all(ShardReport::is_whole)
    }

    /// Whether something that was acknowledged may come again.
    pub fn again(&self) -> bool {
        self.shards.iter().any(|shard| shard.again)
    }

    /// As one JSON object in a line.
    pub fn json(&self) -> String {
        let shards = array(self.shards.iter().map(shard_json));
        let kept = array(self.totals.iter().map(|totals| {
            let Totals { sessions, queued, retained } = totals;
            format!("{{\"sessions\":{sessions},\"queued\":{queued},\"retained\":{retained}}}")
        }));
        let (whole, again, under_way) = (self.is_whole(), self.again(), self.under_way);
        let meta = self.meta.as_ref().map_or("null".to_owned(), |meta| quoted(meta));
        format!(
            "{{\"whole\":{whole},\"may_come_again\":{again},\"meta\":{meta},\"shards\":{shards},\"kept\":{kept},\
             \"under_way\":{under_way}}}\n"
        )
    }
}

fn shard_json(report: &ShardReport) -> String {
    let state = match report.state {
        State::Whole => "whole",
        State::Damaged => "damaged",
        State::Missing => "missing",
        State::NeverBegun => "never begun",
    };
    let flaws = report.flaws.iter().map(|flaw| {
        let [file, expected, found] = [&flaw.file, &flaw.expected, &flaw.found].map(|text| quoted(text));
        format!("{{\"file\":{file},\"offset\":{},\"expected\":{expected},\"found\":{found}}}", flaw.offset)
    });
    let lost = report.lost.iter().map(|lost| {
        let (first, last, place) = (lost.lsns.start().0, lost.lsns.end().0, quoted(&lost.place));
        format!("{{\"first\":{first},\"last\":{last},\"records\":{},\"place\":{place}}}", lost.records)
    });
    let elsewhere = report
        .elsewhere
        .iter()
        .map(|Elsewhere { lsn, holder }| format!("{{\"lsn\":{},\"shard\":{}}}", lsn.0, holder.0));
    format!(
        "{{\"shard\":{},\"state\":\"{state}\",\"records\":{},\"last_lsn\":{},\"records_lost\":{},\"may_come_again\":{},\"defects\":{},\
         \"lost\":{},\"sessions\":{},\"retained_lost\":{},\"under_way_elsewhere\":{}}}",
        report.shard.0,
        report.records,
        report.last.0,
        report.records_lost(),
        report.again,
        array(flaws),
        array(lost),
        array(report.sessions.iter().map(session_json)),
        lsns(&report.retained),
        array(elsewhere)
    )
}

fn session_json(loss: &SessionLoss) -> String {
    let name = loss.name.as_ref().map_or("\"client_id\":null".to_owned(), |name| {
        let (client_id, account) = (quoted(&name.client_id), quoted(&name.account));
        format!("\"client_id\":{client_id},\"account\":{account}")
    });
    let whole = loss.whole.as_ref().map_or(String::new(), |whole| {
        let filters = array(whole.filters.iter().map(|filter| quoted(filter)));
        format!(",\"listed_in\":{},\"subscriptions\":{filters}", lsns(&whole.messages))
    });
    let (key, gone) = (loss.key.0, loss.whole.is_some());
    let certain = lsns(&loss.certain);
    format!("{{\"key\":{key},{name},\"session_lost\":{gone},\"messages_lost\":{certain}{whole}}}")
}

fn lsns(lsns: &[Lsn]) -> String {
    array(lsns.iter().map(|lsn| lsn.0.to_string()))
}
