//! Limits of half-open connections: incoming ones whose handshakes are not complete.
//!
//! A behaviour can only deny a new connection, so that a remote with silent connections shuts newcomers out for the
//! whole handshake timeout. Here, in the transport, the oldest half-open connection gives way instead. Honest
//! handshakes take some round trips, and are complete before they are the oldest.

use std::{
    collections::{BTreeMap, btree_map},
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use libp2p::{
    Multiaddr, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    multiaddr::Protocol,
};
use thiserror::Error;

use super::transport::BoxedTransport;

type Upgrade = <BoxedTransport as Transport>::ListenerUpgrade;
type Output = <BoxedTransport as Transport>::Output;

/// Maximum numbers of half-open connections. Zero counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HalfOpenLimits {
    pub(super) total: usize,
    pub(super) per_address: usize,
}

/// Half-open connections of a node: incoming connections whose handshakes are not complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HalfOpenStats {
    /// Number of half-open connections at present.
    pub current: usize,
    /// Number of half-open connections that were closed for newer ones since the start of the node.
    pub evicted: u64,
}

/// Error of an incoming connection that was closed for a newer one before its handshakes were complete.
#[derive(Debug, Error)]
#[error("half-open connection evicted: too many connections without a complete handshake")]
struct EvictedError;

/// Shared handle to the half-open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct HalfOpenHandle(Arc<Mutex<State>>);

impl HalfOpenHandle {
    pub(super) fn stats(&self) -> HalfOpenStats {
        let state = self.lock();
        HalfOpenStats { current: state.pending.len(), evicted: state.evicted }
    }

    /// Locks the state. It is consistent even after a panic, because each change is made under one lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport whose half-open incoming connections are limited.
#[derive(Debug)]
pub(super) struct HalfOpenTransport {
    inner: BoxedTransport,
    limits: HalfOpenLimits,
    handle: HalfOpenHandle,
}

impl HalfOpenTransport {
    pub(super) fn new(inner: BoxedTransport, limits: HalfOpenLimits) -> Self {
        let limits = HalfOpenLimits { total: limits.total.max(1), per_address: limits.per_address.max(1) };
        Self { inner, limits, handle: HalfOpenHandle::default() }
    }

    pub(super) fn handle(&self) -> HalfOpenHandle {
        self.handle.clone()
    }

    /// Admits a connection, and evicts another if there are too many.
    fn admit(&self, upgrade: Upgrade, remote: &Multiaddr) -> HalfOpen {
        let (abort, registration) = AbortHandle::new_pair();
        let (id, evicted) = self.handle.lock().admit(Source::of(remote), abort, self.limits);
        if let Some(evicted) = evicted {
            tracing::debug!(%remote, "evicting a half-open connection for a newer one");
            // Wakes a task, so that the lock must not be held.
            evicted.abort();
        }
        HalfOpen { upgrade: Abortable::new(upgrade, registration), _ticket: Ticket { id, handle: self.handle.clone() } }
    }
}

impl Transport for HalfOpenTransport {
    type Output = Output;
    type Error = io::Error;
    type ListenerUpgrade = HalfOpen;
    type Dial = <BoxedTransport as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<HalfOpen, io::Error>> {
        // Evicted connections keep their sockets until their tasks run. In between, the others wait with the operating
        // system, so that there are never more than twice the limit.
        if !self.handle.lock().poll_room(self.limits, cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll(cx).map(|event| match event {
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                let upgrade = self.admit(upgrade, &send_back_addr);
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }
            }
            TransportEvent::NewAddress { listener_id, listen_addr } => {
                TransportEvent::NewAddress { listener_id, listen_addr }
            }
            TransportEvent::AddressExpired { listener_id, listen_addr } => {
                TransportEvent::AddressExpired { listener_id, listen_addr }
            }
            TransportEvent::ListenerClosed { listener_id, reason } => {
                TransportEvent::ListenerClosed { listener_id, reason }
            }
            TransportEvent::ListenerError { listener_id, error } => {
                TransportEvent::ListenerError { listener_id, error }
            }
        })
    }
}

/// The handshakes of an incoming connection. It ends with an error as soon as it is evicted.
pub(super) struct HalfOpen {
    /// Dropped before the ticket, so that each ticket stands for an open socket.
    upgrade: Abortable<Upgrade>,
    _ticket: Ticket,
}

impl Future for HalfOpen {
    type Output = io::Result<Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.upgrade.poll_unpin(cx).map(|ended| ended.unwrap_or_else(|_| Err(io::Error::other(EvictedError))))
    }
}

/// Registration of a half-open connection, or of an evicted one whose socket is still open.
#[derive(Debug)]
struct Ticket {
    id: u64,
    handle: HalfOpenHandle,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let waiting = self.handle.lock().leave(self.id);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// Origin of connections. All addresses of an origin belong to one party.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Ip4(Ipv4Addr),
    /// First 64 bits of the address: the network of one customer.
    Ip6(u64),
    /// Not over IP.
    Other(Multiaddr),
}

impl Source {
    fn of(remote: &Multiaddr) -> Self {
        match remote.iter().next() {
            Some(Protocol::Ip4(address)) => Self::Ip4(address),
            Some(Protocol::Ip6(address)) => match address.to_ipv4_mapped() {
                Some(address) => Self::Ip4(address),
                None => Self::Ip6((address.to_bits() >> 64) as u64),
            },
            _ => Self::Other(remote.clone()),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Oldest first. Bounded by [`HalfOpenLimits::total`].
    pending: BTreeMap<u64, (Source, AbortHandle)>,
    /// Number of half-open connections of each source; never zero.
    counts: BTreeMap<Source, usize>,
    evicted: u64,
    /// Evicted connections whose sockets are not closed yet.
    closing: usize,
    /// The transport, if it waits for one of those.
    waiting: Option<Waker>,
}

impl State {
    /// Adds a connection. Returns its id, and the connection that has to end for it.
    fn admit(&mut self, source: Source, abort: AbortHandle, limits: HalfOpenLimits) -> (u64, Option<AbortHandle>) {
        let evicted = self.to_evict(&source, limits).and_then(|id| self.remove(id));
        if evicted.is_some() {
            self.evicted = self.evicted.saturating_add(1);
            self.closing += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        *self.counts.entry(source.clone()).or_default() += 1;
        self.pending.insert(id, (source, abort));
        (id, evicted)
    }

    /// Returns the connection that gives way to a new one: the oldest of the same source if that has reached its limit,
    /// otherwise the oldest of the source with the most connections.
    fn to_evict(&self, source: &Source, limits: HalfOpenLimits) -> Option<u64> {
        let oldest = |is_candidate: &dyn Fn(&Source) -> bool| {
            self.pending.iter().find(|(_, (source, _))| is_candidate(source)).map(|(id, _)| *id)
        };
        if self.counts.get(source).is_some_and(|count| *count >= limits.per_address) {
            oldest(&|other| other == source)
        } else if self.pending.len() >= limits.total {
            let most = self.counts.values().max();
            oldest(&|other| self.counts.get(other) == most)
        } else {
            None
        }
    }

    fn remove(&mut self, id: u64) -> Option<AbortHandle> {
        let (source, abort) = self.pending.remove(&id)?;
        if let btree_map::Entry::Occupied(mut count) = self.counts.entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(abort)
    }

    /// Notes that a connection is closed, or its handshakes are complete. Returns the transport if it waits for that.
    fn leave(&mut self, id: u64) -> Option<Waker> {
        if self.remove(id).is_some() {
            return None;
        }
        self.closing = self.closing.saturating_sub(1);
        self.waiting.take()
    }

    /// Returns `true` if a connection can be accepted; otherwise the task is woken when it can.
    fn poll_room(&mut self, limits: HalfOpenLimits, cx: &Context<'_>) -> bool {
        let has_room = self.closing < limits.total;
        self.waiting = (!has_room).then(|| cx.waker().clone());
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::pending, task};

    use futures::{channel::oneshot, future::BoxFuture};
    use libp2p::{PeerId, core::muxing::StreamMuxerBox};

    use super::*;

    /// A transport that only has what the test gives it.
    #[derive(Default)]
    struct Incoming(VecDeque<(Multiaddr, BoxFuture<'static, io::Result<Output>>)>);

    impl Transport for Incoming {
        type Output = (PeerId, StreamMuxerBox);
        type Error = io::Error;
        type ListenerUpgrade = BoxFuture<'static, io::Result<Output>>;
        type Dial = BoxFuture<'static, io::Result<Output>>;

        fn listen_on(&mut self, _: ListenerId, _: Multiaddr) -> Result<(), TransportError<io::Error>> {
            Ok(())
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
            Err(TransportError::MultiaddrNotSupported(address))
        }

        fn poll(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
            match self.0.pop_front() {
                Some((send_back_addr, upgrade)) => {
                    let (listener_id, local_addr) = (ListenerId::next(), Multiaddr::empty());
                    Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr })
                }
                None => Poll::Pending,
            }
        }
    }

    const LIMITS: HalfOpenLimits = HalfOpenLimits { total: 6, per_address: 4 };

    fn poll(transport: &mut HalfOpenTransport) -> Option<HalfOpen> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(transport).poll(&mut cx) {
            Poll::Ready(TransportEvent::Incoming { upgrade, .. }) => Some(upgrade),
            _ => None,
        }
    }

    /// Accepts silent connections from these addresses.
    fn accept(addresses: &[&str]) -> (HalfOpenTransport, Vec<HalfOpen>) {
        let silent = addresses.iter().map(|address| (address.parse().unwrap(), pending().boxed())).collect();
        let mut transport = HalfOpenTransport::new(Incoming(silent).boxed(), LIMITS);
        let mut accepted: Vec<HalfOpen> = Vec::new();
        while let Some(upgrade) = poll(&mut transport) {
            accepted.push(upgrade);
            // What is evicted has its task run before the next one is accepted.
            evicted(&mut accepted);
        }
        (transport, accepted)
    }

    fn is_evicted(upgrade: &mut HalfOpen) -> bool {
        match upgrade.now_or_never() {
            Some(Err(error)) => {
                assert!(error.get_ref().unwrap().is::<EvictedError>(), "{error}");
                true
            }
            Some(Ok(_)) => panic!("nothing ever comes"),
            None => false,
        }
    }

    /// Runs the tasks of the connections, and returns the positions of evicted ones.
    fn evicted(accepted: &mut [HalfOpen]) -> Vec<usize> {
        let evicted = accepted.iter_mut().map(is_evicted).enumerate();
        evicted.filter_map(|(at, evicted)| evicted.then_some(at)).collect()
    }

    const A: &str = "/ip4/127.0.0.1/tcp/1";
    const B: &str = "/ip4/127.0.0.2/tcp/1";

    #[test]
    fn below_the_limits_nothing_is_evicted() {
        let (transport, mut accepted) = accept(&[A, A, A, A, B, B]);
        assert_eq!(evicted(&mut accepted), []);
        assert_eq!(transport.handle().stats(), HalfOpenStats { current: 6, evicted: 0 });
    }

    #[test]
    fn the_oldest_of_an_address_gives_way_to_the_newest_of_it() {
        let (transport, mut accepted) = accept(&[B, A, A, A, A, A, A]);
        assert_eq!(evicted(&mut accepted), [1, 2]);
        assert_eq!(transport.handle().stats(), HalfOpenStats { current: 5, evicted: 2 });
    }

    #[test]
    fn in_total_the_oldest_of_the_address_with_most_gives_way() {
        let (_transport, mut accepted) = accept(&[B, A, A, A, B, A, "/ip4/127.0.0.3/tcp/1", "/ip4/127.0.0.4/tcp/1"]);
        assert_eq!(evicted(&mut accepted), [1, 2]);
        // Of as many each, it is the oldest of all.
        let each: Vec<String> = (1..9).map(|host| format!("/ip4/10.0.0.{host}/udp/1/quic-v1")).collect();
        let (_transport, mut accepted) = accept(&each.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(evicted(&mut accepted), [0, 1]);
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_address_is_an_ipv4_one() {
        let source = |text: &str| Source::of(&text.parse().unwrap());
        assert_eq!(source("/ip6/2001:db8:1:2::3/tcp/1"), source("/ip6/2001:db8:1:2:ffff::/udp/9/quic-v1"));
        assert_ne!(source("/ip6/2001:db8:1:2::3/tcp/1"), source("/ip6/2001:db8:1:3::3/tcp/1"));
        assert_eq!(source("/ip6/::ffff:10.0.0.1/tcp/1"), source("/ip4/10.0.0.1/udp/2/quic-v1"));
        assert_ne!(source("/ip4/10.0.0.1/tcp/1"), source("/ip4/10.0.0.2/tcp/1"));
        assert_ne!(source("/memory/1"), source("/memory/2"));
    }

    #[test]
    fn what_has_ended_makes_room() {
        let (sender, receiver) = oneshot::channel::<io::Result<Output>>();
        let upgrade = async { receiver.await.unwrap() }.boxed();
        let silent = (0..4).map(|_| (A.parse().unwrap(), pending().boxed()));
        let incoming = [(A.parse().unwrap(), upgrade)].into_iter().chain(silent).collect();
        let mut transport = HalfOpenTransport::new(Incoming(incoming).boxed(), LIMITS);
        let mut first = poll(&mut transport).unwrap();
        let mut others: Vec<HalfOpen> = (0..3).map(|_| poll(&mut transport).unwrap()).collect();
        assert!(sender.send(Err(io::Error::other("no noise"))).is_ok());
        let error = (&mut first).now_or_never().unwrap().err().unwrap();
        assert_eq!(error.to_string(), "no noise");
        drop(first);
        others.push(poll(&mut transport).unwrap());
        assert_eq!(evicted(&mut others), []);
        drop(others);
        assert_eq!(transport.handle().stats(), HalfOpenStats::default());
        assert!(transport.handle().lock().counts.is_empty());
    }

    #[test]
    fn an_eviction_wakes_the_task_of_the_connection() {
        let (mut transport, mut accepted) = accept(&[A, A, A, A]);
        let (woken, mut cx) = woken();
        assert!(accepted[0].poll_unpin(&mut cx).is_pending());
        transport.inner = Incoming([(A.parse().unwrap(), pending().boxed())].into()).boxed();
        let _newest = poll(&mut transport).unwrap();
        assert!(woken());
        assert!(is_evicted(&mut accepted[0]));
    }

    #[test]
    fn evicted_connections_that_are_still_open_are_waited_for() {
        let silent = (0..20).map(|_| (A.parse().unwrap(), pending().boxed())).collect();
        let mut transport = HalfOpenTransport::new(Incoming(silent).boxed(), LIMITS);
        let mut accepted: Vec<HalfOpen> = std::iter::from_fn(|| poll(&mut transport)).collect();
        assert_eq!(accepted.len(), LIMITS.per_address + LIMITS.total);
        let (woken, mut cx) = woken();
        assert!(Pin::new(&mut transport).poll(&mut cx).is_pending());
        assert!(!woken());
        // A task has run, and its connection is closed.
        drop(accepted.remove(0));
        assert!(woken());
        assert!(poll(&mut transport).is_some() && poll(&mut transport).is_none());
    }

    fn woken() -> (impl Fn() -> bool, Context<'static>) {
        struct Flag(std::sync::atomic::AtomicBool);
        impl task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(false.into()));
        let waker = Box::leak(Box::new(Waker::from(Arc::clone(&flag))));
        (move || flag.0.load(std::sync::atomic::Ordering::SeqCst), Context::from_waker(waker))
    }
}
