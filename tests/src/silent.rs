use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
};

use async_channel::Receiver;
use futures::{FutureExt, StreamExt, future::RemoteHandle};
use kadence::Runtime;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, ReadyUpgrade},
    },
    identify,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
        SubstreamProtocol, SwarmEvent, THandlerInEvent, THandlerOutEvent, ToSwarm, handler::ConnectionEvent,
    },
};

use crate::{Contact, PROTOCOL};

/// Silent peer: it accepts connections, reports through identify that it speaks the tests' kad protocol, accepts every
/// stream that kad opens, and never reads, answers or closes it.
///
/// kad's handler sends its request, closes its half of the stream and waits for a response. Only kad's timeouts end
/// this: 10 seconds for a stream, and for a peer in a lookup.
#[derive(Debug)]
pub struct SilentNode {
    /// Peer id and listen address.
    pub contact: Contact,
    asked: Receiver<PeerId>,
    /// The node stops when this is dropped.
    _task: RemoteHandle<()>,
}

impl SilentNode {
    pub(crate) fn start<R: Runtime>(runtime: &R, mut swarm: Swarm<SilentBehaviour>, contact: Contact) -> Self {
        let (ask, asked) = async_channel::unbounded();
        let run = async move {
            loop {
                if let SwarmEvent::Behaviour(SilentBehaviourEvent::Kad(peer)) = swarm.select_next_some().await {
                    // The test may not read any further requests.
                    let _receiver_dropped = ask.try_send(peer);
                }
            }
        };
        let (run, task) = run.remote_handle();
        runtime.spawn(run.boxed());
        Self { contact, asked, _task: task }
    }

    /// Waits for the next request and returns the peer that sent it.
    pub async fn next_request(&self) -> PeerId {
        self.asked.recv().await.expect("the node runs")
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct SilentBehaviour {
    pub(crate) kad: SilentKad,
    pub(crate) identify: identify::Behaviour,
}

/// Behaviour that negotiates kad's protocol and nothing else. Its events are the ids of the peers that have sent a
/// request.
#[derive(Debug, Default)]
pub struct SilentKad {
    asked: VecDeque<PeerId>,
}

impl NetworkBehaviour for SilentKad {
    type ConnectionHandler = SilentHandler;
    type ToSwarm = PeerId;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<SilentHandler, ConnectionDenied> {
        Ok(SilentHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<SilentHandler, ConnectionDenied> {
        Ok(SilentHandler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, (): THandlerOutEvent<Self>) {
        self.asked.push_back(peer);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<PeerId, THandlerInEvent<Self>>> {
        self.asked.pop_front().map_or(Poll::Pending, |peer| Poll::Ready(ToSwarm::GenerateEvent(peer)))
    }
}

/// Connection handler that keeps every stream open.
#[derive(Debug, Default)]
pub struct SilentHandler {
    held: Vec<Stream>,
    unreported: usize,
}

impl ConnectionHandler for SilentHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = ();
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), ()>> {
        if self.unreported == 0 {
            return Poll::Pending;
        }
        self.unreported -= 1;
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(()))
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, DeniedUpgrade>) {
        if let ConnectionEvent::FullyNegotiatedInbound(inbound) = event {
            self.held.push(inbound.protocol);
            self.unreported += 1;
        }
    }
}
