//! Holds the answers to their lifetime and bound, and the breaker to its table.

use super::*;

fn login<'a>(username: &'a str, password: &'a str) -> Login<'a> {
    let source = Some(IpAddr::from([192, 0, 2, 7]));
    Login {
        username: Some(username),
        password: password.as_bytes(),
        client_id: "pump",
        source,
        listener: "a",
    }
}

#[test]
fn an_answer_is_kept_for_its_time_and_a_refusal_for_five_seconds_at_most() {
    let (good, bad) = (login("alice", "right"), login("alice", "wrong"));
    for (cache_s, allowed_ms, denied_ms) in [(60, 60_000, 5_000), (3, 3_000, 3_000), (0, 0, 0)] {
        let mut answers = Answers::new([1; 16]);
        for (login, decision, kept_ms) in
            [(&good, Decision::Allow(()), allowed_ms), (&bad, Decision::Deny, denied_ms)]
        {
            answers.remember(login, decision.clone(), cache_s, 1_000);
            if kept_ms > 0 {
                assert_eq!(answers.find(login, 1_000), Some(decision.clone()));
                assert_eq!(answers.find(login, 1_000 + kept_ms - 1), Some(decision));
            }
            assert_eq!(answers.find(login, 1_000 + kept_ms), None);
            assert_eq!(answers.find(login, 1_000), None, "it is forgotten once it was too old");
        }
        assert_eq!((answers.by_login.len(), answers.by_end.len()), (0, 0));
    }
}

#[test]
fn the_last_answer_counts_and_everything_can_be_forgotten() {
    let mut answers = Answers::new([1; 16]);
    answers.remember(&login("alice", "old"), Decision::Allow(()), 60, 0);
    answers.remember(&login("alice", "old"), Decision::Deny, 60, 10);
    assert_eq!(answers.find(&login("alice", "old"), 11), Some(Decision::Deny));
    assert_eq!(answers.by_end.len(), 1);
    answers.clear();
    assert_eq!(answers.find(&login("alice", "old"), 11), None);
}

#[test]
fn a_login_that_differs_in_anything_is_another_one() {
    let mut answers = Answers::new([1; 16]);
    let base = login("alice", "right");
    answers.remember(&base, Decision::Allow(()), 60, 0);
    for other in [
        login("alic", "eright"),
        login("alicer", "ight"),
        login("alice", ""),
        Login { username: None, ..base },
        Login { listener: "b", ..base },
        Login { client_id: "pump2", ..base },
        Login { password: b"rightpump", client_id: "", ..base },
        Login { source: None, ..base },
        Login { source: Some(IpAddr::from([192, 0, 2, 8])), ..base },
    ] {
        assert_eq!(answers.find(&other, 1), None, "{:?} {:?}", other.username, other.client_id);
    }
    let mapped = Login { source: "::ffff:192.0.2.7".parse().ok(), ..base };
    assert_eq!(answers.find(&mapped, 1), Some(Decision::Allow(())));
    let empty = Login { username: Some(""), password: b"", client_id: "", source: None, listener: "" };
    answers.remember(&empty, Decision::Allow(()), 60, 0);
    assert_eq!(answers.find(&Login { username: None, ..empty }, 1), None);
    assert_eq!(answers.find(&Login { username: None, ..empty }, 1), None);
}

#[test]
fn a_clock_that_goes_back_makes_no_answer_older() {
    let mut answers = Answers::new([1; 16]);
    answers.remember(&login("alice", "right"), Decision::Allow(()), 60, 100_000);
    assert_eq!(answers.find(&login("alice", "right"), 99_999), None);
    answers.remember(&login("alice", "right"), Decision::Allow(()), 60, u64::MAX - 1);
    assert_eq!(answers.find(&login("alice", "right"), u64::MAX - 1), Some(Decision::Allow(())));
}

#[test]
fn a_flood_of_wrong_passwords_displaces_no_good_answer_and_takes_no_more_room() {
    let mut answers = Answers::new([1; 16]);
    answers.remember(&login("alice", "right"), Decision::Allow(()), 60, 0);
    for index in 0..2 * limits::ANSWERS_MAX {
        answers.remember(&login("alice", &index.to_string()), Decision::Deny, 60, 10);
        assert!(answers.by_login.len() <= limits::ANSWERS_MAX);
    }
    assert_eq!((answers.by_login.len(), answers.by_end.len()), (limits::ANSWERS_MAX, limits::ANSWERS_MAX));
    assert_eq!(answers.find(&login("alice", "right"), 11), Some(Decision::Allow(())));
}

#[test]
fn nothing_of_a_login_or_the_key_is_in_a_text() {
    let text = format!("{:?} {:?}", login("alice", "secret"), Answers::<()>::new([123; 16]));
    assert_eq!(text, "Login(..) Answers { count: 0, .. }");
}

// --- The breaker ---

fn closed(failures: u32) -> Breaker {
    Breaker { state: State::Closed { failures }, generation: 0 }
}

fn open(open_ms: u64) -> Breaker {
    Breaker { state: State::Open { since_ms: 0, open_ms }, generation: 0 }
}

fn half_open(open_ms: u64) -> Breaker {
    Breaker { state: State::HalfOpen { since_ms: 0, open_ms }, generation: 0 }
}

/// State and event, as the table has them, and what becomes of it.
fn row(mut breaker: Breaker, state: &str, event: &str, now_ms: u64) -> String {
    let before = breaker.state;
    let admission = Admission { generation: 0 };
    let late = Admission { generation: 7 };
    let mut asked = "";
    match event {
        "admit" => {
            let is_probe = matches!(before, State::Open { .. });
            asked = match breaker.admit(now_ms) {
                Ok(_) if is_probe => "asked once: the probe ",
                Ok(_) if matches!(before, State::HalfOpen { .. }) => "asked: another probe ",
                Ok(_) => "asked ",
                Err(_) => "left alone ",
            };
        }
        "success" | "success of the probe" => breaker.settle(admission, Outcome::Success, now_ms),
        "failure" | "failure of the probe" => breaker.settle(admission, Outcome::Failure, now_ms),
        _ => breaker.settle(late, Outcome::Failure, now_ms),
    }
    let next = match (before, breaker.state) {
        (before, after) if state == "any" && before == after => "the same".to_owned(),
        (State::Closed { failures }, State::Closed { failures: after })
            if failures > 0 && failures == after =>
        {
            "closed, f failures".to_owned()
        }
        (State::Closed { failures }, State::Closed { failures: after }) if after == failures + 1 => {
            "closed, f + 1 failures".to_owned()
        }
        (_, State::Closed { failures }) => format!("closed, {failures} failures"),
        (State::HalfOpen { open_ms, .. }, State::Open { open_ms: after, .. }) => {
            assert_eq!(after, (2 * open_ms).min(30_000));
            "open for twice as long, 30 s at most".to_owned()
        }
        (State::Open { .. }, State::Open { .. }) => "open".to_owned(),
        (_, State::Open { open_ms, .. }) => format!("open for {} s", open_ms / 1_000),
        (_, State::HalfOpen { .. }) => "half-open".to_owned(),
    };
    format!("//! | {state} | {event} | {next} | {asked}|")
}

#[test]
fn the_table_in_the_documentation_is_what_the_breaker_does() {
    let documented: Vec<&str> =
        include_str!("../answers.rs").lines().filter(|line| line.starts_with("//! | ")).skip(1).collect();
    let mut rows = vec![
        row(closed(3), "closed, f failures", "admit", 9),
        row(closed(3), "closed, f failures", "success", 9),
        row(closed(3), "closed, f < 4 failures", "failure", 9),
        row(closed(4), "closed, 4 failures", "failure", 9),
        row(open(1_000), "open, not over", "admit", 999),
        row(open(1_000), "open, over", "admit", 1_000),
        row(half_open(1_000), "half-open", "admit", limits::BREAKER_PROBE_MS - 1),
        row(half_open(1_000), "half-open, probe overdue", "admit", limits::BREAKER_PROBE_MS),
        row(half_open(1_000), "half-open", "success of the probe", 9),
        row(half_open(1_000), "half-open", "failure of the probe", 9),
    ];
    let late: Vec<String> = [closed(3), closed(4), open(1_000), half_open(1_000)]
        .map(|breaker| row(breaker, "any", "outcome of what was asked in an earlier state", 9))
        .to_vec();
    assert!(late.windows(2).all(|pair| pair[0] == pair[1]), "{late:?}");
    rows.push(late[0].clone());
    println!("{}", rows.join("\n"));
    assert_eq!(rows, documented);
}

#[test]
fn a_hook_that_is_down_is_asked_ever_less_often_and_found_when_it_is_back() {
    let mut breaker = Breaker::default();
    for _ in 0..limits::BREAKER_FAILURES_MAX {
        let admission = breaker.admit(0).expect("closed");
        breaker.settle(admission, Outcome::Failure, 0);
    }
    let mut now_ms = 0;
    for open_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert_eq!(breaker.admit(now_ms), Err(open_ms));
        assert_eq!(breaker.admit(now_ms + open_ms - 1), Err(1));
        now_ms += open_ms;
        let probe = breaker.admit(now_ms).expect("half-open");
        assert!(breaker.admit(now_ms).is_err(), "one alone");
        breaker.settle(probe, Outcome::Failure, now_ms);
    }
    now_ms += 30_000;
    let probe = breaker.admit(now_ms).expect("half-open");
    breaker.settle(probe, Outcome::Success, now_ms);
    assert_eq!(breaker.state, State::Closed { failures: 0 });
}

#[test]
fn outcomes_from_before_it_opened_decide_nothing() {
    let mut breaker = Breaker::default();
    let asked: Vec<Admission> = (0..9).map(|_| breaker.admit(0).expect("closed")).collect();
    asked.into_iter().for_each(|admission| breaker.settle(admission, Outcome::Failure, 0));
    assert_eq!(breaker.state, State::Open { since_ms: 0, open_ms: 1_000 });
    let mut breaker = Breaker::default();
    let early = breaker.admit(0).expect("closed");
    for _ in 0..limits::BREAKER_FAILURES_MAX {
        let admission = breaker.admit(0).expect("closed");
        breaker.settle(admission, Outcome::Failure, 0);
    }
    let lost = breaker.admit(1_000).expect("half-open");
    breaker.settle(early, Outcome::Success, 1_000);
    assert!(matches!(breaker.state, State::HalfOpen { .. }));
    let probe = breaker.admit(1_000 + limits::BREAKER_PROBE_MS).expect("another probe");
    breaker.settle(lost, Outcome::Success, 40_000);
    assert!(matches!(breaker.state, State::HalfOpen { .. }));
    breaker.settle(probe, Outcome::Success, 40_000);
    assert_eq!(breaker.state, State::Closed { failures: 0 });
}

#[test]
fn a_clock_that_goes_back_does_not_keep_it_open() {
    let mut breaker = Breaker { state: State::Open { since_ms: 1_000_000, open_ms: 30_000 }, generation: 0 };
    assert!(breaker.admit(0).is_ok());
    assert_eq!(breaker.admit(1), Err(limits::BREAKER_PROBE_MS - 1));
}
