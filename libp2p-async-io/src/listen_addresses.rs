//! Addresses at which a bound socket can be reached, as those of the machine change.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::Timer;
use futures::{FutureExt, StreamExt};
use if_watch::{IfEvent, smol::IfWatcher};

/// Pause of a listener after an error. Such errors (too many open files, no memory) last for a while, and to retry at
/// once would use a whole core. libp2p's own transport has the same pause.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Addresses of a listening socket.
pub(crate) struct ListenAddresses {
    local: SocketAddr,
    /// Announced addresses that have not expired.
    announced: BTreeSet<SocketAddr>,
    interfaces: Interfaces,
}

/// Source of the addresses of a wildcard socket.
enum Interfaces {
    /// The socket is bound to one address.
    One,
    Watched(Box<IfWatcher>),
    /// The watcher has failed and cannot recover. A new one is started after the pause.
    Lost(Timer),
}

/// Change of the addresses.
#[derive(Debug)]
pub(crate) enum Change {
    New(SocketAddr),
    Expired(SocketAddr),
    /// The machine's addresses cannot be watched at the moment.
    Failed(io::Error),
}

impl ListenAddresses {
    /// Returns the addresses of a socket that is bound to `local`.
    pub(crate) fn new(local: SocketAddr) -> io::Result<Self> {
        let interfaces = if local.ip().is_unspecified() {
            Interfaces::Watched(Box::new(IfWatcher::new()?))
        } else {
            Interfaces::One
        };
        Ok(Self { local, announced: BTreeSet::new(), interfaces })
    }

    /// Returns the address of a socket that is bound to a single one, the first time it is called.
    pub(crate) fn first(&mut self) -> Option<Change> {
        match self.interfaces {
            Interfaces::One => self.announce(self.local),
            Interfaces::Watched(_) | Interfaces::Lost(_) => None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        loop {
            let failed = match &mut self.interfaces {
                Interfaces::One => return Poll::Pending,
                Interfaces::Lost(pause) => {
                    ready!(pause.poll_unpin(cx));
                    match IfWatcher::new() {
                        Ok(watcher) => {
                            // It begins with all addresses. Announced ones are skipped.
                            self.interfaces = Interfaces::Watched(Box::new(watcher));
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Interfaces::Watched(watcher) => {
                    let change = match ready!(watcher.poll_next_unpin(cx)) {
                        Some(Ok(IfEvent::Up(net))) => self.announce(SocketAddr::new(net.addr(), self.local.port())),
                        Some(Ok(IfEvent::Down(net))) => self.expire(SocketAddr::new(net.addr(), self.local.port())),
                        Some(Err(error)) => Some(Change::Failed(error)),
                        None => Some(Change::Failed(io::ErrorKind::BrokenPipe.into())),
                    };
                    match change {
                        None => continue,
                        Some(Change::Failed(error)) => error,
                        Some(change) => return Poll::Ready(change),
                    }
                }
            };
            self.interfaces = Interfaces::Lost(Timer::after(PAUSE));
            return Poll::Ready(Change::Failed(failed));
        }
    }

    fn announce(&mut self, addr: SocketAddr) -> Option<Change> {
        (addr.is_ipv4() == self.local.is_ipv4() && self.announced.insert(addr)).then_some(Change::New(addr))
    }

    /// Removes an address that the machine no longer has.
    pub(crate) fn expire(&mut self, addr: SocketAddr) -> Option<Change> {
        self.announced.remove(&addr).then_some(Change::Expired(addr))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::future;

    use super::*;

    fn next(addresses: &mut ListenAddresses) -> SocketAddr {
        let deadline = Timer::after(Duration::from_secs(30));
        match async_io::block_on(future::select(poll_fn(|cx| addresses.poll(cx)), deadline)) {
            future::Either::Left((Change::New(addr), _)) => addr,
            future::Either::Left((other, _)) => panic!("instead of an address: {other:?}"),
            future::Either::Right(_) => panic!("no change"),
        }
    }

    fn wildcard() -> (ListenAddresses, SocketAddr) {
        (ListenAddresses::new("0.0.0.0:7".parse().unwrap()).unwrap(), "127.0.0.1:7".parse().unwrap())
    }

    #[test]
    fn a_single_address_is_known_at_once_and_stays() {
        let mut addresses = ListenAddresses::new("127.0.0.1:7".parse().unwrap()).unwrap();
        assert!(matches!(addresses.first(), Some(Change::New(addr)) if addr.port() == 7));
        assert!(addresses.first().is_none());
        assert!(poll_fn(|cx| addresses.poll(cx)).now_or_never().is_none());
    }

    #[test]
    fn a_removed_address_expires_once() {
        let (mut addresses, loopback) = wildcard();
        assert!(addresses.first().is_none());
        while next(&mut addresses) != loopback {}
        assert!(matches!(addresses.expire(loopback), Some(Change::Expired(addr)) if addr == loopback));
        assert!(addresses.expire(loopback).is_none());
    }

    #[test]
    fn a_failed_watcher_is_replaced_and_no_address_is_announced_twice() {
        let (mut addresses, loopback) = wildcard();
        while next(&mut addresses) != loopback {}
        let known = addresses.announced.clone();
        // The loopback address was removed and added again without a watcher.
        addresses.expire(loopback).unwrap();
        addresses.interfaces = Interfaces::Lost(Timer::after(Duration::ZERO));
        loop {
            let addr = next(&mut addresses);
            if addr == loopback {
                break;
            }
            assert!(!known.contains(&addr), "{addr} came twice");
        }
    }
}
