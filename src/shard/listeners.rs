//! Where the process listens, and what those who connect there get.
//!
//! Reads certificates, and what credentials are checked against, when the broker starts, and again when it is told to; opens each
//! socket once, with a descriptor for each shard. Called by `serve`; a shard is given its sockets and accepts by itself.

use std::path::PathBuf;
use std::sync::Arc;

use super::entrance::Guarded;
use super::serve::{ServeError, random, random_key, system};
use super::wrapped::{Acceptor, Listening, Wrapper};
use crate::access::guard::{Check, Checked, Guard};
use crate::access::keeper::{AccessError, HookSources, Keeper, Sources};
use crate::access::permissions::Permissions;
use crate::access::tokens;
use crate::config::{Address, ClientCertificates, Config, Listener, Place};
use crate::ids::ShardId;
use crate::limits::{
    HANDSHAKE_THREADS_MAX, HANDSHAKES_PENDING_MAX, HOOK_PENDING_MAX, HOOK_THREADS, PASSWORD_THREADS_MAX,
    PASSWORDS_PENDING_MAX, TOKENS_TOGETHER_MAX,
};
use crate::placement::Placement;
use crate::reactor;
use crate::transport::certificates::{CertificateError, Certificates, Clients};
use crate::transport::handshake::{Handshake, Shaken};
use crate::transport::proxy::Trusted;
use crate::transport::{self, Layers, Server, Web};
use crate::workers::{Bounds, Pool};

/// All listeners of the process.
pub(super) struct Listeners {
    all: Vec<One>,
    sources: Sources,
    keeper: Arc<Keeper>,
    pools: Option<Pools>,
}

struct One {
    name: String,
    address: Address,
    mode: u32,
    layers: Layers,
    methods: Vec<crate::config::Method>,
    proxies: Option<Arc<Trusted>>,
}

/// Threads for what takes too long for a turn.
struct Pools {
    handshakes: Arc<Pool<Handshake>>,
    tokens: Arc<Pool<Box<Check>>>,
    passwords: Arc<Pool<Box<Check>>>,
    hook: Arc<Pool<Box<Check>>>,
}

/// How what other threads have done gets to a shard.
pub(super) struct Returns {
    /// A step of a handshake.
    pub shaken: Box<dyn Fn(Vec<Shaken>) + Send + Sync>,
    /// Whether somebody may come in.
    pub checked: Arc<dyn Fn(Vec<Checked>) + Send + Sync>,
}

impl Listeners {
    /// What the configuration says; reads what it names.
    pub(super) fn prepare(config: &Config) -> Result<Listeners, ServeError> {
        let sources = sources(config);
        let keeper = Arc::new(Keeper::read(&sources, None, random)?);
        let plain = config.listen.iter().map(|address| {
            Ok(One {
                name: address.to_string(),
                address: address.clone(),
                mode: 0o600,
                layers: layers(address, &[]),
                methods: Vec::new(),
                proxies: None,
            })
        });
        let others = config.listeners.iter().map(|listener| {
            let address = listener.address();
            let layers = Layers { tls: tls(listener, None)?, ..layers(&address, &listener.origins) };
            let proxies = (!listener.proxy_from.is_empty()).then(|| Arc::new(listener.proxy_from.clone()));
            Ok(One {
                name: listener.name.clone(),
                address,
                mode: listener.mode,
                layers,
                methods: listener.authentication.clone(),
                proxies,
            })
        });
        let all = plain.chain(others).collect::<Result<_, ServeError>>()?;
        Ok(Listeners { all, sources, keeper, pools: None })
    }

    /// Who may do what, from now on.
    pub(super) fn permissions(&self, placement: Placement) -> Arc<Permissions> {
        let somebody_proves = self.all.iter().any(|one| !one.methods.is_empty());
        Arc::new(Permissions::new(self.keeper.rules(), placement, somebody_proves))
    }

    /// Starts the threads that do what takes long, if there is a listener for them.
    pub(super) fn start_workers(&mut self, returns: Vec<Returns>) -> Result<(), ServeError> {
        if !self.all.iter().any(|one| one.is_wrapped() || !one.methods.is_empty()) {
            return Ok(());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let checked = || {
            let one = |each: &Returns| {
                let checked = each.checked.clone();
                Box::new(move |done| checked(done)) as Box<dyn Fn(Vec<Checked>) + Send + Sync>
            };
            returns.iter().map(one).collect::<Vec<_>>()
        };
        let failed = system("start a thread");
        let (shakers, hashers) =
            (cores.min(HANDSHAKE_THREADS_MAX), cores.div_ceil(2).min(PASSWORD_THREADS_MAX));
        let alone = |threads, line_max| Bounds { threads, line_max, together_max: 1 };
        let together = Bounds { together_max: TOKENS_TOGETHER_MAX, ..alone(shakers, HANDSHAKES_PENDING_MAX) };
        let tokens = Pool::start("token", together, checked()).map_err(&failed)?;
        let hashing = alone(hashers, PASSWORDS_PENDING_MAX);
        let passwords = Pool::start("password", hashing, checked()).map_err(&failed)?;
        let asking = alone(HOOK_THREADS, HOOK_PENDING_MAX);
        let hook = Pool::start("hook", asking, checked()).map_err(&failed)?;
        let shaken = returns.into_iter().map(|each| each.shaken).collect();
        let shaking = alone(shakers, HANDSHAKES_PENDING_MAX);
        let handshakes = Pool::start("handshake", shaking, shaken).map_err(&failed)?;
        self.pools = Some(Pools { handshakes, tokens, passwords, hook });
        Ok(())
    }

    /// Opens them: the sockets of each shard, each with a descriptor of its own.
    pub(super) fn open(&self, shards: u16) -> Result<Vec<Vec<Listening>>, ServeError> {
        let mut sockets: Vec<Vec<Listening>> = (0..shards).map(|_| Vec::new()).collect();
        let mut bound: Vec<String> = Vec::new();
        for one in &self.all {
            let failed = system("share a listening socket");
            let first = match &one.address.place {
                Place::Ip(address) => {
                    let socket = reactor::listen(*address).map_err(system("listen"))?;
                    bound.push(reactor::local_address(socket).map_err(&failed)?.to_string());
                    socket
                }
                Place::Unix(path) => {
                    bound.push(path.display().to_string());
                    reactor::listen_unix(path, one.mode).map_err(system("listen"))?
                }
            };
            for (shard, sockets) in (0..).zip(&mut sockets) {
                let socket = if shard == 0 { first } else { reactor::duplicate(first).map_err(&failed)? };
                sockets.push(Listening { socket, acceptor: self.acceptor(one, ShardId(shard)) });
            }
        }
        for (one, address) in self.all.iter().zip(bound) {
            let protocol = one.address.protocol;
            tracing::info!(event = "listening", address, ?protocol, listener = one.name);
        }
        Ok(sockets)
    }

    /// Removes what sockets leave behind in the file system.
    pub(super) fn remove_sockets(&self) {
        for path in self.all.iter().filter_map(One::path) {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(event = "socket_left", path = %path.display(), %error);
            }
        }
    }

    /// Reads again what the configuration names: what the connections of each shard get from now on. If something is wrong
    /// with it, nothing has changed.
    pub(super) fn read_again(
        &mut self,
        config: &Config,
    ) -> Result<impl Fn(ShardId) -> Vec<Acceptor>, ServeError> {
        let named = self.all.len() - config.listeners.len();
        let keeper = Arc::new(Keeper::read(&self.sources, Some(&self.keeper), random)?);
        let servers = self.all[named..].iter().zip(&config.listeners);
        let servers: Vec<_> = servers
            .map(|(one, listener)| tls(listener, one.layers.tls.as_deref()))
            .collect::<Result<_, _>>()?;
        for (one, server) in self.all[named..].iter_mut().zip(servers) {
            one.layers.tls = server;
        }
        self.keeper = keeper;
        Ok(|shard| self.all.iter().map(|one| self.acceptor(one, shard)).collect())
    }

    fn acceptor(&self, one: &One, shard: ShardId) -> Acceptor {
        let proxies = one.proxies.clone();
        let Some(pools) = &self.pools else { return Acceptor { proxies, ..Acceptor::default() } };
        let wrapper = one
            .is_wrapped()
            .then(|| Wrapper { layers: one.layers.clone(), workers: pools.handshakes.of(shard) });
        let guarded = (!one.methods.is_empty()).then(|| Guarded {
            guard: Arc::new(Guard::new(&one.name, &one.methods, self.keeper.clone())),
            tokens: pools.tokens.of(shard),
            passwords: pools.passwords.of(shard),
            hook: pools.hook.of(shard),
        });
        Acceptor { wrapper, guarded, proxies }
    }
}

impl One {
    fn is_wrapped(&self) -> bool {
        self.layers.tls.is_some() || self.layers.web.is_some()
    }

    fn path(&self) -> Option<&PathBuf> {
        match &self.address.place {
            Place::Unix(path) => Some(path),
            Place::Ip(_) => None,
        }
    }
}

/// What the configuration says of credentials.
pub(crate) fn sources(config: &Config) -> Sources {
    let there = &config.authentication;
    Sources {
        account: config.account,
        password_file: there.password_file.clone(),
        token_keys: there.token_keys.clone(),
        tokens: tokens::Settings {
            issuer: there.token_issuer.clone(),
            audience: there.token_audience.clone(),
            account_claim: there.token_account_claim.clone(),
        },
        certificate_name: there.certificate_name,
        hook: there.hook_url.clone().map(|url| HookSources {
            url,
            secret_file: there.hook_secret_file.clone(),
            authorities: there.hook_authorities.clone(),
            timeout_ms: there.hook_timeout_ms,
            cache_s: there.hook_cache_s,
        }),
        rules: there.rules.clone(),
        hash_key: random_key(),
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

impl From<AccessError> for ServeError {
    fn from(error: AccessError) -> ServeError {
        ServeError::Access(error)
    }
}
