//! The server's side, by rustls without buffers of its own, boxed: as the broker keeps it.

use std::sync::Arc;

use anyhow::{Result, bail};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ExtractedSecrets, ServerConfig};

/// More than any record here needs.
const ROOM: usize = 1 << 12;

pub struct Session {
    connection: Box<UnbufferedServerConnection>,
    is_established: bool,
}

impl Session {
    pub fn new(config: Arc<ServerConfig>) -> Result<Session> {
        Ok(Session { connection: Box::new(UnbufferedServerConnection::new(config)?), is_established: false })
    }

    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// Takes whole records, and appends what is to be sent.
    pub fn receive(&mut self, records: &mut [u8], answer: &mut Vec<u8>) -> Result<()> {
        let mut taken = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut records[taken..]);
            let mut is_all = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        discard += record?.discard;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => append(answer, |into| Ok(data.encode(into)?))?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => (self.is_established, is_all) = (true, true),
                ConnectionState::BlockedHandshake => is_all = true,
                state => bail!("{state:?} is not what a handshake comes to"),
            }
            taken += discard;
            if is_all {
                return Ok(());
            }
        }
    }

    /// Appends the record that says it.
    pub fn say(&mut self, plain: &[u8], answer: &mut Vec<u8>) -> Result<()> {
        match self.connection.process_tls_records(&mut []).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                append(answer, |into| Ok(traffic.encrypt(plain, into)?))
            }
            state => bail!("{state:?}: it is not established"),
        }
    }

    /// The keys, and what the next ones are made of.
    pub fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<ServerConnectionData>)> {
        Ok(self.connection.dangerous_into_kernel_connection()?)
    }
}

fn append(to: &mut Vec<u8>, write: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<()> {
    let before = to.len();
    to.resize(before + ROOM, 0);
    let length = write(&mut to[before..])?;
    to.truncate(before + length);
    Ok(())
}
