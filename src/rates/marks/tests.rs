//! Marks of single buckets: which rates have them, how many there are, and how far each is ahead.

use super::*;
use crate::rates::Bucket;
use crate::reactor::Random;

const START: Nanos = Nanos(1 << 40);

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

#[test]
fn a_burst_that_comes_again_during_a_restart_has_no_marks() {
    assert_eq!(RATE_KEPT_MS, 60_000);
    for (text, has_marks) in
        [("1/s burst 59", false), ("1/s burst 60", true), ("9/min", true), ("9/s", false)]
    {
        assert_eq!(Marks::new(&rate(text), 9).is_some(), has_marks, "{text}");
    }
}

/// Whoever goes to the limit for hours, by pieces of any size, in debt or not.
#[test]
fn a_burst_is_marked_so_many_times_and_each_mark_is_a_part_ahead() {
    for (text, seed) in [("1000/h", 1), ("7/min burst 90", 2), ("50/day", 3), ("1/h burst 1", 4)] {
        let rate = rate(text);
        let part = rate.burst_ns() / RATE_KEPT_PARTS;
        let mut marks = Marks::new(&rate, 9).unwrap();
        let (mut random, mut bucket, mut now) = (Random::new(seed), Bucket::default(), START);
        let (mut mark, mut count) = (Nanos(0), 0);
        while now.0 < START.0 + 6 * rate.burst_ns() {
            now.0 += random.below(rate.burst_ns() / 40);
            match random.below(3) {
                0 => drop(bucket.take(&rate, 1 + random.below(rate.burst()), now)),
                1 if bucket.in_debt_until(&rate, now).is_none() => {
                    bucket.take_with_debt(&rate, 1 + random.below(2 * rate.burst()), now);
                }
                _ => drop(bucket.take(&rate, 1, now)),
            }
            let reached = bucket.full_at().min(Nanos(now.0 + rate.burst_ns()));
            if let Some(next) = marks.pass(7, bucket.full_at(), now) {
                assert!(mark < reached, "{text}: the last one was enough");
                assert_eq!(next.0, reached.0 + part, "{text}");
                (mark, count) = (next, count + 1);
            }
            assert!(reached <= mark, "{text}: no mark is behind");
        }
        assert!((6..=7 * RATE_KEPT_PARTS + 2).contains(&count), "{text}: {count} marks");
    }
}

#[test]
fn the_mark_that_passes_first_gives_way_and_those_that_have_passed_are_dropped() {
    let mut marks = Marks::new(&rate("60/min"), 3).unwrap();
    let part = 60_000 / RATE_KEPT_PARTS;
    for (key, ms) in [(1, 300), (2, 100), (3, 200), (4, 400)] {
        assert_eq!(marks.pass(key, START.plus_ms(ms), START), Some(START.plus_ms(ms + part)));
    }
    assert_eq!(marks.pass(1, START.plus_ms(300), START), None);
    assert!(marks.pass(2, START.plus_ms(100), START).is_some(), "made again, in place of the third");
    assert!(marks.pass(3, START.plus_ms(200), START).is_some());
    let later = START.plus_ms(20_000);
    assert!(marks.pass(5, later.plus_ms(1), later).is_some());
    assert_eq!((marks.marks.len(), marks.by_time.len()), (1, 1));
}
