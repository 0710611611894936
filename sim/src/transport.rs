//! The transport of a host.

use std::{
    collections::VecDeque,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, channel::oneshot, future::BoxFuture};
use futures_timer::schedule;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};

use crate::{
    connection::{Connection, Muxer},
    network::{HostId, Knock, Network, multiaddr, nanos, parse},
};

/// One-way trips of a dial, as with TCP, noise and the lazy choice of protocols: TCP's three packets, of which the third
/// carries noise's first message, and its answer. The dialler can then send, and the listener after half a round trip
/// more.
const TRIPS_OF_DIALLER: u32 = 4;
const TRIPS_OF_LISTENER: u32 = 5;

type Upgraded = io::Result<(PeerId, Muxer)>;
type Event = TransportEvent<BoxFuture<'static, Upgraded>, io::Error>;

/// Transport between simulated hosts, with addresses of TCP. Its connections are authenticated and multiplexed.
pub(crate) struct SimTransport {
    network: Network,
    host: HostId,
    peer: PeerId,
    inbox: Listener,
    listening: Vec<(ListenerId, u16)>,
}

/// Events for a transport.
#[derive(Clone)]
pub(crate) struct Listener(Arc<Mutex<Inbox>>);

struct Inbox {
    peer: PeerId,
    events: VecDeque<Event>,
    waker: Option<Waker>,
    by_port: Vec<(u16, ListenerId)>,
}

impl Listener {
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that the host has another address.
    pub(crate) fn moved(&self, port: u16, old: &Multiaddr, new: &Multiaddr) {
        let Some(listener_id) = self.id_of(port) else { return };
        self.push(TransportEvent::AddressExpired { listener_id, listen_addr: old.clone() });
        self.push(TransportEvent::NewAddress { listener_id, listen_addr: new.clone() });
    }

    fn id_of(&self, port: u16) -> Option<ListenerId> {
        self.lock().by_port.iter().rev().find(|(at, _)| *at == port).map(|(_, id)| *id)
    }

    fn push(&self, event: Event) {
        let mut inbox = self.lock();
        inbox.events.push_back(event);
        let waker = inbox.waker.take();
        drop(inbox);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl SimTransport {
    pub(crate) fn new(network: Network, host: HostId, peer: PeerId) -> Self {
        let inbox = Inbox { peer, events: VecDeque::new(), waker: None, by_port: Vec::new() };
        Self { network, host, peer, inbox: Listener(Arc::new(Mutex::new(inbox))), listening: Vec::new() }
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        for (_, port) in &self.listening {
            self.network.stop_listening(self.host, *port, &self.inbox);
        }
    }
}

impl Transport for SimTransport {
    type Output = (PeerId, Muxer);
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, Upgraded>;
    type Dial = BoxFuture<'static, Upgraded>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some((ip, port)) = parse(&address) else { return Err(TransportError::MultiaddrNotSupported(address)) };
        let own = self.network.address(self.host);
        if ip != own && ip != Ipv4Addr::UNSPECIFIED {
            return Err(TransportError::Other(io::ErrorKind::AddrNotAvailable.into()));
        }
        let Some(port) = self.network.listen(self.host, port, self.inbox.clone()) else {
            return Err(TransportError::Other(io::ErrorKind::AddrInUse.into()));
        };
        self.listening.push((id, port));
        self.inbox.lock().by_port.push((port, id));
        self.inbox.push(TransportEvent::NewAddress { listener_id: id, listen_addr: multiaddr(own, port) });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listening.iter().position(|(listener, _)| *listener == id) else { return false };
        let (_, port) = self.listening.remove(at);
        self.network.stop_listening(self.host, port, &self.inbox);
        self.inbox.push(TransportEvent::ListenerClosed { listener_id: id, reason: Ok(()) });
        true
    }

    fn dial(&mut self, address: Multiaddr, _opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some((ip, port)) = parse(&address) else { return Err(TransportError::MultiaddrNotSupported(address)) };
        let (network, from, peer) = (self.network.clone(), self.host, self.peer);
        network.count_dial(from);
        let (done, dialled) = oneshot::channel();
        let to = network.host_at(ip);
        let one_way = to.map_or(Duration::ZERO, |to| network.one_way(from, to));
        call_in(one_way, move || knock(&network, (from, peer), (ip, port), one_way, done));
        Ok(answer(dialled).boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        let mut inbox = self.inbox.lock();
        match inbox.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                inbox.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Waits for the end of a handshake. If nothing comes back, the transport's timeout ends it.
async fn answer(handshake: oneshot::Receiver<Upgraded>) -> Upgraded {
    match handshake.await {
        Ok(upgraded) => upgraded,
        Err(oneshot::Canceled) => std::future::pending().await,
    }
}

/// A packet that begins a connection has arrived.
fn knock(
    network: &Network,
    (from, dialler): (HostId, PeerId),
    (ip, port): (Ipv4Addr, u16),
    one_way: Duration,
    done: oneshot::Sender<Upgraded>,
) {
    let (to, listener) = match network.knock(from, ip, port) {
        Knock::Silence => return,
        Knock::Refused => {
            return call_in(one_way, move || {
                let _dropped = done.send(Err(io::ErrorKind::ConnectionRefused.into()));
            });
        }
        Knock::Answered(to, listener) => (to, listener),
    };
    let (accept, accepted) = oneshot::channel();
    let Some(listener_id) = listener.id_of(port) else { return };
    let peer = listener.lock().peer;
    let handshake = Arc::new(Mutex::new(Handshake::default()));
    listener.push(TransportEvent::Incoming {
        listener_id,
        upgrade: answer_as_listener(Arc::clone(&handshake), accepted).boxed(),
        local_addr: multiaddr(network.address(to), port),
        send_back_addr: multiaddr(network.address(from), network.new_port()),
    });
    let network = network.clone();
    // What was sent to another address, or by a host without power, does not arrive.
    let hosts = [(from, network.address(from)), (to, ip)];
    let complete = move || {
        if !network.still_reach(hosts) {
            return;
        }
        if accept.is_canceled() {
            let _dropped = done.send(Err(io::ErrorKind::ConnectionReset.into()));
            return;
        }
        let connection = Connection::new(&network, [from, to]);
        let _dropped = done.send(Ok((peer, Muxer::new(Arc::clone(&connection), 0))));
        call_in(one_way * (TRIPS_OF_LISTENER - TRIPS_OF_DIALLER), move || {
            if let Err(unaccepted) = accept.send(Ok((dialler, Muxer::new(connection, 1)))) {
                // Closes the connection.
                drop(unaccepted);
            }
        });
    };
    // One trip has brought the dialler's first packet.
    call_in(one_way * (TRIPS_OF_DIALLER - 1), move || Handshake::due(&handshake, complete));
}

/// Handshake of an incoming connection. It needs the listener's process: a frozen one, or one that has no room for the
/// connection, answers nothing.
#[derive(Default)]
struct Handshake {
    is_polled: bool,
    /// Completes the handshake. Present when it has taken its time.
    complete: Option<Box<dyn FnOnce() + Send>>,
}

impl Handshake {
    fn due(this: &Mutex<Self>, complete: impl FnOnce() + Send + 'static) {
        let mut handshake = this.lock().unwrap_or_else(PoisonError::into_inner);
        if handshake.is_polled {
            drop(handshake);
            complete();
        } else {
            handshake.complete = Some(Box::new(complete));
        }
    }

    fn polled(this: &Mutex<Self>) {
        let mut handshake = this.lock().unwrap_or_else(PoisonError::into_inner);
        handshake.is_polled = true;
        let complete = handshake.complete.take();
        drop(handshake);
        complete.into_iter().for_each(|complete| complete());
    }
}

/// Takes part in a handshake from the first poll on.
async fn answer_as_listener(handshake: Arc<Mutex<Handshake>>, accepted: oneshot::Receiver<Upgraded>) -> Upgraded {
    Handshake::polled(&handshake);
    answer(accepted).await
}

/// Begins a connection and does not go on with it.
pub(crate) fn half_open(network: &Network, from: HostId, address: &Multiaddr) {
    let Some((ip, port)) = parse(address) else { return };
    network.count_dial(from);
    let one_way = network.host_at(ip).map_or(Duration::ZERO, |to| network.one_way(from, to));
    let network = network.clone();
    call_in(one_way, move || {
        let Knock::Answered(to, listener) = network.knock(from, ip, port) else { return };
        let Some(listener_id) = listener.id_of(port) else { return };
        listener.push(TransportEvent::Incoming {
            listener_id,
            upgrade: std::future::pending().boxed(),
            local_addr: multiaddr(network.address(to), port),
            send_back_addr: multiaddr(network.address(from), network.new_port()),
        });
    });
}

fn call_in(span: Duration, call: impl FnOnce() + 'static) {
    schedule::call_at(schedule::now().unwrap_or_default().saturating_add(nanos(span)), call);
}
