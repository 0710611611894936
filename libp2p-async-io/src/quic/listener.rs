use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, Stream, future::BoxFuture};
use libp2p_core::{
    PeerId,
    transport::{ListenerId, TransportEvent},
};
use quinn::{Endpoint, Incoming};

use super::{Connection, Error, address::to_multiaddr, config::Parts, connection::handshake, endpoint, runtime::Tasks};
use crate::listen_addresses::{Change, ListenAddresses};

pub(super) type Upgrade = BoxFuture<'static, Result<(PeerId, Connection), Error>>;

type Event = TransportEvent<Upgrade, Error>;

/// A listening socket, as a stream of its events. Ends after [`TransportEvent::ListenerClosed`].
pub(super) struct Listener {
    id: ListenerId,
    state: State,
    /// Events to return first.
    events: VecDeque<Event>,
    waker: Option<Waker>,
}

enum State {
    Open(Box<Open>),
    Closed,
}

struct Open {
    endpoint: Endpoint,
    local: SocketAddr,
    addresses: ListenAddresses,
    /// The next connection.
    accept: BoxFuture<'static, Option<Incoming>>,
    handshake_timeout: Duration,
}

impl Listener {
    pub(super) fn new(id: ListenerId, config: &Parts, addr: SocketAddr, tasks: Arc<Tasks>) -> io::Result<Self> {
        let endpoint = endpoint::open(config, Some(config.server.clone()), addr, tasks)?;
        let local = endpoint.local_addr()?;
        let mut addresses = ListenAddresses::new(local)?;
        let events = addresses.first().into_iter().map(|change| event(change, id)).collect();
        let accept = accept(&endpoint);
        let open = Open { endpoint, local, addresses, accept, handshake_timeout: config.handshake_timeout };
        Ok(Self { id, state: State::Open(Box::new(open)), events, waker: None })
    }

    /// Returns the open socket if it can reach `remote`. The IP version has to be the same, and either both addresses
    /// are loopback addresses or neither is.
    pub(super) fn endpoint_to(&self, remote: SocketAddr) -> Option<&Endpoint> {
        let State::Open(open) = &self.state else { return None };
        let local = open.local.ip();
        let fits = local.is_ipv4() == remote.is_ipv4()
            && (local.is_unspecified() || local.is_loopback() == remote.ip().is_loopback());
        fits.then_some(&open.endpoint)
    }

    /// Refuses further connections if this is the open listener `id`, and returns whether it was.
    pub(super) fn close(&mut self, id: ListenerId) -> bool {
        if self.id != id || matches!(self.state, State::Closed) {
            return false;
        }
        // Pending events about its addresses are no longer true.
        self.events.clear();
        self.end(Ok(()));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    fn end(&mut self, reason: Result<(), Error>) {
        self.state = State::Closed;
        self.events.push_back(TransportEvent::ListenerClosed { listener_id: self.id, reason });
    }
}

impl Drop for Open {
    /// The socket stays open while it has connections. New ones are refused.
    fn drop(&mut self) {
        self.endpoint.set_server_config(None);
        while let Some(Some(incoming)) = self.endpoint.accept().now_or_never() {
            incoming.refuse();
        }
    }
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            let State::Open(open) = &mut this.state else {
                return Poll::Ready(None);
            };
            // Addresses first: a connection must not be reported before its address.
            if let Poll::Ready(change) = open.addresses.poll(cx) {
                return Poll::Ready(Some(event(change, this.id)));
            }
            match open.accept.poll_unpin(cx) {
                Poll::Ready(Some(incoming)) => {
                    open.accept = accept(&open.endpoint);
                    return Poll::Ready(Some(open.incoming(incoming, this.id)));
                }
                Poll::Ready(None) => this.end(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())),
                Poll::Pending => {
                    // The watcher, its timer, the socket or `close` wakes the task.
                    this.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Open {
    fn incoming(&self, incoming: Incoming, id: ListenerId) -> Event {
        // Not every system tells to which of its addresses a packet was sent.
        let local_ip = incoming.local_ip().unwrap_or(self.local.ip());
        let timeout = self.handshake_timeout;
        TransportEvent::Incoming {
            listener_id: id,
            local_addr: to_multiaddr(SocketAddr::new(local_ip, self.local.port())),
            send_back_addr: to_multiaddr(incoming.remote_address()),
            // The handshake starts when the upgrade is polled. If it is dropped, the connection is refused.
            upgrade: async move {
                let connecting = incoming.accept().map_err(Error::handshake)?;
                handshake(connecting, timeout).await
            }
            .boxed(),
        }
    }
}

fn accept(endpoint: &Endpoint) -> BoxFuture<'static, Option<Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

fn event(change: Change, id: ListenerId) -> Event {
    match change {
        Change::New(addr) => TransportEvent::NewAddress { listener_id: id, listen_addr: to_multiaddr(addr) },
        Change::Expired(addr) => TransportEvent::AddressExpired { listener_id: id, listen_addr: to_multiaddr(addr) },
        Change::Failed(error) => TransportEvent::ListenerError { listener_id: id, error: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use libp2p_identity::Keypair;

    use super::*;
    use crate::quic::Config;

    fn reaches(local: &str, remote: &str) -> bool {
        let config = Config::new(&Keypair::generate_ed25519()).unwrap().into_parts();
        let local = local.parse().unwrap();
        let listener = Listener::new(ListenerId::next(), &config, local, Arc::default()).unwrap();
        listener.endpoint_to(remote.parse().unwrap()).is_some()
    }

    #[test]
    fn a_socket_fits_the_ip_version_and_loopback() {
        assert!(reaches("127.0.0.1:0", "127.0.0.2:80"));
        assert!(!reaches("127.0.0.1:0", "198.51.100.1:80"));
        assert!(!reaches("127.0.0.1:0", "[::1]:80"));
        assert!(reaches("0.0.0.0:0", "127.0.0.2:80"));
        assert!(reaches("0.0.0.0:0", "198.51.100.1:80"));
        assert!(!reaches("0.0.0.0:0", "[2001:db8::1]:80"));
    }

    #[test]
    fn a_closed_listener_reaches_no_remote_and_discards_pending_events() {
        let config = Config::new(&Keypair::generate_ed25519()).unwrap().into_parts();
        let (id, local) = (ListenerId::next(), "127.0.0.1:0".parse().unwrap());
        let mut listener = Listener::new(id, &config, local, Arc::default()).unwrap();
        assert!(!listener.close(ListenerId::next()));
        assert!(listener.close(id));
        assert!(!listener.close(id));
        assert!(listener.endpoint_to("127.0.0.2:80".parse().unwrap()).is_none());
        let closed = listener.next().now_or_never().flatten().unwrap();
        assert!(matches!(closed, TransportEvent::ListenerClosed { reason: Ok(()), .. }));
        assert!(listener.next().now_or_never().unwrap().is_none());
    }
}
