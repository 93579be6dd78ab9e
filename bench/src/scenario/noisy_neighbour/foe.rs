//! Who is hostile in a noisy window: clients that are built in, or a program. Both are started, stopped and accounted for
//! alike, so that what they did to the others is told alike.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::hostile::{Hostile, Orders, Tally};
use super::noise::{Noise, Script};
use super::program::{self, Program};
use crate::client::codec::Version;

/// A kind of hostile client.
#[derive(Clone, Debug)]
pub enum Foe {
    BuiltIn(Noise),
    Program(Program),
}

impl Foe {
    /// What its figures begin with.
    pub fn name(&self) -> String {
        match self {
            Foe::BuiltIn(noise) => noise.name(),
            Foe::Program(program) => program.name.clone(),
        }
    }

    pub fn start(&self, scene: Scene) -> Result<Running> {
        let Scene { target, pid, cpu, clients, version, prefix, packet_bytes } = scene;
        Ok(match self {
            Foe::BuiltIn(noise) => {
                let script = Script { noise: *noise, version, prefix, packet_bytes };
                Running::Thread(Hostile::start(Orders { target, script, clients, cpu })?)
            }
            Foe::Program(program) => Running::Process(program.start(target, pid, cpu)?),
        })
    }
}

/// Whom they are to harm, and from where. A program decides for itself what of it to heed beyond the first three.
#[derive(Clone, Debug)]
pub struct Scene {
    pub target: SocketAddr,
    /// The server's process.
    pub pid: Option<u32>,
    /// The CPU to run on instead of the load's.
    pub cpu: Option<usize>,
    pub clients: usize,
    pub version: Version,
    /// The topics of the well-behaved begin with this.
    pub prefix: String,
    /// A whole packet of `max-packets`.
    pub packet_bytes: usize,
}

/// One that was started.
pub enum Running {
    Thread(Hostile),
    Process(program::Running),
}

impl Running {
    /// A thread begins at once; a program has to be loaded.
    pub fn is_ready(&mut self) -> bool {
        match self {
            Running::Thread(_) => true,
            Running::Process(running) => running.is_ready(),
        }
    }

    /// A thread has done so when it began.
    pub fn step_back(&self) {
        if let Running::Process(running) = self {
            running.step_back();
        }
    }

    pub fn ask_to_stop(&mut self) {
        match self {
            Running::Thread(hostile) => hostile.ask_to_stop(),
            Running::Process(running) => running.ask_to_stop(),
        }
    }

    pub fn has_stopped(&mut self) -> bool {
        match self {
            Running::Thread(hostile) => hostile.has_stopped(),
            Running::Process(running) => running.has_stopped(),
        }
    }

    /// It did not stop in time. A process can be ended; a thread that goes on is a defect of this program.
    pub fn end(&mut self) -> Result<()> {
        match self {
            Running::Thread(_) => bail!("the hostile clients did not stop"),
            Running::Process(running) => running.end(),
        }
        Ok(())
    }

    /// What it did; waits for it if it has not stopped.
    pub fn join(self) -> Result<Tally> {
        match self {
            Running::Thread(hostile) => hostile.join(),
            Running::Process(running) => running.join(),
        }
    }
}
