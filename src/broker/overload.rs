//! What gives way, and in which order, when there is more to do than can be done.
//!
//! The shard measures ([`Pressure`]), and each [`Step`] has its place: what can be put off gives way before what cannot, waiting comes
//! before refusing, and whoever is here already comes before who is not. What never gives way: acknowledgements, pings, deliveries to
//! those who read, and everything that was accepted.
//!
//! | at | step | what happens | relieves |
//! |---|---|---|---|
//! | 50 % | retained waits | new subscriptions get their retained messages later | lag, memory, output, journal |
//! | 60 % | newcomers wait | of those who connect, [`NEWCOMERS_PER_S`](crate::limits::NEWCOMERS_PER_S) a second are heard | the same |
//! | 70 % | QoS 0 dropped | messages published at QoS 0 are dropped, and counted | lag, memory, output |
//! | 80 % | publishers wait | who publishes is read no further, but for acknowledgements and pings | lag, memory, journal |
//! | 90 % | newcomers refused | who has no session here is refused: CONNACK 0x89 | lag, memory |
//! | 100 % | publishes refused | at QoS 1 and 2: 0x97; 3.1.1 is closed | memory, space |
//!
//! Output that peers do not take (they are closed after a while) never makes publishers wait, or whoever does not read could do that
//! to everybody. A step is left [`OVERLOAD_MARGIN`] percent below where it was entered, by itself. Entering and leaving are one event
//! in the log each; `$SYS/broker/overload/...` counts how often each was entered.

use super::Broker;
use super::effect::{Effect, Effects, Event};
use crate::limits::OVERLOAD_MARGIN;

/// What weighs on a shard, each in percent of what it can bear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// How long a turn takes, whoever waits for it.
    pub lag: u8,
    /// What the process may have.
    pub memory: u8,
    /// What was said and not taken.
    pub output: u8,
    /// What waits for the disk.
    pub journal: u8,
    /// What the disk has room for.
    pub space: u8,
}

/// Something gives way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Retained messages for new subscriptions.
    RetainedWaits,
    /// Those who connect.
    NewcomersWait,
    /// Messages published at QoS 0.
    QoS0Dropped,
    /// Those who publish.
    PublishersWait,
    /// Those who have no session.
    NewcomersRefused,
    /// Messages published at QoS 1 and 2.
    PublishesRefused,
}

/// All of them, in their order.
pub(super) const STEPS: [Step; 6] = [
    Step::RetainedWaits,
    Step::NewcomersWait,
    Step::QoS0Dropped,
    Step::PublishersWait,
    Step::NewcomersRefused,
    Step::PublishesRefused,
];

impl Step {
    /// Its name in the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Step::RetainedWaits => "retained waits",
            Step::NewcomersWait => "newcomers wait",
            Step::QoS0Dropped => "QoS 0 dropped",
            Step::PublishersWait => "publishers wait",
            Step::NewcomersRefused => "newcomers refused",
            Step::PublishesRefused => "publishes refused",
        }
    }

    /// At how many percent it is entered.
    fn entered_at(self) -> u8 {
        50 + 10 * self as u8
    }

    /// The greatest of what it relieves, and its name.
    fn pressure(self, on: &Pressure) -> (u8, &'static str) {
        let (lag, memory) = ((on.lag, "loop lag"), (on.memory, "memory"));
        let (output, journal) = ((on.output, "output backlog"), (on.journal, "journal backlog"));
        let space = (on.space, "journal space");
        let relieved: &[(u8, &'static str)] = match self {
            Step::RetainedWaits | Step::NewcomersWait => &[lag, memory, output, journal],
            Step::QoS0Dropped => &[lag, memory, output],
            Step::PublishersWait => &[lag, memory, journal],
            Step::NewcomersRefused => &[lag, memory],
            Step::PublishesRefused => &[memory, space],
        };
        let greatest = relieved.iter().max_by_key(|(percent, _)| *percent);
        *greatest.expect("every step relieves something")
    }
}

/// Which steps are entered.
#[derive(Debug, Default)]
pub(super) struct Overload {
    entered: [bool; STEPS.len()],
    /// How often each was, since start.
    pub(super) times: [u64; STEPS.len()],
}

impl Overload {
    /// Whether that step is entered.
    pub(super) fn has(&self, step: Step) -> bool {
        self.entered[step as usize]
    }
}

impl Broker {
    /// What the shard has measured.
    pub(super) fn feel(&mut self, pressure: &Pressure, effects: &mut impl Effects) {
        for step in STEPS {
            let (percent, source) = step.pressure(pressure);
            let entered = &mut self.overload.entered[step as usize];
            let margin = if *entered { OVERLOAD_MARGIN } else { 0 };
            let is_due = percent >= step.entered_at() - margin;
            if is_due == *entered {
                continue;
            }
            *entered = is_due;
            self.overload.times[step as usize] += u64::from(is_due);
            let step = step.word();
            effects.perform(Effect::Log(Event::Overload { step, entered: is_due, source, percent }));
        }
    }

    /// Whether a step is entered; for what the shard does about it.
    pub fn gives_way(&self, step: Step) -> bool {
        self.overload.has(step)
    }
}
