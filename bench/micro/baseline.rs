//! The counts that were accepted, and what is a growth. The file is in the repository: a change of it is part of the
//! change that causes it, and is read with it.

use std::path::PathBuf;
use std::process::Command;

/// How much an operation may grow.
///
/// The same program counts the same every time. Another source elsewhere moves it a little too, as the compiler draws the
/// lines between inlined functions anew; `bench/README.md` has how much was seen. Much less would refuse such changes, much
/// more would let a copy per message pass.
pub const GROWTH_MAX_PERCENT: f64 = 5.0;

/// Where an operation takes less than a hundred instructions, a percentage says nothing: this many more are allowed.
pub const GROWTH_ALWAYS: f64 = 4.0;

/// A count that fell below this share is refused too: the case does not do what it did, or the baseline is so old that it
/// would let the next regression pass.
pub const FALL_MAX_PERCENT: f64 = 50.0;

/// What `baseline.toml` says.
pub struct Baseline {
    counts: toml::Table,
    tools: String,
}

/// What came of a comparison.
pub enum Judgement {
    /// The baseline does not have it.
    Unknown,
    /// Within the bounds.
    Same { baseline: f64, percent: f64 },
    /// Not, and what that means.
    Different { baseline: f64, percent: f64, why: String },
}

impl Baseline {
    pub fn load() -> Result<Baseline, String> {
        let path = path();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Baseline::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Baseline, String> {
        let mut table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let tools = table.get("tools").and_then(toml::Value::as_str).ok_or("no `tools`")?.to_owned();
        match table.remove("instructions") {
            Some(toml::Value::Table(counts)) => Ok(Baseline { counts, tools }),
            _ => Err("no `[instructions]`".to_owned()),
        }
    }

    pub fn judge(&self, name: &str, counted: f64) -> Judgement {
        let Some(baseline) = self.counts.get(name).and_then(toml::Value::as_float) else {
            return Judgement::Unknown;
        };
        let percent = (counted - baseline) / baseline * 100.0;
        let allowed = (baseline * GROWTH_MAX_PERCENT / 100.0).max(GROWTH_ALWAYS);
        let why = if counted > baseline + allowed {
            format!("has grown by {percent:.1} %; {allowed:.0} instructions more are allowed")
        } else if percent < -FALL_MAX_PERCENT {
            format!("fell by {:.1} %: does it still do all of it?", -percent)
        } else {
            return Judgement::Same { baseline, percent };
        };
        Judgement::Different { baseline, percent, why }
    }

    /// Names that are not among these.
    pub fn strangers(&self, cases: impl Iterator<Item = &'static str> + Clone) -> Vec<String> {
        let unknown = self.counts.keys().filter(|name| !cases.clone().any(|case| case == *name));
        unknown.map(|name| format!("{name} is in the baseline and is no case")).collect()
    }

    /// What to do about complaints.
    pub fn advice(&self) -> Result<String, String> {
        let (here, there) = (tools()?, &self.tools);
        let mut advice = "If that is meant, renew the baseline in the same commit and say why: \
                          cargo run --release -p ironpost-micro -- --renew"
            .to_owned();
        if here != *there {
            advice.push_str(&format!("\nNote that it is of other tools: {there}. Here: {here}."));
        }
        Ok(advice)
    }
}

/// Replace the file.
pub fn write(counted: &[(&str, f64)]) -> Result<(), String> {
    let mut text = "# Instructions per operation. Written by `cargo run --release -p ironpost-micro -- --renew`; see bench/README.md.\n"
        .to_owned();
    text.push_str(&format!("tools = \"{}\"\n\n[instructions]\n", tools()?));
    for (name, count) in counted {
        text.push_str(&format!("\"{name}\" = {count:.1}\n"));
    }
    let path = path();
    std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// What counts depend on besides the source.
fn tools() -> Result<String, String> {
    let version = |program: &str| -> Result<String, String> {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(|error| format!("cannot start {program}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().replace(['"', '\\'], ""))
    };
    Ok([version("rustc")?, version("valgrind")?, version("cc")?, version("ldd")?].join(", "))
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.toml")
}
