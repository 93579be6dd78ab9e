//! The contract of `reactor/mod.rs`, item by item, against every reactor: epoll, uring, the simulated one,
//! and each of them wrapped in faults that the contract allows.
//!
//! - `turns`, `streams`, `calls`, `listeners`: the cases
//! - `bench`: the steps that they share
//! - `rigs`: the kernel and the simulated world
//!
//! A case knows only the trait and a [`Rig`], which makes reactors, sockets, files and the far ends of connections in
//! one world. The cases run one after another, because one of them takes away the process's descriptors.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;
mod calls;
mod listeners;
mod rigs;
mod streams;
mod turns;

use ironpost::reactor::{Epoll, Settings, Uring};
use rigs::{Kernel, Rig, Simulated};

/// One test per case and reactor, so that a failure names both.
macro_rules! contract {
    ($($part:ident: $case:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $case() { crate::run(crate::$part::$case, || crate::on_epoll(None)); })*
        }
        mod epoll_with_faults {
            $(#[test] fn $case() { crate::run(crate::$part::$case, || crate::on_epoll(Some(1))); })*
        }
        mod uring {
            $(#[test] fn $case() { crate::run(crate::$part::$case, || crate::on_uring(None)); })*
        }
        mod uring_with_faults {
            $(#[test] fn $case() { crate::run(crate::$part::$case, || crate::on_uring(Some(2))); })*
        }
        mod sim {
            $(#[test] fn $case() { crate::sweep(crate::$part::$case, None); })*
        }
        mod sim_with_faults {
            $(#[test] fn $case() { crate::sweep(crate::$part::$case, Some(3)); })*
        }
    };
}

contract! {
    turns: room_shrinks_with_each_submission_and_errors_come_as_completions,
    streams: ready_comes_once_per_arrival_and_the_read_tells_a_hang_up,
    streams: bytes_that_arrived_before_the_watch_are_reported,
    streams: a_reset_is_ready_and_the_read_tells,
    streams: every_operation_completes_once_also_after_close_and_returns_its_buffer,
    streams: a_receive_completes_in_its_turn_with_nothing_there,
    streams: a_send_waits_for_room_and_takes_at_least_a_byte,
    streams: bytes_keep_their_order_through_short_sends_and_receives,
    streams: after_closed_nothing_more_comes,
    streams: closing_ends_a_blocked_send,
    streams: a_send_to_a_peer_that_is_gone_fails_and_kills_nobody,
    streams: what_was_sent_before_close_arrives_though_bytes_were_unread,
    turns: a_write_is_whole_and_a_sync_succeeds,
    turns: a_sync_ends_a_wait_without_a_deadline,
    turns: a_failing_write_returns_its_buffer_and_an_error,
    turns: a_turn_waits_for_its_deadline_and_not_beyond_the_doorbell,
    turns: a_turn_with_completions_at_hand_does_not_wait,
    turns: what_is_ready_is_told_though_there_is_something_else_to_say,
    turns: time_stands_still_within_a_turn_and_never_goes_back,
    listeners: a_detached_socket_goes_on_in_another_reactor,
    listeners: two_reactors_share_a_listening_socket,
    listeners: many_connections_arrive_within_the_bound_per_turn,
    listeners: without_descriptors_accepting_reports_once_and_resumes,
    listeners: a_closed_listener_accepts_no_more,
    streams: many_blocked_sends_all_finish,
    calls: bytes_keep_their_order_through_calls_and_operations,
    calls: a_call_does_not_wait_and_tells_the_end,
    calls: a_send_without_room_says_so,
}

fn small() -> Settings {
    Settings { operations_max: 64, events_max: 16, accepts_max: 4, accept_retry_ms: 20 }
}

fn on_epoll(faults: Option<u64>) -> Option<Box<dyn Rig>> {
    Some(Box::new(Kernel::new(faults, || Box::new(Epoll::new(small()).unwrap()))))
}

fn on_uring(faults: Option<u64>) -> Option<Box<dyn Rig>> {
    available()
        .map(|()| Box::new(Kernel::new(faults, || Box::new(Uring::new(small()).unwrap()))) as Box<dyn Rig>)
}

/// A kernel without io_uring has nothing to test; anything else that fails is a failure.
fn available() -> Option<()> {
    match Uring::new(small()) {
        Ok(_) => Some(()),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn run(case: fn(&mut dyn Rig), rig: impl Fn() -> Option<Box<dyn Rig>>) {
    let _alone = rigs::alone();
    if let Some(mut rig) = rig() {
        case(&mut *rig);
    }
}

fn sweep(case: fn(&mut dyn Rig), faults: Option<u64>) {
    for seed in 0..20 {
        let faults = faults.map(|base| base + seed);
        let outcome = std::panic::catch_unwind(|| case(&mut Simulated::new(seed, faults, small())));
        if let Err(panic) = outcome {
            eprintln!("the simulated world's seed was {seed}, the faults' {faults:?}");
            std::panic::resume_unwind(panic);
        }
    }
}
