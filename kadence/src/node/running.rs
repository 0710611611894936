//! The loop of a node: a driver, the wiring from identify into the routing table, and dialling again.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::transport::ListenerId,
    identify, kad, ping,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};

use super::{NodeBehaviour, NodeBehaviourEvent, NodeEvent, announcer::Announcer, config::KnownPeer, sweeper::Sweeper};
use crate::{Alarm, ContainsKad, Driver, Runtime, response::ResponseSender};

/// How many addresses a peer may have in the routing table by its own word. It can claim as many as it likes, message
/// after message; each is kept, copied into events, and dialled in vain if it is false.
const MAX_ADDRESSES_PER_PEER: usize = 16;

/// How long to wait before the bootstrap peers are dialled again when nobody is connected: this at first, then twice
/// as long each time.
const REDIAL_MIN: Duration = Duration::from_secs(2);
/// The longest of these waits: a network that comes back is found within a minute.
const REDIAL_MAX: Duration = Duration::from_secs(60);

/// How many events one wake-up may handle before other tasks of the runtime get their turn.
const EVENTS_PER_WAKE: usize = 100;

/// What a node's task shares with its handle.
#[derive(Debug, Default)]
pub(super) struct Status {
    listen_addrs: Mutex<BTreeSet<Multiaddr>>,
    last_dial_error: Mutex<Option<String>>,
}

impl Status {
    pub(super) fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.listen_addrs.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn last_dial_error(&self) -> Option<String> {
        self.last_dial_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update_listen_addrs(&self, update: impl FnOnce(&mut BTreeSet<Multiaddr>)) {
        update(&mut self.listen_addrs.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn dial_failed(&self, error: &dyn std::error::Error) {
        *self.last_dial_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(one_line(&error.to_string()));
    }
}

pub(super) struct Running<X: NetworkBehaviour, R: Runtime> {
    pub(super) driver: Driver<NodeBehaviour<X>, R>,
    pub(super) events: ResponseSender<NodeEvent<X>, ()>,
    pub(super) status: Arc<Status>,
    pub(super) protocol: StreamProtocol,
    pub(super) bootstrap_peers: Vec<KnownPeer>,
    /// Whether a peer has said that it speaks our protocol.
    pub(super) speaks: bool,
    /// Told at the first peer that speaks our protocol.
    pub(super) first_peer: Option<oneshot::Sender<()>>,
    /// Told when every listener has an address or has failed.
    pub(super) listening: Option<oneshot::Sender<()>>,
    pub(super) listeners: HashSet<ListenerId>,
    pub(super) redial: Redial,
    pub(super) announcer: Announcer,
    pub(super) sweeper: Sweeper,
}

impl<X, R> Running<X, R>
where
    X: NetworkBehaviour,
    R: Runtime,
{
    /// Ready when the node has shut down.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.report_listening();
        for _ in 0..EVENTS_PER_WAKE {
            let event = self.driver.poll_next_unpin(cx);
            if self.driver.is_shut_down() {
                return Poll::Ready(());
            }
            match event {
                Poll::Ready(Some(event)) => {
                    if !self.is_of_announcer(&event) {
                        self.handle(&event);
                        self.events.push(event);
                    }
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if self.redial.poll(cx) {
                self.dial_bootstrap_peers();
                continue;
            }
            let kad = self.driver.swarm_mut().behaviour_mut().kad();
            if self.announcer.poll(cx, kad) || self.sweeper.poll(cx, kad.store_mut()) {
                continue;
            }
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether an event is of a query that nobody else has asked for; it has been dealt with then.
    fn is_of_announcer(&mut self, event: &NodeEvent<X>) -> bool {
        match event {
            SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            })) => {
                let store = self.driver.swarm_mut().behaviour_mut().kad().store_mut();
                self.announcer.handle(*id, result, stats, step.last, store)
            }
            _ => false,
        }
    }

    fn handle(&mut self, event: &NodeEvent<X>) {
        match event {
            SwarmEvent::Behaviour(NodeBehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                connection_id: _,
            })) => self.identified(*peer_id, info),
            SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(kad::Event::RoutingUpdated { .. })) => self.check_ready(),
            // A connection that answers no ping is dead, and every query over it would wait for kad's timeout.
            SwarmEvent::Behaviour(NodeBehaviourEvent::Ping(ping::Event { peer, connection, result: Err(error) }))
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, %error, "a connection is dead");
                self.driver.swarm_mut().close_connection(*connection);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.status.update_listen_addrs(|addrs| {
                    addrs.insert(address.clone());
                });
                self.listeners.remove(listener_id);
                self.report_listening();
            }
            SwarmEvent::ExpiredListenAddr { listener_id: _, address } => self.status.update_listen_addrs(|addrs| {
                addrs.remove(address);
            }),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason: _ } => {
                self.status.update_listen_addrs(|addrs| addrs.retain(|address| !addresses.contains(address)));
                self.listeners.remove(listener_id);
                self.report_listening();
            }
            SwarmEvent::ConnectionEstablished { .. } => self.redial.stop(),
            SwarmEvent::ConnectionClosed { num_established: 0, .. } => self.check_alone(),
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                self.status.dial_failed(error);
                self.check_alone();
            }
            _ => {}
        }
    }

    /// A peer has said what it speaks and where it listens. Of peers that dialled us, kad learns only by this.
    fn identified(&mut self, peer: PeerId, info: &identify::Info) {
        if !info.protocols.contains(&self.protocol) {
            return;
        }
        let kad = self.driver.swarm_mut().behaviour_mut().kad();
        let known = kad.kbucket(peer).map_or(0, |bucket| {
            let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
            entry.map_or(0, |entry| entry.node.value.len())
        });
        for address in info.listen_addrs.iter().take(MAX_ADDRESSES_PER_PEER.saturating_sub(known)) {
            kad.add_address(&peer, address.clone());
        }
        self.speaks = true;
        self.check_ready();
    }

    /// A peer speaks our protocol, and there is somebody to ask.
    fn check_ready(&mut self) {
        if self.speaks
            && self.first_peer.is_some()
            && self.driver.swarm_mut().behaviour_mut().kad().kbuckets().any(|bucket| !bucket.is_empty())
            && let Some(first_peer) = self.first_peer.take()
        {
            // Nobody may be waiting for it.
            let _gone = first_peer.send(());
            self.announcer.begin();
        }
    }

    /// With bootstrap peers to turn to and nobody connected, dial them again in a while.
    pub(super) fn check_alone(&mut self) {
        if !self.bootstrap_peers.is_empty() && self.driver.swarm().network_info().num_peers() == 0 {
            self.redial.start();
        }
    }

    fn dial_bootstrap_peers(&mut self) {
        for peer in &self.bootstrap_peers {
            dial(self.driver.swarm_mut(), peer);
        }
        // A dial that was refused at once says so in no event.
        self.check_alone();
    }

    fn report_listening(&mut self) {
        if self.listeners.is_empty()
            && let Some(listening) = self.listening.take()
        {
            let _gone = listening.send(());
        }
    }
}

/// libp2p's error of a dial has a line for each address.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Makes a peer known to kad and dials it. A dial that cannot begin (it is under way, or the peer is connected) is
/// what was wanted.
pub(super) fn dial<X: NetworkBehaviour>(swarm: &mut Swarm<NodeBehaviour<X>>, peer: &KnownPeer) {
    for address in &peer.addresses {
        swarm.behaviour_mut().kad().add_address(&peer.id, address.clone());
    }
    let dial = DialOpts::peer_id(peer.id).addresses(peer.addresses.clone()).build();
    if let Err(error) = swarm.dial(dial) {
        tracing::debug!(peer = %peer.id, %error, "not dialled");
    }
}

/// A timer with a growing span, that runs only while it is needed.
pub(super) struct Redial {
    alarm: Alarm,
    wait: Duration,
}

impl Redial {
    pub(super) fn new(runtime: &impl Runtime) -> Self {
        Self { alarm: Alarm::new(runtime), wait: REDIAL_MIN }
    }

    fn start(&mut self) {
        if self.alarm.deadline().is_none() {
            self.alarm.set(self.alarm.now() + self.wait);
            self.wait = (self.wait * 2).min(REDIAL_MAX);
        }
    }

    fn stop(&mut self) {
        self.alarm.stop();
        self.wait = REDIAL_MIN;
    }

    /// Whether it is time.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.alarm.poll(cx).is_ready()
    }
}
