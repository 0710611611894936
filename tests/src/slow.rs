use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::RemoteHandle};
use kadence::{Runtime, Timer};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{Endpoint, transport::PortUse},
    kad::{self, store::MemoryStore},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

use crate::Contact;

type Kad = kad::Behaviour<MemoryStore>;
type Action = ToSwarm<kad::Event, THandlerInEvent<Kad>>;

/// A node that answers everything, and every time so late.
#[derive(Debug)]
pub struct SlowNode {
    /// Who it is and where it listens.
    pub contact: Contact,
    /// The node ends with this.
    _task: RemoteHandle<()>,
}

impl SlowNode {
    pub(crate) fn start<R: Runtime>(runtime: &R, mut swarm: Swarm<SlowKad<R>>, contact: Contact) -> Self {
        let run = async move {
            loop {
                let _not_of_interest = swarm.select_next_some().await;
            }
        };
        let (run, task) = run.remote_handle();
        runtime.spawn(run.boxed());
        Self { contact, _task: task }
    }
}

/// A kad that says nothing to a connection before its time.
pub(crate) struct SlowKad<R: Runtime> {
    pub(crate) kad: Kad,
    runtime: R,
    delay: Duration,
    held: VecDeque<(Instant, Action)>,
    timer: Pin<Box<R::Timer>>,
}

impl<R: Runtime> SlowKad<R> {
    pub(crate) fn new(kad: Kad, runtime: &R, delay: Duration) -> Self {
        let timer = Box::pin(runtime.timer(runtime.now()));
        Self { kad, runtime: runtime.clone(), delay, held: VecDeque::new(), timer }
    }
}

impl<R: Runtime> NetworkBehaviour for SlowKad<R> {
    type ConnectionHandler = THandler<Kad>;
    type ToSwarm = kad::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.kad.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        while let Poll::Ready(action) = self.kad.poll(cx) {
            match action {
                action @ ToSwarm::NotifyHandler { .. } => {
                    self.held.push_back((self.runtime.now() + self.delay, action));
                }
                action => return Poll::Ready(action),
            }
        }
        while let Some((due, _)) = self.held.front() {
            if *due <= self.runtime.now()
                && let Some((_, action)) = self.held.pop_front()
            {
                return Poll::Ready(action);
            }
            let due = self.held.front().map_or(self.runtime.now(), |(due, _)| *due);
            self.timer.as_mut().reset(due);
            if self.timer.as_mut().poll_elapsed(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    }
}
