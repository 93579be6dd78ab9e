//! Where the process listens, and what those who connect there get.
//!
//! Reads certificates when the broker starts, and again when it is told to; opens each socket once, with a descriptor for
//! each shard. Called by `serve`; a shard is given its sockets and accepts by itself.

use std::net::SocketAddr;
use std::sync::Arc;

use super::serve::{ServeError, system};
use super::wrapped::{Acceptor, Listening};
use crate::config::{Address, ClientCertificates, Config, Listener};
use crate::ids::ShardId;
use crate::limits::HANDSHAKE_THREADS_MAX;
use crate::reactor;
use crate::transport::certificates::{CertificateError, Certificates, Clients};
use crate::transport::workers::{Pool, Return};
use crate::transport::{self, Layers, Server, Web};

/// All listeners of the process.
pub(super) struct Listeners {
    all: Vec<One>,
    pool: Option<Arc<Pool>>,
}

struct One {
    name: String,
    address: Address,
    layers: Layers,
}

impl Listeners {
    /// What the configuration says; reads what it names.
    pub(super) fn prepare(config: &Config) -> Result<Listeners, ServeError> {
        let plain = config.listen.iter().map(|address| {
            Ok(One { name: address.to_string(), address: *address, layers: layers(address, &[]) })
        });
        let others = config.listeners.iter().map(|listener| {
            let address = listener.address();
            let layers = Layers { tls: tls(listener, None)?, ..layers(&address, &listener.origins) };
            Ok(One { name: listener.name.clone(), address, layers })
        });
        Ok(Listeners { all: plain.chain(others).collect::<Result<_, ServeError>>()?, pool: None })
    }

    /// Starts the threads that shake hands, if there is a listener for them.
    pub(super) fn start_workers(&mut self, returns: Vec<Return>) -> Result<(), ServeError> {
        if self.all.iter().any(One::is_wrapped) {
            let threads =
                std::thread::available_parallelism().map_or(1, usize::from).min(HANDSHAKE_THREADS_MAX);
            self.pool = Some(Pool::start(threads, returns).map_err(system("start a thread"))?);
        }
        Ok(())
    }

    /// Opens them: the sockets of each shard, each with a descriptor of its own.
    pub(super) fn open(&self, shards: u16) -> Result<Vec<Vec<Listening>>, ServeError> {
        let mut sockets: Vec<Vec<Listening>> = (0..shards).map(|_| Vec::new()).collect();
        let mut bound: Vec<SocketAddr> = Vec::new();
        for one in &self.all {
            let first = reactor::listen(one.address.socket).map_err(system("listen"))?;
            let failed = system("share a listening socket");
            bound.push(reactor::local_address(first).map_err(&failed)?);
            for (shard, sockets) in (0..).zip(&mut sockets) {
                let socket = if shard == 0 { first } else { reactor::duplicate(first).map_err(&failed)? };
                sockets.push(Listening { socket, acceptor: self.acceptor(one, ShardId(shard)) });
            }
        }
        for (one, socket) in self.all.iter().zip(bound) {
            let protocol = one.address.protocol;
            tracing::info!(event = "listening", address = %socket, ?protocol, listener = one.name);
        }
        Ok(sockets)
    }

    /// Reads again what the configuration names: what the connections of each shard get from now on. If something is wrong
    /// with it, nothing has changed.
    pub(super) fn read_again(
        &mut self,
        config: &Config,
    ) -> Result<impl Fn(ShardId) -> Vec<Acceptor>, ServeError> {
        let named = self.all.len() - config.listeners.len();
        let servers = self.all[named..].iter().zip(&config.listeners);
        let servers: Vec<_> = servers
            .map(|(one, listener)| tls(listener, one.layers.tls.as_deref()))
            .collect::<Result<_, _>>()?;
        for (one, server) in self.all[named..].iter_mut().zip(servers) {
            one.layers.tls = server;
        }
        Ok(|shard| self.all.iter().map(|one| self.acceptor(one, shard)).collect())
    }

    fn acceptor(&self, one: &One, shard: ShardId) -> Acceptor {
        match &self.pool {
            Some(pool) if one.is_wrapped() => Acceptor::Wrapped(one.layers.clone(), pool.of(shard)),
            _ => Acceptor::Plain,
        }
    }
}

impl One {
    fn is_wrapped(&self) -> bool {
        self.layers.tls.is_some() || self.layers.web.is_some()
    }
}

/// What an address says of them.
fn layers(address: &Address, origins: &[String]) -> Layers {
    let web = address.protocol.is_web().then(|| Arc::new(Web { origins: origins.to_vec() }));
    Layers { tls: None, web }
}

fn tls(listener: &Listener, before: Option<&Server>) -> Result<Option<Arc<Server>>, ServeError> {
    if !listener.address().protocol.is_tls() {
        return Ok(None);
    }
    let files = listener.certificates.iter().map(AsRef::as_ref).zip(listener.keys.iter().map(AsRef::as_ref));
    let certificates = Certificates::read(files)?;
    let protocol = if listener.address().protocol.is_web() { transport::HTTP } else { transport::MQTT };
    let clients = Clients {
        authorities: &listener.client_authorities,
        revoked: &listener.client_revoked,
        required: listener.client_certificates == ClientCertificates::Required,
    };
    let clients = if clients.authorities.is_empty() { None } else { Some(clients.read()?) };
    let server = transport::server(certificates, clients, protocol, before)
        .map_err(|error| ServeError::System { what: "set up TLS", error: std::io::Error::other(error) })?;
    Ok(Some(Arc::new(server)))
}

impl From<CertificateError> for ServeError {
    fn from(error: CertificateError) -> ServeError {
        ServeError::Certificate(error)
    }
}
