//! Each sentence of the policy, the bound under floods, and what attackers get through.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const MINUTE_MS: u64 = 60_000;

fn back_off() -> BackOff {
    BackOff::new([9; 16])
}

fn source(number: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from_bits(number).into())
}

fn ipv6(text: &str) -> Option<IpAddr> {
    Some(text.parse::<Ipv6Addr>().expect(text).into())
}

/// An attempt that fails, if it may be made.
fn try_wrong(back_off: &mut BackOff, source: Option<IpAddr>, account: &str, now_ms: u64) -> Result<(), u64> {
    back_off.may_try(source, account, now_ms)?;
    back_off.failed(source, account, now_ms);
    Ok(())
}

fn log_in(back_off: &mut BackOff, source: Option<IpAddr>, account: &str, now_ms: u64) {
    assert_eq!(back_off.may_try(source, account, now_ms), Ok(()));
    back_off.succeeded(source, account, now_ms);
}

/// Twenty failures at the account, from elsewhere.
fn attack(back_off: &mut BackOff, account: &str, now_ms: u64) {
    for number in 0..limits::BACK_OFF_ACCOUNT_FREE {
        assert_eq!(try_wrong(back_off, source(0x0A00_0000 + number), account, now_ms), Ok(()));
    }
}

#[test]
fn the_first_five_failures_of_a_source_are_free_and_then_its_waits_double_up_to_a_minute() {
    let mut back_off = back_off();
    let mut now_ms = 1_000_000;
    for failure in 0..6 {
        assert_eq!(try_wrong(&mut back_off, source(1), &failure.to_string(), now_ms), Ok(()));
    }
    for wait_s in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert_eq!(back_off.may_try(source(1), "any", now_ms), Err(wait_s * 1_000));
        assert_eq!(back_off.may_try(source(1), "any", now_ms + wait_s * 1_000 - 1), Err(1));
        assert_eq!(back_off.may_try(source(2), "any", now_ms), Ok(()), "another source");
        back_off.undecided(source(2), "any", now_ms);
        now_ms += wait_s * 1_000;
        assert_eq!(try_wrong(&mut back_off, source(1), "any", now_ms), Ok(()));
    }
}

#[test]
fn failures_are_forgotten_after_ten_minutes_without_one() {
    for (pause_ms, expected) in [(10 * MINUTE_MS, Ok(())), (10 * MINUTE_MS - 1, Err(2_000))] {
        let mut back_off = back_off();
        (0..6).for_each(|_| back_off.failed(source(1), "a", 0));
        assert_eq!(try_wrong(&mut back_off, source(1), "a", pause_ms), Ok(()));
        assert_eq!(back_off.may_try(source(1), "a", pause_ms), expected);
    }
}

#[test]
fn a_source_is_an_ipv4_address_or_a_network_of_ipv6() {
    for (one, other, is_same) in [
        (ipv6("2001:db8::1"), ipv6("2001:db8::ffff:2"), true),
        (ipv6("2001:db8::1"), ipv6("2001:db8:0:1::1"), false),
        (ipv6("::ffff:0.0.0.1"), source(1), true),
        (ipv6("::"), source(0), false),
        (source(1), source(0x0100_0001), false),
    ] {
        let mut back_off = back_off();
        (0..6).for_each(|_| back_off.failed(one, "a", 0));
        assert_eq!(back_off.may_try(other, "a", 0).is_err(), is_same, "{one:?} {other:?}");
    }
}

#[test]
fn a_success_takes_back_the_failures_of_that_source_at_that_account_and_no_others() {
    let mut back_off = back_off();
    (0..4).for_each(|_| back_off.failed(source(1), "victim", 0));
    back_off.failed(source(1), "own", 0);
    log_in(&mut back_off, source(1), "own", 0);
    log_in(&mut back_off, source(1), "own", 0);
    back_off.failed(source(1), "victim", 0);
    back_off.failed(source(1), "victim", 0);
    assert_eq!(back_off.may_try(source(1), "victim", 0), Err(1_000), "six at the victim's account");
    back_off.succeeded(source(1), "victim", 0);
    assert_eq!(back_off.may_try(source(1), "third", 0), Ok(()), "none are left");
    back_off.undecided(source(1), "third", 0);
    assert_eq!((back_off.sources.len(), back_off.accounts.len(), back_off.pairs.len()), (0, 0, 0));
}

#[test]
fn an_account_under_attack_takes_one_attempt_of_strangers_per_second() {
    let mut back_off = back_off();
    attack(&mut back_off, "owner", 0);
    assert_eq!(back_off.may_try(source(1), "owner", 0), Err(1_000));
    assert_eq!(back_off.may_try(source(1), "other", 0), Ok(()), "another account");
    for second in 1..10 {
        assert_eq!(back_off.may_try(source(1), "owner", second * 1_000 - 1), Err(1));
        // It takes its turn before there is a verdict.
        assert_eq!(back_off.may_try(source(second as u32), "owner", second * 1_000), Ok(()));
        assert_eq!(back_off.may_try(source(77), "owner", second * 1_000), Err(1_000));
        back_off.failed(source(second as u32), "owner", second * 1_000);
    }
}

#[test]
fn an_attack_does_not_lock_out_a_source_that_succeeded_lately() {
    let mut back_off = back_off();
    let day_ms = 24 * 60 * MINUTE_MS;
    log_in(&mut back_off, source(1), "owner", 0);
    let now_ms = 30 * day_ms - 1;
    attack(&mut back_off, "owner", now_ms);
    for _ in 0..100 {
        log_in(&mut back_off, source(1), "owner", now_ms);
    }
    // Its own failures there are free ones, six of them, and taken back by a success.
    for _ in 0..2 {
        (0..6).for_each(|_| assert_eq!(try_wrong(&mut back_off, source(1), "owner", now_ms), Ok(())));
        assert_eq!(back_off.may_try(source(1), "owner", now_ms), Err(1_000));
        back_off.succeeded(source(1), "owner", now_ms);
    }
    assert!(back_off.may_try(source(1), "owner", now_ms).is_ok());
    assert!(back_off.may_try(source(2), "owner", now_ms).is_err(), "a stranger");

    let mut later = self::back_off();
    log_in(&mut later, source(1), "owner", 0);
    attack(&mut later, "owner", 30 * day_ms);
    assert!(later.may_try(source(1), "owner", 30 * day_ms).is_err(), "not lately");
}

#[test]
fn a_broken_device_does_not_lock_out_those_who_share_its_address() {
    let mut back_off = back_off();
    log_in(&mut back_off, source(1), "pump", 0);
    (0..20).for_each(|_| back_off.failed(source(1), "broken", 0));
    assert_eq!(back_off.may_try(source(1), "pump", 0), Ok(()));
    assert!(back_off.may_try(source(1), "stranger", 0).is_err());
}

#[test]
fn who_is_no_stranger_takes_no_strangers_turn() {
    let mut back_off = back_off();
    log_in(&mut back_off, source(1), "owner", 0);
    attack(&mut back_off, "owner", 0);
    assert_eq!(back_off.may_try(source(1), "owner", 999), Ok(()));
    assert_eq!(back_off.may_try(source(2), "owner", 1_000), Ok(()));
}

#[test]
fn a_unix_socket_is_no_source_but_its_accounts_are_guarded() {
    let mut back_off = back_off();
    for number in 0..100 {
        assert_eq!(try_wrong(&mut back_off, None, &number.to_string(), 0), Ok(()));
    }
    (0..20).for_each(|_| assert_eq!(try_wrong(&mut back_off, None, "root", 0), Ok(())));
    assert_eq!(back_off.may_try(None, "root", 0), Err(1_000));
}

#[test]
fn attempts_in_parallel_are_bounded_until_there_are_verdicts() {
    let mut back_off = back_off();
    for number in 0..limits::BACK_OFF_SOURCE_PENDING_MAX {
        assert_eq!(back_off.may_try(source(1), &number.to_string(), 0), Ok(()));
    }
    assert_eq!(back_off.may_try(source(1), "next", 0), Err(limits::BACK_OFF_PENDING_MS));
    back_off.undecided(source(1), "0", 0);
    assert_eq!(back_off.may_try(source(1), "next", 0), Ok(()));
    assert!(back_off.may_try(source(1), "next", limits::BACK_OFF_ATTEMPT_MS - 1).is_err());
    assert_eq!(back_off.may_try(source(1), "next", limits::BACK_OFF_ATTEMPT_MS), Ok(()), "those were lost");

    for number in 0..u32::from(limits::BACK_OFF_ACCOUNT_PENDING_MAX) {
        assert_eq!(back_off.may_try(source(100 + number), "fleet", 0), Ok(()));
    }
    assert_eq!(back_off.may_try(source(99), "fleet", 0), Err(limits::BACK_OFF_PENDING_MS));
}

#[test]
fn a_clock_that_goes_back_begins_a_wait_anew_and_makes_none_longer() {
    let mut back_off = back_off();
    (0..20).for_each(|_| back_off.failed(source(1), "a", 1_000_000_000));
    assert_eq!(back_off.may_try(source(1), "a", 5), Err(60_000));
    assert_eq!(back_off.may_try(source(1), "a", 60_005), Ok(()));
    back_off.failed(source(1), "a", u64::MAX);
    assert!(back_off.may_try(source(1), "a", u64::MAX).is_ok(), "no wait ends after the end of time");
}

#[test]
fn a_flood_of_a_million_keys_takes_no_more_room_and_displaces_no_account_under_attack() {
    let mut back_off = back_off();
    log_in(&mut back_off, source(1), "owner", 0);
    attack(&mut back_off, "owner", 0);
    for number in 0..1_000_000_u32 {
        back_off.failed(source(0x2000_0000 + number), &number.to_string(), 1);
        if number % 100_000 < 2 {
            let lengths = [back_off.sources.len(), back_off.accounts.len(), back_off.pairs.len()];
            assert!(lengths.iter().all(|length| *length <= limits::BACK_OFF_ENTRIES_MAX), "{lengths:?}");
        }
    }
    assert_eq!(back_off.accounts.len(), limits::BACK_OFF_ENTRIES_MAX);
    assert!(back_off.may_try(source(2), "owner", 2).is_err(), "it is still under attack");
    assert_eq!(back_off.may_try(source(1), "owner", 2), Ok(()), "and its owner is still known");
    for number in 0..2 * limits::BACK_OFF_ENTRIES_MAX as u32 {
        back_off.succeeded(source(number), "many", 3);
    }
    assert_eq!(back_off.familiar.at_ms.len(), limits::BACK_OFF_ENTRIES_MAX);
    assert_eq!(back_off.familiar.by_age.len(), limits::BACK_OFF_ENTRIES_MAX);
}

#[test]
fn nothing_of_the_key_is_in_a_text() {
    assert_eq!(format!("{:?}", BackOff::new([123; 16])), "BackOff { sources: 0, accounts: 0, pairs: 0, .. }");
}

// --- What an attacker gets through ---

/// How many waits of a source have passed in that time.
fn waits(time_s: u64) -> u64 {
    match time_s {
        0..63 => u64::from((time_s + 1).ilog2()),
        _ => 6 + (time_s - 63) / 60,
    }
}

/// Attempts of so many sources that try whenever they may; `account` says where, by source.
fn attempts(sources: u32, time_s: u64, account: impl Fn(u32) -> u32) -> u64 {
    let mut back_off = back_off();
    let mut through = 0;
    for now_ms in (0..=time_s * 1_000).step_by(250) {
        for number in 0..sources {
            let account = account(number).to_string();
            while try_wrong(&mut back_off, source(number), &account, now_ms).is_ok() {
                through += 1;
            }
        }
    }
    through
}

#[test]
fn sources_that_spread_over_accounts_get_their_waits_each() {
    for (sources, time_s) in [(1, 0), (1, 1), (1, 62), (1, 63), (1, 3_600), (50, 30), (50, 300)] {
        let expected = u64::from(sources) * (6 + waits(time_s));
        assert_eq!(attempts(sources, time_s, |number| number), expected, "{sources} in {time_s} s");
    }
}

#[test]
fn sources_that_meet_at_one_account_get_twenty_and_one_per_second() {
    for (sources, time_s) in [(50, 0), (100, 30), (1_000, 300)] {
        assert_eq!(attempts(sources, time_s, |_| 0), 20 + time_s, "{sources} in {time_s} s");
    }
    // Too few sources to use every second.
    for (sources, time_s) in [(1, 300), (3, 300), (10, 600)] {
        let through = attempts(sources, time_s, |_| 0);
        assert!(
            through <= (20 + time_s).min(u64::from(sources) * (6 + waits(time_s))),
            "{sources}: {through}"
        );
    }
}

#[test]
fn trying_in_parallel_gains_what_may_be_pending_once() {
    let mut back_off = back_off();
    let mut through = 0;
    // Five one after the other, the rest at once, and whenever it is possible again.
    (0..5).for_each(|_| assert_eq!(try_wrong(&mut back_off, source(1), "a", 0), Ok(())));
    for now_ms in (0..600_000).step_by(1_000) {
        let began = (0..100)
            .filter(|number| back_off.may_try(source(1), &number.to_string(), now_ms).is_ok())
            .count();
        (0..began).for_each(|number| back_off.failed(source(1), &number.to_string(), now_ms));
        through += began as u64;
    }
    assert_eq!(5 + through, 6 + 15 + 9, "one a minute after the first burst");
}
