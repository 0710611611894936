//! Names in addresses: `/dns`, `/dns4`, `/dns6` and `/dnsaddr`.
//!
//! [`Transport`] wraps another transport. An address with a name in it is looked up when it is dialled, and the
//! addresses that come out are dialled one after another until one works. Everything else goes to the wrapped transport
//! as it is.
//!
//! - `/dns`, `/dns4` and `/dns6` are host names, looked up the way every other program on the machine does it
//!   (`getaddrinfo`: the hosts file, multicast DNS, whatever is configured), on a thread for blocking calls, and dialled
//!   in the order in which the system recommends them.
//! - `/dnsaddr` stands for whole addresses, which are kept as TXT records of `_dnsaddr.<name>` and may contain names
//!   again. With `/p2p/<peer>` behind it, only those that end in the same are used.
//!
//! Whoever owns a name decides what is looked up and dialled, so there are limits for each dial: 32 lookups, 16 dials,
//! and 16 addresses from each lookup. They are libp2p's own.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    TryFutureExt,
    future::{BoxFuture, Either, FutureExt, MapErr},
};
use libp2p_core::{
    Multiaddr,
    transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};

mod dial;
mod lookup;
mod runtime;

pub use lookup::ResolveError;

/// Where names are looked up, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    name_servers: Vec<SocketAddr>,
    timeout: Option<Duration>,
    retries: Option<usize>,
}

impl Config {
    /// The system's resolver, and for `/dnsaddr` the system's name servers (`/etc/resolv.conf` on Unix). They are read
    /// for each dial, so that a machine that changes networks needs no restart.
    pub fn system() -> Self {
        Self { name_servers: Vec::new(), timeout: None, retries: None }
    }

    /// These name servers for all names, over UDP and, for long answers, TCP. The system's resolver and hosts file are
    /// not asked. Without any server, this is [`Config::system`].
    pub fn name_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { name_servers: servers.into_iter().collect(), ..Self::system() }
    }

    /// How long to wait for a name server's answer before it is asked again, or another one is. Default: what the
    /// system's configuration says, otherwise 5 seconds. The system's resolver has its own time limits.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How often a question is repeated if no name server answers. Default: what the system's configuration says,
    /// otherwise twice.
    #[must_use]
    pub fn retries(mut self, retries: usize) -> Self {
        self.retries = Some(retries);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::system()
    }
}

/// Looks up names before it dials the wrapped transport.
///
/// A dial has no time limit of its own; see [`tcp`](crate::tcp). Dropping it ends its lookups, except that a call of
/// the system's resolver that has begun runs to its end on its thread.
#[derive(Debug)]
pub struct Transport<T> {
    /// Shared with the dials, which come back once they know what to dial.
    inner: Arc<Mutex<T>>,
    config: Config,
}

impl<T> Transport<T> {
    /// Wraps `inner`. Nothing is read or asked before a name is dialled.
    pub fn new(inner: T, config: Config) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), config }
    }

    /// Wraps `inner`, with [`Config::system`].
    pub fn system(inner: T) -> Self {
        Self::new(inner, Config::system())
    }
}

/// Why a dial through [`Transport`] failed.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// The wrapped transport failed, at an address without names or at one that came out of a lookup.
    #[error(transparent)]
    Transport(E),
    /// A name could not be looked up.
    #[error("{name} could not be looked up: {source}")]
    Resolve {
        /// The host name, or the name of the TXT records.
        name: String,
        /// What went wrong.
        source: ResolveError,
    },
    /// A lookup gave an address that the wrapped transport does not know, such as QUIC for TCP.
    #[error("a name stands for {0}, which is not supported")]
    MultiaddrNotSupported(Multiaddr),
    /// The names lead to more names than are looked up in one dial, perhaps in a circle. What had been found was
    /// dialled all the same.
    #[error("more than {} lookups", dial::MAX_LOOKUPS)]
    TooManyLookups,
    /// The names lead to more addresses than are dialled; those that were have failed.
    #[error("more than {} addresses", dial::MAX_DIALS)]
    TooManyDials,
    /// No address behind the name could be reached: everything that was tried, in this order. Empty if the name has
    /// records, but none of them fits the address that was dialled.
    #[error("{}", dial::Listed(.0))]
    Dial(Vec<Error<E>>),
}

impl<T> libp2p_core::Transport for Transport<T>
where
    T: libp2p_core::Transport + Send + Unpin + 'static,
    T::Dial: Send,
    T::Error: Send,
{
    type Output = T::Output;
    type Error = Error<T::Error>;
    type ListenerUpgrade = MapErr<T::ListenerUpgrade, fn(T::Error) -> Error<T::Error>>;
    type Dial = Either<
        MapErr<T::Dial, fn(T::Error) -> Error<T::Error>>,
        BoxFuture<'static, Result<T::Output, Error<T::Error>>>,
    >;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        lock(&self.inner).listen_on(id, addr).map_err(|error| error.map(Error::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        lock(&self.inner).remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        if dial::has_name(&addr) {
            let (inner, config) = (self.inner.clone(), self.config.clone());
            return Ok(Either::Right(dial::dial(inner, config, addr, opts).boxed()));
        }
        // Here and now, so that an address that is not supported can still be given to another transport.
        match lock(&self.inner).dial(addr, opts) {
            Ok(dial) => Ok(Either::Left(dial.map_err(Error::Transport as fn(_) -> _))),
            Err(error) => Err(error.map(Error::Transport)),
        }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let mut inner = lock(&self.inner);
        Pin::new(&mut *inner).poll(cx).map(|event| {
            event.map_upgrade(|upgrade| upgrade.map_err(Error::Transport as fn(_) -> _)).map_err(Error::Transport)
        })
    }
}

/// A wrapped transport that panicked once is the business of whoever let it: here it is asked again.
fn lock<T>(inner: &Mutex<T>) -> MutexGuard<'_, T> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}
