//! How rates are written and read, their bounds, and what tokens cost.

use proptest::prelude::*;

use super::*;

const S: u64 = NS_PER_S;

fn rate(text: &str) -> Rate {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Every kind that there is, by amount, unit and how long the burst takes.
fn rates() -> impl Strategy<Value = Rate> {
    let tokens = prop_oneof![1..=100_u64, 1..=RATE_TOKENS_MAX, (0..=40_u32).prop_map(|bits| 1 << bits)];
    let seconds =
        prop_oneof![prop::sample::select(vec![1, 60, 3_600, 86_400, 120, 86_399, 7_200]), 1..=86_400_u64];
    let burst = prop_oneof![
        1..=100_u64,
        any::<u64>(),
        (0..59_u32).prop_map(|bits| 1 << bits),
        Just(0) // as many as come in one unit
    ];
    (tokens, seconds, burst).prop_filter_map("beyond a bound", |(tokens, seconds, burst)| {
        Rate::new(tokens, Nanos(seconds * S), if burst == 0 { tokens } else { burst })
    })
}

#[test]
fn what_the_documentation_writes_is_read() {
    let day = RATE_PER_NS_MAX;
    for (text, tokens, per, burst) in [
        ("100/s", 100, S, 100),
        ("30/min", 30, 60 * S, 30),
        ("500/h", 500, 3_600 * S, 500),
        ("10_000/day", 10_000, day, 10_000),
        ("5/10s", 5, 10 * S, 5),
        ("100/s burst 500", 100, S, 500),
        ("  100/s   burst 1 ", 100, S, 1),
        ("64KiB/s burst 1MiB", 64 << 10, S, 1 << 20),
        ("64KiB/s", 64 << 10, S, 64 << 10),
        ("2GiB/min burst 3GiB", 2 << 30, 60 * S, 3 << 30),
        ("1024GiB/s", RATE_TOKENS_MAX, S, RATE_TOKENS_MAX),
        ("1/24h burst 7", 1, day, 7),
    ] {
        assert_eq!(Ok(rate(text)), Rate::check(tokens, Nanos(per), burst), "{text}");
    }
}

#[test]
fn what_is_no_rate_is_refused_and_the_error_says_why() {
    for (text, error) in [
        ("", RateError::Form),
        ("100", RateError::Form),
        ("100 /s", RateError::Form),
        ("100/s burst", RateError::Form),
        ("100/s Burst 5", RateError::Form),
        ("100/s burst 5 6", RateError::Form),
        ("/s", RateError::Amount),
        ("1.5/s", RateError::Amount),
        ("+5/s", RateError::Amount),
        ("-5/s", RateError::Amount),
        ("5KB/s", RateError::Amount),
        ("KiB/s", RateError::Amount),
        ("_5/s", RateError::Amount),
        ("5_/s", RateError::Amount),
        ("5__0/s", RateError::Amount),
        ("٣/s", RateError::Amount),
        ("100/s burst x", RateError::Amount),
        ("100/", RateError::Unit),
        ("100/ms", RateError::Unit),
        ("100/s/s", RateError::Unit),
        ("100/week", RateError::Unit),
        ("0/s", RateError::Zero),
        ("1/0s", RateError::Zero),
        ("1/s burst 0", RateError::Zero),
        ("1025GiB/s", RateError::TooMuch),
        ("1_099_511_627_777/s", RateError::TooMuch),
        ("18446744073709551616/s", RateError::TooMuch),
        ("18446744073709551620/s", RateError::TooMuch),
        ("17179869184GiB/s", RateError::TooMuch),
        ("1/2day", RateError::Per),
        ("1/86401s", RateError::Per),
        ("1/18446744073709551615day", RateError::Per),
        ("1/18446744073s", RateError::Per),
        ("1/s burst 604801", RateError::BurstTooLong),
        ("1/day burst 8", RateError::BurstTooLong),
        ("1GiB/s burst 1", RateError::BurstTooShort),
    ] {
        assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
        let shown = error.to_string();
        assert!(shown.len() > 40 && shown.contains('1'), "an example is given: {shown}");
    }
}

#[test]
fn every_example_in_an_error_is_a_rate_or_an_amount() {
    for error in [
        RateError::Form,
        RateError::Amount,
        RateError::Unit,
        RateError::Zero,
        RateError::Per,
        RateError::BurstTooLong,
        RateError::BurstTooShort,
    ] {
        let shown = error.to_string();
        let quoted =
            shown.split('`').skip(1).step_by(2).filter(|text| text.contains(|c: char| c.is_ascii_digit()));
        for text in quoted {
            let is_rate = text.parse::<Rate>().is_ok();
            assert!(is_rate || error == RateError::Amount && read_amount(text).is_ok(), "{text}");
        }
    }
}

#[test]
fn the_bounds_are_the_last_that_are_granted() {
    let new = |tokens, per, burst| Rate::new(tokens, Nanos(per), burst).is_some();
    let day = RATE_PER_NS_MAX;
    assert!(new(RATE_TOKENS_MAX, S, 1 << 40) && !new(RATE_TOKENS_MAX + 1, S, 1 << 40));
    assert!(new(1, RATE_PER_NS_MIN, 1) && !new(1, RATE_PER_NS_MIN - 1, 1) && !new(1, RATE_PER_NS_MIN / 2, 1));
    assert!(new(1, day, 1) && !new(1, day + S, 1) && !new(1, S + 1, 1));
    assert!(new(1, day, 7) && !new(1, day, 8));
    assert!(new(7, day, 49), "rounding is no reason to refuse it");
    assert!(new(1_000_000, S, 1) && !new(1_000_001, S, 1), "a microsecond");
    assert!(new(RATE_TOKENS_MAX, S, (1 << 40) * 604_800) && !new(RATE_TOKENS_MAX, S, u64::MAX));
}

#[test]
fn the_burst_of_everyday_rates_is_taken_one_by_one() {
    for text in ["3/s", "7/s burst 50", "30/s", "33_333/s", "11/day burst 70", "100_000/s", "7/min"] {
        let rate = rate(text);
        assert_eq!(rate.ns_for(1) * rate.burst(), rate.burst_ns(), "{text}");
        let exact = u128::from(rate.per().0) * u128::from(rate.burst());
        let kept = u128::from(rate.burst_ns()) * u128::from(rate.tokens());
        assert!(kept >= exact && (kept - exact) * 10_000 <= exact, "{text}");
    }
}

#[test]
fn sizes_are_written_only_when_asked_for() {
    let rate = rate("64KiB/s burst 1MiB");
    assert_eq!(
        (rate.to_string(), format!("{rate:#}")),
        ("65536/s burst 1048576".into(), "64KiB/s burst 1MiB".into())
    );
    let rate = Rate::new(1_500, Nanos(7_200 * S), 1_500).unwrap();
    assert_eq!((rate.to_string(), format!("{rate:#}")), ("1500/2h".into(), "1500/2h".into()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(rate in rates()) {
        prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
        prop_assert_eq!(format!("{rate:#}").parse::<Rate>(), Ok(rate));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9_]{0,22}(KiB|GiB|x)?/?[0-9]{0,12}(s|min|day)?( burst )?[0-9_]{0,22}.?") {
        if let Ok(rate) = text.parse::<Rate>() {
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
        }
    }

    #[test]
    fn costs_are_rounded_up_and_by_no_more_than_is_said(rate in rates(), part in 0..=1_000_u64, few in 0..4_u64) {
        let tokens = ((u128::from(rate.burst) * u128::from(part) / 1_000) as u64).saturating_add(few).min(rate.burst);
        // In nanoseconds times tokens of the rate.
        let exact = u128::from(tokens) * u128::from(rate.per.0);
        let kept = u128::from(rate.ns_for(tokens)) * u128::from(rate.tokens);
        prop_assert!(kept >= exact);
        let is_slow = rate.per.0 / rate.tokens >= RATE_TOKEN_WHOLE_NS_MIN;
        let bound_ns = if is_slow { tokens } else { 2 };
        prop_assert!(tokens == 0 || kept - exact < u128::from(bound_ns) * u128::from(rate.tokens));
        prop_assert!(!is_slow || (kept - exact) * 10_000 <= exact);
        prop_assert_eq!(rate.ns_for(rate.burst), rate.burst_ns);
        let burst = u128::from(rate.burst) * u128::from(rate.per.0);
        prop_assert!((u128::from(rate.burst_ns) * u128::from(rate.tokens) - burst) * 1_000 <= burst);
        prop_assert_eq!(rate.ns_for(tokens) > 0, tokens > 0);
    }

    #[test]
    fn tokens_in_is_the_most_that_costs_no_more(rate in rates(), part in 0..=1_000_u64, few in 0..4_u64) {
        let ns = rate.burst_ns / 1_000 * part + few;
        let tokens = rate.tokens_in(ns);
        prop_assert!(rate.ns_for(tokens) <= ns && rate.ns_for(tokens + 1) > ns);
    }
}

#[test]
fn what_is_beyond_counting_is_saturated() {
    let slow = rate("1/day");
    assert_eq!((slow.ns_for(u64::MAX), slow.tokens_in(u64::MAX)), (u64::MAX, u64::MAX / RATE_PER_NS_MAX));
    let fast = rate("1024GiB/s");
    assert_eq!(fast.tokens_in(u64::MAX), u64::MAX);
}
