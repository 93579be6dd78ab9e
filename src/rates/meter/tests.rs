//! Meters that crash and go on from what was written down.

use std::collections::BTreeMap;

use super::*;
use crate::limits::RATE_KEPT_PARTS;
use crate::rates::{Rates, limit_of, number_of as number};
use crate::reactor::Random;

const MS: u64 = 1_000_000;

/// To which times on disk are rounded, at most.
const ROUNDED_NS: u64 = 3 * MS;

const NAMES: [[&str; 2]; 4] = [["", "alone"], ["tenant", "one"], ["tenant", "two"], ["other", "one"]];
const KEPT: [Scope; 2] = [Scope::Client, Scope::Account];

fn limits(rates: [(Scope, What, &str); 4]) -> Rates {
    let mut limits = Rates::default();
    for (scope, what, rate) in rates {
        limits.by_scope[scope as usize][what as usize] = Some(rate.parse().unwrap());
    }
    limits
}

/// What the journal has: limit and names, and the marks in their order.
type Written = Vec<((u8, [&'static str; 2]), UnixMs)>;

/// When which bucket is full.
type State = BTreeMap<(u8, [&'static str; 2]), Nanos>;

struct Run {
    rates: Rates,
    random: Random,
    meter: Meter,
    now: Now,
    written: Written,
    /// What each bucket has come to when it was last taken from; of a debt that is one burst.
    reached: State,
    /// Of each mark, what was so before it was made: without it that is still known.
    before: Vec<State>,
    lives: u8,
    /// Marks that the last crash has left.
    survived: usize,
}

impl Run {
    fn new(rates: &Rates, seed: u64) -> Run {
        let shared = Arc::new(Shared::new(rates.clone(), [0; 16]));
        Run {
            rates: rates.clone(),
            random: Random::new(seed),
            meter: Meter::new(shared),
            now: Now { mono: Nanos(1 << 50), wall: UnixMs(1_700_000_000_000) },
            written: Vec::new(),
            reached: State::new(),
            before: Vec::new(),
            lives: 0,
            survived: 0,
        }
    }

    fn wait_ns(&mut self, ns: u64) {
        // The wall clock is read without its part of a millisecond.
        let ms = (self.now.mono.0 + ns) / 1_000_000 - self.now.mono.0 / 1_000_000;
        self.now = Now { mono: Nanos(self.now.mono.0 + ns), wall: UnixMs(self.now.wall.0 + ms) };
    }

    fn state(&mut self) -> State {
        let mut state = State::new();
        for [account, client_id] in NAMES {
            let who = self.meter.who(account, client_id, IpAddr::from([10, 0, 0, 1]), 0);
            for (scope, what) in KEPT.into_iter().flat_map(|scope| WHATS.map(|what| (scope, what))) {
                let Some((_, own, key)) = self.meter.own(scope, what, &who) else { continue };
                let passed = Passed { scope, what, mark: Nanos(0) };
                let full_at = own.buckets.get(key).full_at();
                state.insert((number(scope, what), passed.names(account, client_id)), full_at);
            }
        }
        state
    }

    fn pay(&mut self) {
        let random = &mut self.random;
        let [account, client_id] = NAMES[random.below(NAMES.len() as u64) as usize];
        let (kind, cost) = (random.below(3), 1 + random.below(4));
        let before = (self.state(), self.reached.clone());
        let (who, now) = (self.meter.who(account, client_id, IpAddr::from([10, 0, 0, 1]), 0), self.now.mono);
        match kind {
            0 => drop(self.meter.connects(&who, now)),
            1 => drop(self.meter.pays(What::Connects, &who, cost, now)),
            _ => drop(self.meter.owes(What::Publishes, &who, cost, now)),
        }
        for passed in self.meter.take_passed() {
            let limit = (number(passed.scope, passed.what), passed.names(account, client_id));
            self.written.push((limit, passed.full_at(self.now)));
            self.before.push(before.1.clone());
        }
        for (limit, full_at) in self.state() {
            if before.0[&limit] != full_at {
                self.reached.insert(limit, full_at.min(Nanos(now.0 + self.burst_ns(limit.0))));
            }
        }
        assert!(!self.meter.has_passed());
    }

    /// The process dies, with so many of the marks on disk; another goes on from these.
    fn crash(&mut self, durable: usize) {
        self.written.truncate(durable);
        let latest: BTreeMap<_, _> = self.written.iter().copied().collect();
        self.lives += 1;
        // Another clock, and names have other hashes.
        self.now.mono.0 = (1 << 45) + self.random.below(1 << 40);
        self.meter = Meter::new(Arc::new(Shared::new(self.rates.clone(), [self.lives; 16])));
        for ((limit, names), full_at) in latest {
            self.meter.resume(limit_of(limit).unwrap(), names, full_at, self.now);
        }
        self.reached = self.state();
        self.before.truncate(durable);
        self.survived = durable;
    }

    fn burst_ns(&self, limit: u8) -> u64 {
        let (scope, what) = limit_of(limit).unwrap();
        self.rates.of(scope, what, 0).unwrap().burst_ns()
    }
}

/// At every point of many short histories, with any number of the last marks lost.
#[test]
fn after_a_crash_nobody_has_more_than_before_nor_less_by_more_than_a_part_of_the_burst() {
    let rates = limits([
        (Scope::Client, What::Connects, "6/min burst 12"),
        (Scope::Account, What::Connects, "100/h burst 40"),
        (Scope::Client, What::Publishes, "10/day burst 30"),
        (Scope::Account, What::Publishes, "1000/h"),
    ]);
    let (mut exact, mut behind) = (0, 0);
    for seed in 0..300 {
        let mut run = Run::new(&rates, seed);
        for _ in 0..40 {
            let wait_ns = [0, 1_000_003, 3_000_000_000, 40_000_000_000][run.random.below(4) as usize];
            let wait_ns = run.random.below(wait_ns + 1);
            run.wait_ns(wait_ns);
            run.pay();
            if !run.random.per_mille(150) {
                continue;
            }
            let lost = if run.random.per_mille(500) { run.random.below(4) as usize } else { 0 };
            let durable = run.written.len().saturating_sub(lost).max(run.survived);
            // What was used up before the first mark that is lost is known; where none is, all of it.
            let (now, after) = (run.now.mono.0, run.state());
            let known = run.before.get(durable).unwrap_or(&run.reached).clone();
            run.crash(durable);
            for (limit, full_at) in run.state() {
                let left = |full_at: Option<&Nanos>, now| full_at.map_or(0, |at| at.0.saturating_sub(now));
                let has = left(Some(&full_at), run.now.mono.0);
                let least = left(known.get(&limit), now);
                // A mark that is read by one process after another is rounded by each.
                assert!(has + MS > least, "seed {seed}: {limit:?} has {} ns more than before", least - has);
                let most =
                    left(after.get(&limit), now) + run.burst_ns(limit.0) / RATE_KEPT_PARTS + ROUNDED_NS;
                assert!(has <= most, "seed {seed}: {limit:?} has {} ns less than before", has - most);
                exact += usize::from(has > 0 && lost == 0);
                behind += usize::from(has < left(after.get(&limit), now));
            }
        }
    }
    assert!(exact > 1_000 && behind > 100, "{exact} {behind}");
}

#[test]
fn what_is_written_of_an_account_is_for_all_its_clients_and_of_a_client_for_it_alone() {
    let rates = limits([
        (Scope::Client, What::Connects, "10/day burst 10"),
        (Scope::Account, What::Connects, "30/day burst 30"),
        (Scope::Client, What::Publishes, "10/s"),
        (Scope::Account, What::Publishes, "10/s"),
    ]);
    let now = Now { mono: Nanos(1), wall: UnixMs(1_000_000) };
    let shared = Arc::new(Shared::new(rates, [1; 16]));
    let mut meter = Meter::new(shared);
    let who =
        |meter: &Meter, account, client_id| meter.who(account, client_id, IpAddr::from([0, 0, 0, 0]), 0);
    let one = who(&meter, "tenant", "one");
    meter.pays(What::Connects, &one, 10, now.mono).unwrap();
    assert!(meter.owes(What::Publishes, &one, 10, now.mono).is_none());
    let passed = meter.take_passed();
    let names: Vec<_> = passed.iter().map(|one| (one.scope, one.what, one.names("tenant", "one"))).collect();
    let expected = [
        (Scope::Client, What::Connects, ["tenant", "one"]),
        (Scope::Account, What::Connects, ["tenant", ""]),
    ];
    assert_eq!(names, expected, "a burst of a second is not kept");
    let mut again = Meter::new(Arc::new(Shared::new(meter.shared.rates().clone(), [2; 16])));
    for passed in &passed {
        let names = passed.names("tenant", "one");
        again.resume((passed.scope, passed.what), names, passed.full_at(now), now);
    }
    let (one, two) = (who(&again, "tenant", "one"), who(&again, "tenant", "two"));
    assert_eq!(again.connects(&one, now.mono).unwrap_err().scope, Scope::Client);
    // 10 of the account's 30 are used up, and a part of the burst may be missing.
    assert_eq!(again.pays(What::Connects, &two, 10, now.mono), Ok(()));
    let three = who(&again, "tenant", "three");
    assert_eq!(again.pays(What::Connects, &three, 10, now.mono).unwrap_err().scope, Scope::Account);
    let four = who(&again, "tenant", "four");
    assert_eq!(again.pays(What::Connects, &four, 8, now.mono), Ok(()));
}
