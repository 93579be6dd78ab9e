//! The side of the control socket that wants a backup.
//!
//! Decides nothing but how long to wait. As long as the connection lasts, the broker keeps what it has named.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{self, Cut, REQUEST, Reply, YES};
use super::{BackupError, Summary};
use crate::limits::BACKUP_ANSWER_MS;

/// Each of the three phases may take so long, and one more for what is in between.
const PATIENCE: Duration = Duration::from_millis(4 * BACKUP_ANSWER_MS);

/// A broker that keeps things for us.
pub(super) struct Conversation {
    stream: BufReader<UnixStream>,
}

impl Conversation {
    pub(super) fn begin(socket: &Path) -> Result<Conversation, BackupError> {
        let nobody = |error| BackupError::NobodyAnswers { socket: socket.display().to_string(), error };
        let mut stream = UnixStream::connect(socket).map_err(nobody)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(nobody)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(nobody)?;
        stream.write_all(format!("{REQUEST}\n").as_bytes()).map_err(nobody)?;
        Ok(Conversation { stream: BufReader::new(stream) })
    }

    /// What to copy, of so many shards.
    pub(super) fn cuts(&mut self, shards: u16) -> Result<Vec<Cut>, BackupError> {
        match protocol::read_cuts(&mut self.stream).map_err(failed)? {
            Reply::Yes(cuts) if cuts.len() == usize::from(shards) => Ok(cuts),
            Reply::Yes(cuts) => {
                let text = format!("{} shards of {shards}", cuts.len());
                Err(BackupError::NotUnderstood(io::Error::new(io::ErrorKind::InvalidData, text)))
            }
            Reply::No(text) => Err(BackupError::Refused(text)),
        }
    }

    /// Whether it still keeps them. Does not wait.
    pub(super) fn goes_on(&mut self) -> Result<(), BackupError> {
        self.stream.get_ref().set_nonblocking(true).map_err(failed)?;
        let heard = self.stream.fill_buf().map(<[u8]>::is_empty);
        self.stream.get_ref().set_nonblocking(false).map_err(failed)?;
        match heard {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(true) => Err(BackupError::BrokerGone),
            Ok(false) => self.verdict(),
        }
    }

    /// Nothing is needed any more. Whether it had kept everything until now; else a copy that came about is worth nothing.
    pub(super) fn end(
        mut self,
        copied: &Result<(), BackupError>,
        summary: &Summary,
    ) -> Result<(), BackupError> {
        if copied.is_err() {
            // It may have said why a moment ago. If not, hanging up ends it over there, and the error is ours.
            return match self.goes_on() {
                Err(BackupError::Refused(text)) => Err(BackupError::Refused(text)),
                _ => Ok(()),
            };
        }
        protocol::write_done(self.stream.get_mut(), summary.bytes_copied, summary.bytes_linked)
            .map_err(failed)?;
        self.verdict()
    }

    fn verdict(&mut self) -> Result<(), BackupError> {
        let line = protocol::read_line(&mut self.stream).map_err(failed)?;
        if line == YES {
            return Ok(());
        }
        let unknown = || BackupError::NotUnderstood(io::Error::new(io::ErrorKind::InvalidData, line.clone()));
        Err(protocol::refusal(&line).map_or_else(unknown, BackupError::Refused))
    }
}

fn failed(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::InvalidData => BackupError::NotUnderstood(error),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            BackupError::Refused(format!("the broker does not answer within {} s", PATIENCE.as_secs()))
        }
        _ => BackupError::BrokerGone,
    }
}
