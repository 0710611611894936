//! Names in addresses: `/dns`, `/dns4`, `/dns6` and `/dnsaddr`.
//!
//! [`Transport`] wraps another transport. When an address with a name is dialled, the name is looked up, and the
//! wrapped transport dials the resulting addresses one after another until one works. Addresses without a name are
//! passed to the wrapped transport unchanged.
//!
//! - `/dns`, `/dns4` and `/dns6` are host names. By default the system's resolver looks them up (`getaddrinfo`: the
//!   hosts file, DNS, multicast DNS, and so on), on a thread for blocking calls, and the addresses are dialled in the
//!   system's order.
//! - `/dnsaddr/<name>` stands for complete addresses, which are stored as TXT records of `_dnsaddr.<name>` and may
//!   contain names themselves. If something follows the name, such as `/p2p/<peer>`, only addresses with the same
//!   ending are used.
//!
//! The owner of a name decides what is looked up and dialled. One dial is therefore limited to 32 lookups, to 16
//! addresses from each lookup, and to 16 dials of the wrapped transport. Addresses that the wrapped transport rejects
//! at once do not count as dials.

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

/// Choice of the resolver for names, and the timeout and retries of lookups by name servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    name_servers: Vec<SocketAddr>,
    timeout: Option<Duration>,
    retries: Option<usize>,
}

impl Config {
    /// Uses the system's resolver for host names and, for `/dnsaddr`, the name servers in the system's settings (on
    /// Linux and the BSDs those in `/etc/resolv.conf`). The list of name servers is read again for each dial that needs
    /// it, so that the program needs no restart when the network changes.
    pub fn system() -> Self {
        Self { name_servers: Vec::new(), timeout: None, retries: None }
    }

    /// Uses these name servers for all names, `/dnsaddr` included, over UDP and, for long responses, TCP. The system's
    /// resolver and hosts file are not used. If `servers` is empty, this is the same as [`Config::system`].
    pub fn name_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { name_servers: servers.into_iter().collect(), ..Self::system() }
    }

    /// Sets the time limit of one request to one name server. Default: 5 seconds, or with [`Config::system`] the
    /// system's setting. Does not apply to lookups by the system's resolver.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the number of further attempts after one in which no name server gave a usable response. Default: 2, or
    /// with [`Config::system`] the system's setting. Does not apply to lookups by the system's resolver.
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

/// Transport that looks up the names in an address before the wrapped transport dials it: see the [module](self).
///
/// A dial has no time limit in total: wrap the finished transport in a
/// [`TransportTimeout`](libp2p_core::transport::timeout::TransportTimeout). Dropping a dial cancels its lookups; a call
/// to the system's resolver, or a read of the list of name servers, that is already running finishes on its thread.
///
/// ```
/// use std::time::Duration;
///
/// use libp2p_async_io::{dns, tcp};
///
/// // The system's resolver:
/// let transport = dns::Transport::system(tcp::Transport::default());
/// // Name servers of your own:
/// let config = dns::Config::name_servers(["192.0.2.53:53".parse()?]).timeout(Duration::from_secs(2));
/// let transport = dns::Transport::new(tcp::Transport::default(), config);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Transport<T> {
    /// Shared with the dials, which use it after their lookups.
    inner: Arc<Mutex<T>>,
    config: Config,
}

impl<T> Transport<T> {
    /// Wraps `inner`. Nothing is read or looked up before an address with a name is dialled.
    pub fn new(inner: T, config: Config) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), config }
    }

    /// Wraps `inner`, with [`Config::system`].
    pub fn system(inner: T) -> Self {
        Self::new(inner, Config::system())
    }
}

/// Error of [`Transport`]. The dial of an address with a name fails with [`Error::Dial`], which contains errors of the
/// other variants.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// Error of the wrapped transport: of a listener, an incoming connection, or the dial of an address without a name
    /// or from a lookup.
    #[error(transparent)]
    Transport(E),
    /// A name could not be looked up.
    #[error("cannot look up {name}: {source}")]
    Resolve {
        /// Host name, or name of the TXT records.
        name: String,
        /// Cause.
        source: ResolveError,
    },
    /// An address that the lookups of a dial led to is not supported by the wrapped transport, such as a QUIC address
    /// by TCP.
    #[error("lookup returned {0}, which is not supported")]
    MultiaddrNotSupported(Multiaddr),
    /// The names lead to more than 32 lookups, perhaps in a cycle. Names beyond that were skipped; the addresses that
    /// were found have been dialled, up to the limit of [`TooManyDials`](Self::TooManyDials).
    #[error("more than {} lookups", dial::MAX_LOOKUPS)]
    TooManyLookups,
    /// Sixteen dials have failed, and the names lead to further addresses, which were not tried. Addresses that the
    /// wrapped transport rejected at once are not among the sixteen.
    #[error("more than {} addresses", dial::MAX_DIALS)]
    TooManyDials,
    /// No address could be reached that the names lead to. Contains the errors of the lookups and dials that failed, in
    /// their order, then the limits that were exceeded. Empty if all lookups succeeded, but no TXT record of the
    /// `/dnsaddr` contains an address that fits the dialled one.
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
        // Synchronously, so that an unsupported address can still be passed to another transport.
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

/// Locks the wrapped transport, even if it has panicked before.
fn lock<T>(inner: &Mutex<T>) -> MutexGuard<'_, T> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}
