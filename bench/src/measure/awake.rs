//! Keeps CPUs from sleeping while something is measured.
//!
//! In a virtual machine a CPU that sleeps has to be scheduled by the host before it can answer, which takes from tens of
//! microseconds to milliseconds and is nobody's latency. On bare metal it is an idle state to leave. So a process of
//! its own, in the idle class, occupies each CPU: whoever wants it has it at once, and its time is not the generator's.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::process;

/// Ends with the value, and with the process that made it.
pub struct Awake(Vec<Child>);

impl Awake {
    /// Keeps these awake.
    pub fn keep(cpus: &[usize]) -> Result<Awake> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut awake = Awake(Vec::new());
        for cpu in cpus {
            let mut command = Command::new(&program);
            command.arg("awake").arg(cpu.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
            process::end_with_this(&mut command);
            awake.0.push(command.spawn().context("starting what keeps a CPU awake")?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that is gone already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Occupies that CPU until the process is killed.
pub fn occupy(cpu: usize) -> Result<()> {
    process::pin_to(cpu)?;
    process::step_back()?;
    loop {
        std::hint::spin_loop();
    }
}
