//! Runs a case under valgrind and reads how many instructions that took. Knows nothing of what a case does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Case;

/// First argument of this program where it is to run one case.
pub const RUN: &str = "run";

/// The C library picks its copying routines by processor; with these features masked the choice is the same on all, the one
/// for SSE2. It matters: a journal record took 25 % more with those for AVX2. Names that a version does not know are ignored.
const TUNABLES: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-ERMS,-FSRM,-SSSE3,-SSE4_2,-EVEX",
);

/// The allocator gives memory back after a time by the clock; here never.
const ALLOCATOR_SETTINGS: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "-1");

/// Instructions that one turn of the case takes.
pub fn cost(case: &Case) -> Result<f64, String> {
    let (few, many) = (case.turns, 2 * case.turns);
    let (short, long) = (count(case.name, few)?, count(case.name, many)?);
    let difference = long.checked_sub(short).ok_or_else(|| {
        format!("{}: {many} turns took {long} instructions, {few} turns {short}", case.name)
    })?;
    Ok(difference as f64 / f64::from(many - few))
}

/// Instructions of a whole run. Its profile stays, for `callgrind_annotate` to say where they went.
fn count(name: &str, turns: u32) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?;
    let profile = profile(&program, name, turns)?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&program)
        .args([RUN, name, &turns.to_string()])
        .envs([TUNABLES, ALLOCATOR_SETTINGS])
        .output()
        .map_err(|error| format!("cannot start valgrind (apt-get install valgrind): {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} with {turns} turns ended with {}:\n{said}", output.status));
    }
    let text = std::fs::read_to_string(&profile)
        .map_err(|error| format!("cannot read {}: {error}", profile.display()))?;
    total(&text).ok_or_else(|| format!("{} has no total", profile.display()))
}

/// `micro/` in the build directory, above `release/`.
fn profile(program: &Path, name: &str, turns: u32) -> Result<PathBuf, String> {
    let above = program.ancestors().nth(2).ok_or("this program lies in a build directory")?;
    let folder = above.join("micro");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder.join(format!("{}.{turns}.callgrind", name.replace('/', "."))))
}

/// The `totals:` line of a profile whose one event is the instruction.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find(|line| *line == "events: Ir")?;
    profile.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}
