use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use async_io::{Async, Timer};
use futures::{
    FutureExt, Stream,
    future::{self, Ready},
};
use libp2p_core::transport::{ListenerId, TransportEvent};

use super::{Config, TcpStream, address::to_multiaddr, port_reuse::ListenPorts};
use crate::listen_addresses::{Change, ListenAddresses, PAUSE};

type Event = TransportEvent<Ready<io::Result<TcpStream>>, io::Error>;

/// A listening socket, as a stream of its events. Ends after [`TransportEvent::ListenerClosed`].
pub(super) struct Listener {
    id: ListenerId,
    config: Config,
    state: State,
    /// Events to return first.
    events: VecDeque<Event>,
    ports: ListenPorts,
    waker: Option<Waker>,
}

enum State {
    Open(Open),
    Closed,
}

struct Open {
    socket: Async<std::net::TcpListener>,
    addresses: ListenAddresses,
    /// Pause after an error of the socket.
    accept_pause: Option<Timer>,
}

impl Listener {
    pub(super) fn new(id: ListenerId, config: &Config, addr: SocketAddr, ports: ListenPorts) -> io::Result<Self> {
        let socket = Async::new_nonblocking(config.listen(addr)?)?;
        let mut addresses = ListenAddresses::new(socket.get_ref().local_addr()?)?;
        let events = addresses.first().into_iter().map(|change| event(change, id, &ports)).collect();
        let state = State::Open(Open { socket, addresses, accept_pause: None });
        Ok(Self { id, config: config.clone(), state, events, ports, waker: None })
    }

    /// Closes the socket if this is the open listener `id`, and returns whether it was.
    pub(super) fn close(&mut self, id: ListenerId) -> bool {
        if self.id != id || matches!(self.state, State::Closed) {
            return false;
        }
        self.state = State::Closed;
        self.ports.remove_all(id);
        // Pending events about its addresses are no longer true.
        self.events.clear();
        self.events.push_back(TransportEvent::ListenerClosed { listener_id: id, reason: Ok(()) });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ports.remove_all(self.id);
    }
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        let State::Open(open) = &mut this.state else {
            return Poll::Ready(None);
        };
        // Addresses first: a connection must not be reported before its address.
        if let Poll::Ready(change) = open.addresses.poll(cx) {
            return Poll::Ready(Some(event(change, this.id, &this.ports)));
        }
        if let Poll::Ready(event) = open.poll_accept(this.id, &this.config, cx) {
            return Poll::Ready(Some(event));
        }
        // The watcher, the socket, a timer or `close` wakes the task.
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Open {
    fn poll_accept(&mut self, id: ListenerId, config: &Config, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(pause) = &mut self.accept_pause {
            std::task::ready!(pause.poll_unpin(cx));
            self.accept_pause = None;
        }
        match std::task::ready!(self.poll_connection(cx)) {
            Ok((stream, local, remote)) => {
                config.set_accepted(stream.get_ref());
                Poll::Ready(TransportEvent::Incoming {
                    listener_id: id,
                    upgrade: future::ok(TcpStream::new(stream)),
                    local_addr: to_multiaddr(local),
                    send_back_addr: to_multiaddr(remote),
                })
            }
            Err(error) => {
                if !is_of_one_connection(&error) {
                    self.accept_pause = Some(Timer::after(PAUSE));
                }
                Poll::Ready(TransportEvent::ListenerError { listener_id: id, error })
            }
        }
    }

    fn poll_connection(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        loop {
            match self.socket.get_ref().accept() {
                Ok((stream, remote)) => return Poll::Ready(connection(stream, remote)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.socket.poll_readable(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Returns the event of a change, after adding it to `ports`.
fn event(change: Change, id: ListenerId, ports: &ListenPorts) -> Event {
    match change {
        Change::New(addr) => {
            ports.add(id, addr);
            TransportEvent::NewAddress { listener_id: id, listen_addr: to_multiaddr(addr) }
        }
        Change::Expired(addr) => {
            ports.remove(id, addr);
            TransportEvent::AddressExpired { listener_id: id, listen_addr: to_multiaddr(addr) }
        }
        Change::Failed(error) => TransportEvent::ListenerError { listener_id: id, error },
    }
}

type Connection = (Async<std::net::TcpStream>, SocketAddr, SocketAddr);

fn connection(stream: std::net::TcpStream, remote: SocketAddr) -> io::Result<Connection> {
    // Some systems do not know the local address any more once the remote has disconnected.
    let local = stream.local_addr().map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
    Ok((Async::new(stream)?, local, remote))
}

/// Returns whether an error of `accept` concerns a waiting connection that has ended, and not the listener. Linux also
/// reports network errors of that one remote. There is no pause after such an error: otherwise a peer that aborts
/// connections could keep others out.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::Wake,
        time::Duration,
    };

    use futures::{FutureExt, StreamExt};
    use libp2p_core::Multiaddr;

    use super::*;

    fn next(listener: &mut Listener) -> Event {
        let deadline = Timer::after(Duration::from_secs(30));
        match async_io::block_on(future::select(listener.next(), deadline)) {
            future::Either::Left((event, _)) => event.unwrap(),
            future::Either::Right(_) => panic!("no event"),
        }
    }

    fn next_address(listener: &mut Listener) -> Multiaddr {
        next(listener).into_new_address().unwrap()
    }

    #[test]
    fn a_removed_address_expires_and_its_port_is_not_reused() {
        let any = "0.0.0.0:0".parse().unwrap();
        let mut listener = Listener::new(ListenerId::next(), &Config::default(), any, ListenPorts::default()).unwrap();
        let (id, ports) = (listener.id, listener.ports.clone());
        let State::Open(open) = &listener.state else { panic!("it is closed") };
        let port = open.socket.get_ref().local_addr().unwrap().port();
        let loopback = SocketAddr::new([127, 0, 0, 1].into(), port);
        while next_address(&mut listener) != to_multiaddr(loopback) {}
        let remote = "127.0.0.1:1".parse().unwrap();
        assert_eq!(ports.local_end(remote).map(|local| local.port()), Some(port));
        let State::Open(open) = &mut listener.state else { panic!("it is closed") };
        let expired = event(open.addresses.expire(loopback).unwrap(), id, &ports);
        assert_eq!(expired.into_address_expired(), Some(to_multiaddr(loopback)));
        assert_eq!(ports.local_end(remote), None);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn closing_wakes_the_task() {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let id = ListenerId::next();
        let mut listener = Listener::new(id, &Config::default(), loopback, ListenPorts::default()).unwrap();
        next_address(&mut listener);
        let woken = Arc::new(Woken::default());
        assert!(listener.poll_next_unpin(&mut Context::from_waker(&woken.clone().into())).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst));
        listener.close(id);
        assert!(woken.0.load(Ordering::SeqCst));
    }

    #[test]
    fn closing_discards_pending_events() {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let id = ListenerId::next();
        let mut listener = Listener::new(id, &Config::default(), loopback, ListenPorts::default()).unwrap();
        assert!(!listener.close(ListenerId::next()));
        assert!(listener.close(id));
        assert!(!listener.close(id));
        assert!(matches!(next(&mut listener), TransportEvent::ListenerClosed { reason: Ok(()), .. }));
        assert!(listener.next().now_or_never().unwrap().is_none());
    }

    #[test]
    fn an_aborted_connection_does_not_delay_the_next() {
        assert!(is_of_one_connection(&io::ErrorKind::ConnectionAborted.into()));
        assert!(!is_of_one_connection(&io::Error::from_raw_os_error(24)));
    }
}
