//! Whether somebody may publish or subscribe, by the rules of a site: 10, 1,000 and 100,000 of them.
//!
//! As the broker asks: `Permissions::permits`, for somebody whose account is proven. Half of a site's rules are for one account
//! each (an exact topic or a filter with `+`), three tenths for groups of ten accounts, a tenth for client ids, a tenth for
//! everyone; and there are four for everyone with `%u`, `%c` and wildcards. What is asked is a mixture in equal parts
//! ([`questions`]), of which a sixth is refused by default. Each question is of another account than the one before.
//!
//! Counted with the others, and timed by `--time`: a count says nothing of caches, and 100,000 rules do not fit in the nearest.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use ironpost::access::passport::Passport;
use ironpost::access::permissions::{Bearer, Permissions};
use ironpost::access::rules::{Action, Rules};
use ironpost::placement::Placement;

use crate::Case;

pub const CASES: &[Case] = &[
    Case { name: "access/publish-by-10-rules", turns: TURNS, run: |turns| publish(turns, 10) },
    Case { name: "access/publish-by-1000-rules", turns: TURNS, run: |turns| publish(turns, 1_000) },
    Case { name: "access/publish-by-100000-rules", turns: TURNS, run: |turns| publish(turns, 100_000) },
    Case { name: "access/subscribe-by-10-rules", turns: TURNS, run: |turns| subscribe(turns, 10) },
    Case { name: "access/subscribe-by-1000-rules", turns: TURNS, run: |turns| subscribe(turns, 1_000) },
    Case { name: "access/subscribe-by-100000-rules", turns: TURNS, run: |turns| subscribe(turns, 100_000) },
];

/// Kinds of questions, of which one is refused.
const KINDS: u32 = 6;

/// A multiple of that.
const TURNS: u32 = 6_000;

/// As many questions are ready; then they are asked again.
const QUESTIONS: u32 = 10 * TURNS;

/// Accounts in a group. Each is in one.
const MEMBERS: u32 = 10;

/// The same wherever it is counted.
const KEY: [u8; 16] = [7; 16];

static PROVEN: Passport =
    Passport { is_proven: true, groups: Vec::new(), grants: None, expires_at: None, reply: None };

fn publish(turns: u32, rules: u32) {
    Site::new(rules).ask(Action::Publish, turns);
}

fn subscribe(turns: u32, rules: u32) {
    Site::new(rules).ask(Action::Subscribe, turns);
}

/// Rules, and who is there.
struct Site {
    rules: Arc<Rules>,
    permissions: Permissions,
    accounts: u32,
}

/// What somebody asks for.
struct Question {
    account: String,
    client_id: String,
    topic: String,
}

impl Site {
    fn new(rules: u32) -> Site {
        let accounts = rules / 2;
        let rules = Rules::parse(&text(rules, accounts), KEY).expect("rules that are made here");
        let placement = Placement::new(1, KEY, None).expect("no pattern");
        let rules = Arc::new(rules);
        Site { permissions: Permissions::new(Some(rules.clone()), placement, true), rules, accounts }
    }

    /// So many questions, of which five of six are allowed. Sets up the same whatever the number.
    fn ask(&self, action: Action, turns: u32) {
        let questions = questions(action, self.accounts);
        let allowed = self.go_through(action, &questions, turns);
        assert_eq!(allowed, turns / KINDS * (KINDS - 1), "each kind but one is allowed");
    }

    /// How many of so many questions, which are asked in turn, are allowed.
    fn go_through(&self, action: Action, questions: &[Question], turns: u32) -> u32 {
        let mut allowed = 0;
        for question in questions.iter().cycle().take(turns as usize) {
            let Question { account, client_id, topic } = black_box(question);
            let bearer = Bearer { account, client_id, passport: &PROVEN };
            allowed += u32::from(black_box(self.permissions.permits(action, &bearer, topic)));
        }
        allowed
    }
}

/// So many rules, with the groups that they are for.
fn text(rules: u32, accounts: u32) -> String {
    let mut text = String::from(
        "deny subscribe everyone $SYS/#\nallow all everyone u/%u/#\nallow publish everyone u/+/inbox\n\
         allow all everyone probes/%c/#\n",
    );
    for group in 0..accounts.div_ceil(MEMBERS) {
        text.push_str(&format!("group team-{group}"));
        for member in group * MEMBERS..(group + 1) * MEMBERS {
            text.push_str(&format!(" account-{member}"));
        }
        text.push('\n');
    }
    for number in 0..rules.saturating_sub(4) {
        let (tens, account) = (number / 10, number / 10 * 5 + number % 10);
        let team = tens % accounts.div_ceil(MEMBERS);
        text.push_str(&match number % 10 {
            0..5 if account.is_multiple_of(2) => {
                format!("allow publish,subscribe account:account-{account} devices/{account}/status\n")
            }
            0..5 => format!("allow publish,subscribe account:account-{account} devices/+/{account}/#\n"),
            5 | 6 => format!("allow publish,subscribe group:team-{team} rooms/{team}/#\n"),
            7 => format!("deny publish group:team-{team} rooms/{team}/+/sealed\n"),
            8 => format!("allow publish client:client-{tens} clients/{tens}/log\n"),
            _ => format!("allow publish,subscribe everyone public/{tens}/+\n"),
        });
    }
    text
}

/// What is asked: a row in which each six are one of each kind, by accounts in no order.
fn questions(action: Action, accounts: u32) -> Vec<Question> {
    let question = |number: u32| {
        let spread = (u64::from(number) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let account = (spread % u64::from(accounts)) as u32;
        let team = account / MEMBERS;
        let subscribes = action == Action::Subscribe;
        let topic = match number % KINDS {
            0 if subscribes => format!("u/account-{account}/#"),
            0 => format!("u/account-{account}/out"),
            1 if subscribes => format!("u/account-{account}/inbox"),
            1 => format!("u/account-{}/inbox", (account + 1) % accounts),
            2 if subscribes => format!("rooms/{team}/+/messages"),
            2 => format!("rooms/{team}/7/messages"),
            3 => format!("probes/client-{account}/state"),
            4 if account.is_multiple_of(2) => format!("devices/{account}/status"),
            4 if subscribes => format!("devices/kitchen/{account}/#"),
            4 => format!("devices/kitchen/{account}/temperature"),
            _ => format!("rooms-of-nobody/{team}/7/messages"),
        };
        Question { account: format!("account-{account}"), client_id: format!("client-{account}"), topic }
    };
    (0..QUESTIONS).map(question).collect()
}

/// A batch is at least that long: far more than the clock's and the scheduler's grain.
const BATCH_NS: u64 = 50_000_000;

/// Batches of each case.
const BATCHES: usize = 15;

/// Prints nanoseconds of CPU time for each check: the median of some batches, the least and the greatest.
pub fn time() -> Result<(), String> {
    println!(
        "{:<32} {:>8} {:>18} {:>12}",
        "nanoseconds per check", "median", "least..greatest", "bytes held"
    );
    for (name, action) in [("publish", Action::Publish), ("subscribe", Action::Subscribe)] {
        for rules in [10, 1_000, 100_000] {
            let site = Site::new(rules);
            let questions = questions(action, site.accounts);
            let mut each_ns = Vec::with_capacity(BATCHES);
            for _ in 0..BATCHES {
                each_ns.push(site.batch(action, &questions)?);
            }
            each_ns.sort_by(f64::total_cmp);
            let (least, greatest) = (each_ns[0], each_ns[BATCHES - 1]);
            let name = format!("access/{name}-by-{rules}-rules");
            let range = format!("{least:.1}..{greatest:.1}");
            println!("{name:<32} {:>8.1} {range:>18} {:>12}", each_ns[BATCHES / 2], site.rules.bytes());
        }
    }
    Ok(())
}

impl Site {
    /// All questions, as often as it takes to fill a batch; nanoseconds for each.
    fn batch(&self, action: Action, questions: &[Question]) -> Result<f64, String> {
        let begun_ns = cpu_ns()?;
        let mut asked = 0;
        loop {
            black_box(self.go_through(action, questions, QUESTIONS));
            asked += QUESTIONS;
            let spent_ns = cpu_ns()? - begun_ns;
            if spent_ns >= BATCH_NS {
                return Ok(spent_ns as f64 / f64::from(asked));
            }
        }
    }
}

/// What this thread has run, in nanoseconds, by the kernel's books: others that have the processor meanwhile are not in it.
fn cpu_ns() -> Result<u64, String> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| format!("{path} is not understood"))
}
