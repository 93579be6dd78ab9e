//! What one operation of the broker's inside costs, in instructions: counted, compared with `baseline.toml`, refused if
//! it has grown.
//!
//! ```text
//! cargo run --release -p ironpost-micro                 count all cases, compare; exit status 1 if one has grown
//! cargo run --release -p ironpost-micro -- route        those whose name begins so
//! cargo run --release -p ironpost-micro -- --renew      write the counts down as the new baseline
//! cargo run --release -p ironpost-micro -- --time       nanoseconds of what depends on caches most: one permission
//! ```
//!
//! A count says nothing of caches, system calls and the disk; `ironpost-bench` is for those. But it does not depend on who
//! else uses the machine, so a few percent can be seen in CI.
//!
//! # How it counts
//!
//! Each case (`Case`) is a loop around one operation, with its set-up before. The program runs itself under
//! `valgrind --tool=callgrind` twice, with n and with 2 n turns of the loop; the difference, divided by n, is the cost of
//! one turn to the instruction. Start, set-up and the first turns' growth of tables are in both and fall out. Each case
//! also asserts what it has done, so one that has stopped doing it fails and does not shine.
//!
//! # Why it is not built on `gungraun` (once `iai-callgrind`)
//!
//! That compares with the output of an earlier run, which lies in the build directory: raw profiles, not figures that could
//! be kept with the source, read in a review and hold on another machine. Its absolute limits stand in the code, by hand,
//! one for each case. And it needs a program of exactly its version installed, which takes six minutes of CPU to build. What
//! would be used of all that here is a count.
//!
//! # What makes counts the same elsewhere
//!
//! - valgrind shows the program a processor of its own (on every machine with AVX2 an Intel i7-4910MQ, whoever made the real
//!   one), so code that looks for features, like the journal's checksum, finds the same everywhere.
//! - The C library's copying routines are fixed to the plainest (`callgrind::TUNABLES`), should that ever differ.
//! - The allocator is the broker's, told not to look at the clock (`callgrind::ALLOCATOR_SETTINGS`).
//! - Not covered: another compiler, C library or C compiler. `baseline.toml` says what it was made with.
#![allow(missing_docs, reason = "a program: nobody calls it from outside")]

mod access;
mod baseline;
mod callgrind;
mod journal;
mod route;
mod session;
mod timers;
mod wire;
mod world;

use std::process::ExitCode;

use baseline::{Baseline, Judgement};

/// The broker's: allocating is part of what an operation costs.
#[global_allocator]
static ALLOCATOR: ironpost::allocator::Allocator = ironpost::allocator::Allocator;

/// An operation to be counted.
pub struct Case {
    /// `area/operation`.
    pub name: &'static str,
    /// Turns of the loop in the shorter of two runs.
    pub turns: u32,
    /// Sets up, does that many turns, asserts that they were done. Sets up the same whatever the number.
    pub run: fn(u32),
}

/// Every case, in the order of the reports.
fn cases() -> impl Iterator<Item = &'static Case> + Clone {
    [wire::CASES, route::CASES, session::CASES, journal::CASES, timers::CASES, access::CASES]
        .into_iter()
        .flatten()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [callgrind::RUN, name, turns] => return run(name, turns),
        ["--renew"] => renew(),
        ["--time"] => access::time().map(|()| ExitCode::SUCCESS),
        [] => check(""),
        [prefix] if !prefix.starts_with('-') => check(prefix),
        _ => Err("use: micro [PREFIX | --renew | --time]".to_owned()),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("micro: {message}");
            ExitCode::from(2)
        }
    }
}

/// What happens under valgrind.
fn run(name: &str, turns: &str) -> ExitCode {
    let case =
        cases().find(|case| case.name == name).expect("started by `callgrind::cost`, with a name of `cases`");
    (case.run)(turns.parse().expect("started by `callgrind::cost`, with a number"));
    ExitCode::SUCCESS
}

fn renew() -> Result<ExitCode, String> {
    let mut counted = Vec::new();
    for case in cases() {
        let cost = callgrind::cost(case)?;
        println!("{:<32} {cost:>12.1}", case.name);
        counted.push((case.name, cost));
    }
    baseline::write(&counted)?;
    Ok(ExitCode::SUCCESS)
}

fn check(prefix: &str) -> Result<ExitCode, String> {
    let known = Baseline::load()?;
    let mut selected = cases().filter(|case| case.name.starts_with(prefix)).peekable();
    selected.peek().ok_or_else(|| format!("no case begins with {prefix}"))?;
    println!("{:<32} {:>12} {:>12} {:>8}", "instructions per operation", "counted", "baseline", "change");
    let mut complaints = known.strangers(cases().map(|case| case.name));
    for case in selected {
        let cost = callgrind::cost(case)?;
        let (line, complaint) = match known.judge(case.name, cost) {
            Judgement::Unknown => ("".to_owned(), Some("has no baseline".to_owned())),
            Judgement::Same { baseline, percent } => (format!("{baseline:>12.1} {percent:>+7.1}%"), None),
            Judgement::Different { baseline, percent, why } => {
                (format!("{baseline:>12.1} {percent:>+7.1}%"), Some(why))
            }
        };
        println!("{:<32} {cost:>12.1} {line}", case.name);
        complaints.extend(complaint.map(|complaint| format!("{} {complaint}", case.name)));
    }
    if complaints.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{}", complaints.join("\n"));
    println!("{}", known.advice()?);
    Ok(ExitCode::FAILURE)
}
