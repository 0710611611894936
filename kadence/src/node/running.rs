//! The loop of a node: the driver, identify's addresses for the routing table, and redialling.

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

use super::{
    announcer::Announcer,
    behaviour::{NodeBehaviour, NodeBehaviourEvent, NodeEvent},
    config::KnownPeer,
    sweeper::Sweeper,
};
use crate::{Alarm, ContainsKad, Driver, Runtime, response::ResponseSender};

/// Maximum number of addresses that a peer can add to its entry in the routing table. It can claim any number, message
/// after message, and each is kept, copied into events, and dialled in vain if it is false.
const MAX_ADDRESSES_PER_PEER: usize = 16;

/// Delay of the first redial of the bootstrap peers while no peer is connected. It doubles each time.
const REDIAL_MIN: Duration = Duration::from_secs(2);
/// Maximum delay of a redial: a network that comes back is found within a minute.
const REDIAL_MAX: Duration = Duration::from_secs(60);

/// Maximum number of events per wake-up, so that other tasks of the runtime get their turn.
const EVENTS_PER_WAKE: usize = 100;

/// State that a node's task shares with its handle.
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
    /// A peer has announced that it speaks the network's protocol.
    pub(super) has_kad_peer: bool,
    /// Completed at the first peer that speaks the network's protocol.
    pub(super) first_peer: Option<oneshot::Sender<()>>,
    /// Completed when every listener has an address or has failed.
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
    /// Runs the node. `Ready` when it has shut down.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.report_listening();
        for _ in 0..EVENTS_PER_WAKE {
            let event = self.driver.poll_next_unpin(cx);
            if self.driver.is_shut_down() {
                return Poll::Ready(());
            }
            match event {
                Poll::Ready(Some(event)) => {
                    if !self.take_announcement(&event) {
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

    /// Takes an event of the announcer's queries. Returns whether it was one.
    fn take_announcement(&mut self, event: &NodeEvent<X>) -> bool {
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
            // Without an answer to a ping the connection is dead, and every query over it would wait for its timeout.
            SwarmEvent::Behaviour(NodeBehaviourEvent::Ping(ping::Event { peer, connection, result: Err(error) }))
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, %error, "closing a dead connection");
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

    /// Adds the addresses of an identified peer. kad learns of a peer that has dialled this node only in this way.
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
        self.has_kad_peer = true;
        self.check_ready();
    }

    /// Completes `first_peer` if a peer speaks the protocol and the routing table is not empty.
    fn check_ready(&mut self) {
        if self.has_kad_peer
            && self.first_peer.is_some()
            && self.driver.swarm_mut().behaviour_mut().kad().kbuckets().any(|bucket| !bucket.is_empty())
            && let Some(first_peer) = self.first_peer.take()
        {
            // An error means that nobody waits.
            let _gone = first_peer.send(());
            self.announcer.begin();
        }
    }

    /// Schedules a redial of the bootstrap peers if no peer is connected.
    pub(super) fn check_alone(&mut self) {
        if !self.bootstrap_peers.is_empty() && self.driver.swarm().network_info().num_peers() == 0 {
            self.redial.start();
        }
    }

    fn dial_bootstrap_peers(&mut self) {
        for peer in &self.bootstrap_peers {
            dial(self.driver.swarm_mut(), peer);
        }
        // A dial that fails at once causes no event.
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

/// Joins the lines of an error: libp2p's dial errors have one for each address.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Adds a peer to kad and dials it. An error is only logged: usually the peer is being dialled or is connected.
pub(super) fn dial<X: NetworkBehaviour>(swarm: &mut Swarm<NodeBehaviour<X>>, peer: &KnownPeer) {
    for address in &peer.addresses {
        swarm.behaviour_mut().kad().add_address(&peer.id, address.clone());
    }
    let dial = DialOpts::peer_id(peer.id).addresses(peer.addresses.clone()).build();
    if let Err(error) = swarm.dial(dial) {
        tracing::debug!(peer = %peer.id, %error, "did not dial");
    }
}

/// Timer of redials, with a growing delay. Runs only while no peer is connected.
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

    /// Returns whether it is time to redial.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.alarm.poll(cx).is_ready()
    }
}
