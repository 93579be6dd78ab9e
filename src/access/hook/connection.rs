//! How a connection to the service is made: its name looked up when one is needed, and what was sent over it wiped.
//!
//! ureq looks a name up before each request, kept connection or not, and starts a thread for each lookup; one thread more
//! for every question while the name service hangs. Here only a new connection looks up, in a thread of which there is
//! one at most, whose finding all that wait share. Called by the hook alone, through ureq.
//!
//! ureq writes a request into a buffer of its connection and leaves it there until the next one. [`Wiping`] empties that
//! buffer, which holds passwords and our secret, as soon as it is sent.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::{Duration as Span, Instant as Moment};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};
use ureq::{Agent, Error};
use zeroize::Zeroize;

use crate::limits;

/// What asks the host for the addresses of a name; a test has its own.
type Find = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// A client whose connections are made here.
pub(super) fn agent(config: Config, names: Names) -> Agent {
    let dial = Dial { names: Arc::new(names), tcp: TcpConnector::default() };
    Agent::with_parts(config, dial.chain(RustlsConnector::default()).chain(Wiping), NotYet)
}

/// The addresses of the service.
pub(super) struct Names {
    host: String,
    port: u16,
    find: Box<Find>,
    lookup: Mutex<Lookup>,
    ended: Condvar,
}

/// At most one runs.
struct Lookup {
    running: bool,
    /// How many have ended; changes wake those that wait.
    ended: u64,
    /// By the last of them. `None`: there are no addresses.
    found: Option<ResolvedSocketAddrs>,
}

impl Names {
    /// `host` is a name, or an address without brackets.
    pub(super) fn new(host: &str, port: u16) -> Names {
        Names::with(host, port, Box::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())))
    }

    /// With another name service.
    pub(super) fn with(host: &str, port: u16, find: Box<Find>) -> Names {
        let lookup = Lookup { running: false, ended: 0, found: None };
        Names { host: host.to_owned(), port, find, lookup: Mutex::new(lookup), ended: Condvar::new() }
    }

    fn addresses(self: &Arc<Names>, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(list([SocketAddr::new(address, self.port)]));
        }
        let mut lookup = self.lookup.lock().expect("nothing panics while it holds this");
        if !lookup.running {
            let names = Arc::clone(self);
            std::thread::Builder::new().name("access-name".to_owned()).spawn(move || names.look_up())?;
            lookup.running = true;
        }
        let before = lookup.ended;
        // No longer than the longest setting: the sum with the current time cannot overflow.
        let wait = (*timeout.after).min(Duration::from_millis(u64::from(limits::HOOK_TIMEOUT_MS_MAX)));
        let (lookup, _) = self
            .ended
            .wait_timeout_while(lookup, wait, |lookup| lookup.ended == before)
            .expect("nothing panics while it holds this");
        if lookup.ended == before {
            return Err(Error::Timeout(timeout.reason));
        }
        lookup.found.clone().ok_or(Error::HostNotFound)
    }

    fn look_up(&self) {
        let found = (self.find)(&self.host, self.port);
        let mut lookup = self.lookup.lock().expect("nothing panics while it holds this");
        lookup.running = false;
        lookup.ended = lookup.ended.wrapping_add(1);
        lookup.found = found.ok().filter(|found| !found.is_empty()).map(list);
        drop(lookup);
        self.ended.notify_all();
    }
}

fn list(addresses: impl IntoIterator<Item = SocketAddr>) -> ResolvedSocketAddrs {
    let mut list = NotYet.empty();
    for address in addresses.into_iter().take(limits::HOOK_ADDRESSES_MAX) {
        list.push(address);
    }
    list
}

/// Stands where ureq looks names up: that is for later, if at all.
#[derive(Debug)]
struct NotYet;

impl Resolver for NotYet {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Looks up, then connects.
struct Dial {
    names: Arc<Names>,
    tcp: TcpConnector,
}

impl fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Dial")
    }
}

impl Connector<()> for Dial {
    type Out = <TcpConnector as Connector<()>>::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let addrs = self.names.addresses(details.timeout)?;
        let now = (details.current_time)();
        let after = match (details.timeout.after, details.now, now) {
            (Span::Exact(after), Moment::Exact(start), Moment::Exact(now)) => {
                Span::Exact(after.saturating_sub(now.saturating_duration_since(start)))
            }
            (after, ..) => after,
        };
        if after.is_zero() {
            return Err(Error::Timeout(details.timeout.reason));
        }
        let rest = ConnectionDetails {
            uri: details.uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now,
            timeout: NextTimeout { after, ..details.timeout },
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            register_shutdown: Arc::clone(&details.register_shutdown),
        };
        Connector::<()>::connect(&self.tcp, &rest, None)
    }
}

/// Makes connections [`Wiped`].
#[derive(Debug)]
struct Wiping;

impl<In: Transport> Connector<In> for Wiping {
    type Out = Wiped<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Wiped<In>>, Error> {
        Ok(chained.map(Wiped))
    }
}

/// A connection whose buffer is emptied of what was sent. Outermost, so that it is the buffer before encryption.
#[derive(Debug)]
pub(super) struct Wiped<In>(pub(super) In);

impl<In: Transport> Transport for Wiped<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let sent = self.0.transmit_output(amount, timeout);
        self.0.buffers().output()[..amount].zeroize();
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
