//! Hostile clients that are a program: `NAME=COMMAND`, started for a noisy window and told to end after it.
//!
//! It has the place that the built-in ones have: the idle scheduling class, on their CPU. On a crowded one that class may
//! have nothing for seconds, so it enters it when it has begun, which it says by a line, `ready`, and the window waits for;
//! and leaves it when it is told to end. SIGTERM ends it, and then it prints one
//! line of JSON: `attempts`, `refused` and `closed` are numbers, `violations` a list of texts, each of which is something
//! that the server must not do. Whatever else is in that object goes into the result.
//!
//! Decides what is held against it: a violation, not being ready in time, an end before it was told to, none in time, an exit
//! code, no such line. Each makes the run a failed one. Does not decide what a program does; `tests/attacks` has a catalogue of them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::hostile::Tally;
use crate::measure::{clock, process};

/// What is read of its standard output; what follows is not what was agreed on.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// The line by which it says that it has begun.
const READY: &str = "ready";

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    /// With `{address}`, `{port}` and `{pid}` of the server to fill in.
    words: Vec<String>,
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Program, String> {
        let split =
            text.split_once('=').filter(|(name, command)| !name.is_empty() && !command.trim().is_empty());
        let (name, command) = split.ok_or_else(|| format!("`{text}` is not NAME=COMMAND"))?;
        let words = command.split_whitespace().map(str::to_owned).collect();
        Ok(Program { name: name.to_owned(), words })
    }
}

impl Program {
    /// Starts it against that server.
    pub fn start(&self, target: SocketAddr, pid: Option<u32>, cpu: Option<usize>) -> Result<Running> {
        let words = self.filled(target, pid);
        let (program, arguments) = words.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        process::end_with_this(&mut command);
        if let Some(cpu) = cpu {
            process::place(&mut command, cpu);
        }
        let mut child = command.spawn().with_context(|| format!("starting {}: {program}", self.name))?;
        let output = child.stdout.take().context("its standard output")?;
        let reader = std::thread::Builder::new().name("hostile-output".to_owned());
        let is_ready = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&is_ready);
        let output = reader.spawn(move || read(output, &heard)).context("a thread")?;
        Ok(Running { child, output, is_ready, begin: clock::now(), cpu_us: 0.0, violations: Vec::new() })
    }

    fn filled(&self, target: SocketAddr, pid: Option<u32>) -> Vec<String> {
        let pid = pid.map_or_else(String::new, |pid| pid.to_string());
        let fill = |word: &String| {
            let word = word.replace("{address}", &target.ip().to_string());
            word.replace("{port}", &target.port().to_string()).replace("{pid}", &pid)
        };
        self.words.iter().map(fill).collect()
    }
}

/// Until its end, or as much as is looked at: nobody else empties the pipe. The last line is returned.
fn read(output: ChildStdout, is_ready: &AtomicBool) -> std::io::Result<String> {
    let mut last = String::new();
    for line in BufReader::new(output.take(OUTPUT_BYTES_MAX)).lines() {
        last = line?;
        if last == READY {
            is_ready.store(true, Ordering::Relaxed);
        }
    }
    Ok(last)
}

/// One that was started.
pub struct Running {
    child: Child,
    output: JoinHandle<std::io::Result<String>>,
    is_ready: Arc<AtomicBool>,
    begin: Instant,
    cpu_us: f64,
    violations: Vec<String>,
}

impl Running {
    /// It has begun, or will not any more.
    pub fn is_ready(&mut self) -> bool {
        self.is_ready.load(Ordering::Relaxed) || self.has_stopped()
    }

    pub fn step_back(&self) {
        process::set_back(self.child.id(), true);
    }

    pub fn ask_to_stop(&mut self) {
        if !self.is_ready.load(Ordering::Relaxed) {
            self.violations.push("it did not say that it was ready".to_owned());
        }
        if self.has_stopped() {
            self.violations.push("it ended before it was told to".to_owned());
            return;
        }
        // Of the time until here, which is that of the window. One that ends just now has none.
        self.cpu_us = process::cpu_time(self.child.id()).map_or(0.0, |time| time.total_us);
        // What it does from here on is not measured.
        process::set_back(self.child.id(), false);
        self.signal(libc::SIGTERM);
    }

    /// An error in looking is told by [`Running::join`].
    pub fn has_stopped(&mut self) -> bool {
        self.child.try_wait().map_or(true, |status| status.is_some())
    }

    /// It had its time.
    pub fn end(&mut self) {
        self.violations.push("it did not end when it was told to".to_owned());
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: no pointer is passed; an unwaited child keeps its number, and after `try_wait` has seen its end nobody
        // comes here.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// What it says it did; waits for it if it has not stopped.
    pub fn join(mut self) -> Result<Tally> {
        let status = self.child.wait().context("waiting for the hostile program")?;
        let output =
            self.output.join().map_err(|_| anyhow!("the thread that reads its output panicked"))??;
        let mut tally = tally(&output);
        tally.seconds = self.begin.elapsed().as_secs_f64();
        tally.cpu_us = self.cpu_us;
        match (status.code(), status.signal()) {
            (Some(0), _) => {}
            (Some(code), _) => tally.violations.push(format!("it ended with exit code {code}")),
            (None, signal) => {
                tally.violations.push(format!("it was ended by signal {}", signal.unwrap_or(0)))
            }
        }
        tally.violations.append(&mut self.violations);
        Ok(tally)
    }
}

/// From its last line.
fn tally(line: &str) -> Tally {
    let mut tally = Tally::default();
    let Some(said) = serde_json::from_str::<Value>(line).ok().filter(Value::is_object) else {
        tally.violations.push(format!("it said {line:?} and no JSON"));
        return tally;
    };
    let number = |name: &str| said[name].as_u64().unwrap_or(0);
    (tally.attempts, tally.refused, tally.ended) = (number("attempts"), number("refused"), number("closed"));
    let violations = said["violations"].as_array().into_iter().flatten();
    let text = |violation: &Value| violation.as_str().map_or_else(|| violation.to_string(), str::to_owned);
    tally.violations.extend(violations.map(text));
    tally.said = said;
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TARGET: &str = "127.0.0.1:4711";
    const FOREVER: &str = "echo ready; while :; do sleep 0.01; done";

    fn start(script: &str) -> Running {
        // One word for the shell: words are split at spaces.
        let words = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        Program { name: "p".to_owned(), words }.start(TARGET.parse().unwrap(), Some(7), None).unwrap()
    }

    /// Runs until it is ready, and is told to end then.
    fn stopped(script: &str) -> Tally {
        let mut running = start(script);
        await_ready(&mut running);
        running.ask_to_stop();
        running.join().unwrap()
    }

    fn await_ready(running: &mut Running) {
        while !running.is_ready() {
            clock::pause(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_command_gets_the_address_the_port_and_the_process() {
        let program: Program = "x=run --at {address}:{port} --pid {pid}".parse().unwrap();
        let words = program.filled(TARGET.parse().unwrap(), Some(7));
        assert_eq!(
            (program.name.as_str(), words.join(" ").as_str()),
            ("x", "run --at 127.0.0.1:4711 --pid 7")
        );
        assert!("x".parse::<Program>().is_err() && "x= ".parse::<Program>().is_err());
        assert!("=run".parse::<Program>().is_err());
    }

    #[test]
    fn what_it_says_at_its_end_is_its_tally() {
        let said = r#"{"attempts":5,"refused":3,"closed":2,"violations":[],"more":[1]}"#;
        let tally =
            stopped(&format!("say() {{ echo noise; echo '{said}'; exit; }}; trap say TERM; {FOREVER}"));
        assert_eq!((tally.attempts, tally.refused, tally.ended), (5, 3, 2));
        assert_eq!((tally.violations.len(), &tally.said["more"][0]), (0, &serde_json::json!(1)));
        assert!(tally.seconds > 0.0);
    }

    #[test]
    fn a_violation_an_exit_code_and_silence_are_held_against_it() {
        assert_eq!(
            tally(r#"{"violations":["a secret was delivered"]}"#).violations,
            ["a secret was delivered"]
        );
        assert_eq!(stopped(&format!("trap 'exit 3' TERM; {FOREVER}")).violations.len(), 2);
        assert!(
            stopped("echo ready; exec sleep 9").violations.contains(&"it was ended by signal 15".to_owned())
        );
        let early = stopped("echo '{}'").violations;
        assert_eq!(early, ["it did not say that it was ready", "it ended before it was told to"]);
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let mut running = start(&format!("trap '' TERM; {FOREVER}"));
        await_ready(&mut running);
        running.ask_to_stop();
        clock::pause(Duration::from_millis(100));
        assert!(!running.has_stopped());
        running.end();
        let violations = running.join().unwrap().violations;
        assert!(violations.contains(&"it did not end when it was told to".to_owned()), "{violations:?}");
    }
}
