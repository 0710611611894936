//! Where a bound socket can be reached, as the machine's addresses come and go.

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

/// How long a listener leaves alone what has failed. What fails here (too many open files, no memory) stays so for a
/// while, and trying at once would take a whole core; libp2p's own transport waits as long.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// The addresses of one listening socket.
pub(crate) struct ListenAddresses {
    local: SocketAddr,
    /// Announced, and not expired since.
    announced: BTreeSet<SocketAddr>,
    interfaces: Interfaces,
}

/// Which addresses of the machine a wildcard socket can be reached at.
enum Interfaces {
    /// The socket is bound to one address.
    One,
    Watched(Box<IfWatcher>),
    /// The watcher failed, which it does for good. Another one is started when the time is over.
    Lost(Timer),
}

/// What a listener has to tell about its addresses.
#[derive(Debug)]
pub(crate) enum Change {
    New(SocketAddr),
    Expired(SocketAddr),
    /// The machine's addresses cannot be watched for a moment.
    Failed(io::Error),
}

impl ListenAddresses {
    /// `local` is what the socket is bound to.
    pub(crate) fn new(local: SocketAddr) -> io::Result<Self> {
        let interfaces = if local.ip().is_unspecified() {
            Interfaces::Watched(Box::new(IfWatcher::new()?))
        } else {
            Interfaces::One
        };
        Ok(Self { local, announced: BTreeSet::new(), interfaces })
    }

    /// What can be told at once: the address of a socket that is bound to one.
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
                            // It begins with all addresses there are; those that we know are passed over.
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

    /// The address has gone from the machine.
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
    fn one_address_is_known_at_once_and_stays() {
        let mut addresses = ListenAddresses::new("127.0.0.1:7".parse().unwrap()).unwrap();
        assert!(matches!(addresses.first(), Some(Change::New(addr)) if addr.port() == 7));
        assert!(addresses.first().is_none());
        assert!(poll_fn(|cx| addresses.poll(cx)).now_or_never().is_none());
    }

    #[test]
    fn an_address_that_goes_is_expired_once() {
        let (mut addresses, loopback) = wildcard();
        assert!(addresses.first().is_none());
        while next(&mut addresses) != loopback {}
        assert!(matches!(addresses.expire(loopback), Some(Change::Expired(addr)) if addr == loopback));
        assert!(addresses.expire(loopback).is_none());
    }

    #[test]
    fn a_watcher_that_failed_is_replaced_and_nothing_is_announced_twice() {
        let (mut addresses, loopback) = wildcard();
        while next(&mut addresses) != loopback {}
        let known = addresses.announced.clone();
        // While nobody watched, the loopback address went and came back.
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
