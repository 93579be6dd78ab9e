//! What `ironpost backup` and a broker say to each other on the control socket: lines of text.
//!
//! Decides nothing; both sides of it are here so that they agree.
//!
//! ```text
//! backup:  backup 1                              the number is the version of this
//! broker:  no TEXT                               refused; or
//!          shard NUMBER COUNT NANOSECONDS        its segments follow; pinning took it so long
//!          SEGMENT                               see `journal::Part`, COUNT times
//!          ..                                    the other shards
//!          end                                   nothing of that is written again for as long as the connection lasts
//! broker:  no TEXT                               at any time from here on: except that it is
//! backup:  done COPIED LINKED                    bytes
//! broker:  yes                                   it was as it was until now
//! ```

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use crate::ids::ShardId;
use crate::journal::Part;
use crate::limits::{CONTROL_LINE_BYTES_MAX, SEGMENTS_MAX, SHARDS_MAX};

/// Name of the socket in the data directory.
const SOCKET: &str = "control";

/// What is asked for.
pub const REQUEST: &str = "backup 1";
/// Nothing was written again.
pub const YES: &str = "yes";

/// Where a broker with that data directory listens.
pub fn socket(data: &Path) -> PathBuf {
    data.join(SOCKET)
}

/// What one shard has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Which.
    pub shard: ShardId,
    /// Its segments.
    pub parts: Vec<Part>,
    /// How long pinning kept it from everything else.
    pub nanos: u64,
}

/// What the other side said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply<T> {
    /// What was asked for.
    Yes(T),
    /// Why not.
    No(String),
}

/// One line, without its end. An error of the kind `UnexpectedEof` if there is none.
pub fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(CONTROL_LINE_BYTES_MAX as u64).read_line(&mut line)?;
    if line.pop() == Some('\n') {
        return Ok(line);
    }
    let kind = if line.len() + 1 < CONTROL_LINE_BYTES_MAX {
        io::ErrorKind::UnexpectedEof
    } else {
        io::ErrorKind::InvalidData
    };
    Err(kind.into())
}

/// Say no. The text is one line, and cut to what one may be.
pub fn refuse(to: &mut impl Write, text: &str) -> io::Result<()> {
    let text: String = text.chars().take(CONTROL_LINE_BYTES_MAX / 4 * 3).filter(|c| c.is_ascii()).collect();
    to.write_all(format!("no {}\n", text.replace('\n', " ")).as_bytes())
}

/// The text of a no.
pub fn refusal(line: &str) -> Option<String> {
    line.strip_prefix("no ").map(str::to_owned)
}

/// Say what there is.
pub fn write_cuts(to: &mut impl Write, cuts: &[Cut]) -> io::Result<()> {
    let mut text = String::new();
    for Cut { shard, parts, nanos } in cuts {
        text.push_str(&format!("shard {} {} {nanos}\n", shard.0, parts.len()));
        parts.iter().for_each(|part| text.push_str(&format!("{part}\n")));
        to.write_all(text.as_bytes())?;
        text.clear();
    }
    to.write_all(b"end\n")?;
    to.flush()
}

/// Hear what there is.
pub fn read_cuts(from: &mut impl BufRead) -> io::Result<Reply<Vec<Cut>>> {
    let invalid = |line: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{line:?} was not expected: is the broker of another version?"),
        )
    };
    let mut cuts: Vec<Cut> = Vec::new();
    loop {
        let line = read_line(from)?;
        if line == "end" {
            return Ok(Reply::Yes(cuts));
        }
        if let Some(text) = refusal(&line) {
            return Ok(Reply::No(text));
        }
        let numbers = line.strip_prefix("shard ").map(|rest| rest.split(' ').map(str::parse::<u64>));
        let numbers: Option<Vec<u64>> = numbers.and_then(|numbers| numbers.collect::<Result<_, _>>().ok());
        let Some(&[shard, count, nanos]) = numbers.as_deref() else { return Err(invalid(&line)) };
        let in_order = shard == cuts.len() as u64 && shard < SHARDS_MAX as u64;
        if !in_order || count > SEGMENTS_MAX as u64 {
            return Err(invalid(&line));
        }
        let mut parts = Vec::new();
        for _ in 0..count {
            let line = read_line(from)?;
            parts.push(Part::parse(&line).ok_or_else(|| invalid(&line))?);
        }
        let shard = ShardId(u16::try_from(shard).expect("below SHARDS_MAX"));
        cuts.push(Cut { shard, parts, nanos });
    }
}

/// Say that everything is copied.
pub fn write_done(to: &mut impl Write, copied: u64, linked: u64) -> io::Result<()> {
    to.write_all(format!("done {copied} {linked}\n").as_bytes())
}

/// Bytes copied, and bytes of files that were there already.
pub fn parse_done(line: &str) -> Option<(u64, u64)> {
    let (copied, linked) = line.strip_prefix("done ")?.split_once(' ')?;
    Some((copied.parse().ok()?, linked.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: [&str; 2] =
        ["segment-000007 0 9 77 65536 8192 3735928559", "segment-000008 2 1 5 65536 - -"];

    fn cuts() -> Vec<Cut> {
        let parts: Vec<Part> = SEGMENTS.iter().map(|line| Part::parse(line).expect(line)).collect();
        let one = |shard, parts| Cut { shard: ShardId(shard), parts, nanos: 1_234 };
        vec![one(0, parts), one(1, Vec::new())]
    }

    #[test]
    fn what_one_side_says_the_other_understands() {
        let mut text = Vec::new();
        write_cuts(&mut text, &cuts()).unwrap();
        assert_eq!(read_cuts(&mut &*text).unwrap(), Reply::Yes(cuts()));
        let mut text = Vec::new();
        refuse(&mut text, "another\nbackup").unwrap();
        assert_eq!(read_cuts(&mut &*text).unwrap(), Reply::No("another backup".to_owned()));
        let mut text = Vec::new();
        write_done(&mut text, 5, 6).unwrap();
        assert_eq!(parse_done(&read_line(&mut &*text).unwrap()), Some((5, 6)));
    }

    #[test]
    fn anything_else_is_refused_and_no_line_is_longer_than_may_be() {
        let mut whole = Vec::new();
        write_cuts(&mut whole, &cuts()).unwrap();
        for length in 0..whole.len() {
            assert!(read_cuts(&mut &whole[..length]).is_err(), "{length}");
        }
        let long = "x".repeat(2 * CONTROL_LINE_BYTES_MAX);
        for text in [
            "shard 1 0 0\nend\n",
            "shard 0 99999999 0\n",
            "shard 0 1 0\n../../etc/passwd 0 1 1 65536 - -\nend\n",
            "shard 0 1 0\nsegment-000007 9 1 1 65536 - -\nend\n",
            "shard 0 1 0\nsegment-000007 0 1 1 65536 - - -\nend\n",
            "hello\n",
            &long,
        ] {
            let error = read_cuts(&mut text.as_bytes()).unwrap_err();
            assert!(error.kind() == io::ErrorKind::InvalidData, "{text}: {error}");
        }
    }
}
