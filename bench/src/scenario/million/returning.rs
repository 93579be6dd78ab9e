//! The broker's death and what is there after it: every session that is asked for, and every message that was acknowledged.
//!
//! Half of a sample leave, and a message is stored for each; the other half stay connected, as everybody else does. Then
//! the broker is killed (SIGKILL: it saves nothing on the way) and started again on the same data. All of the sample
//! return and must find their sessions; who had left, the message; and each gets one more, because its subscription must
//! have been kept too.
//!
//! Decides what recovery is: from the start of the process until it accepts connections.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::crowd::{Crowd, Spread};
use super::reading::Reading;
use super::{LOG_LINES_MAX, MillionSettings};
use crate::load::random::Random;
use crate::measure::clock;
use crate::report::{self, Outcome};
use crate::server::Server;

/// The whole of it, for a crowd that is connected.
pub fn run(
    server: &mut Server,
    settings: &MillionSettings,
    mut crowd: Crowd,
    random: &mut Random,
    outcome: &mut Outcome,
    detail: &mut Value,
) -> Result<()> {
    let limit = settings.limit();
    let sample = draw(random, settings.sample.min(settings.sessions) as usize, settings.sessions as usize);
    let away: Vec<usize> = sample.iter().copied().step_by(2).collect();
    crowd.leave(&away, limit)?;
    let round = crowd.store(&away, limit)?;
    report::progress(&format!("  {} messages are stored, for sessions that left", away.len()));

    let log_bytes = server.log_bytes();
    let begun = clock::now();
    server.stop(libc::SIGKILL, limit)?;
    let gone = clock::now();
    drop(crowd);
    let dropped = clock::now();
    report::progress("  the broker was killed");
    server.start_again(limit)?;
    let recovered = clock::now();
    detail["restart"] = json!({
        "seconds_until_the_killed_process_was_gone": (gone - begun).as_secs_f64(),
        "seconds_until_the_load_had_closed_its_ends": (dropped - gone).as_secs_f64(),
        "broker_log": server.log_from(log_bytes, LOG_LINES_MAX),
    });
    outcome.add("restart until it listens", "s", (recovered - dropped).as_secs_f64());
    report::progress(&format!("  it listens again after {:.1?}", recovered - dropped));
    if let Some(memory) = Reading::take(server, settings.sessions)?.broker() {
        let sessions = f64::from(settings.sessions);
        outcome.add("user memory per session then", "bytes private, all away", memory.private / sessions);
    }

    let numbers = sample.iter().map(|&number| number as u32).collect();
    let mut back = Crowd::of(numbers, settings.dialect(server), settings)?;
    let returning = clock::now();
    let deadline = returning + limit;
    let unknown = back.come_back(1, round, deadline)? + back.come_back(sample.len(), round, deadline)?;
    ensure!(unknown == 0, "{unknown} of {} sessions were gone after the restart", sample.len());
    back.await_stored(away.len(), limit)?;
    outcome.add("returned with their sessions", "sessions", sample.len() as f64);
    outcome.add("returned to a stored message", "sessions", away.len() as f64);
    outcome.add("all of them back within", "s", (clock::now() - returning).as_secs_f64());
    report::progress(&format!("  {} sessions are back, {} with a message", sample.len(), away.len()));
    back.open_publisher(clock::now() + limit)?;
    let everyone: Vec<usize> = (0..sample.len()).collect();
    let spread = Spread::of(back.send_to_each(&everyone, limit)?);
    outcome.add("probe after it p50", "ms from publish to arrival", spread.median_ms);
    outcome.add("probe after it p99", "ms", spread.p99_ms);
    detail["restart"]["repeated"] = json!(back.repeated());
    Ok(())
}

/// `count` different numbers below `bound`, each as likely as the others, in rising order.
fn draw(random: &mut Random, count: usize, bound: usize) -> Vec<usize> {
    let mut drawn = BTreeSet::new();
    while drawn.len() < count.min(bound) {
        drawn.insert(random.below(bound));
    }
    drawn.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_no_session_twice_and_may_be_all() {
        let mut random = Random::new(5);
        let drawn = draw(&mut random, 100, 1_000);
        assert!(drawn.len() == 100 && drawn.windows(2).all(|pair| pair[0] < pair[1]) && drawn[99] < 1_000);
        assert_eq!(draw(&mut random, 20, 10), (0..10).collect::<Vec<usize>>());
    }
}
