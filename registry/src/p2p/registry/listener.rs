//! Listener for events of the node: announcements and connections.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use async_channel::{Receiver, Sender};
use futures::{FutureExt, Stream, StreamExt};
use kadence::{
    LaggedError, Runtime,
    node::{NodeBehaviourEvent, NodeEvent},
};
use libp2p::{PeerId, swarm::SwarmEvent};
use libp2p_gossipsub as gossipsub;

use super::{
    Inner, RegistryBehaviour, RegistryBehaviourEvent, RegistryEvent, contents::ProviderScope, heads::Purpose, lock,
};
use crate::{
    GetError, PackageId,
    p2p::announce::{Freshness, GossipMessage, IgnoreReason, SignedAnnouncement, ValidationResult},
};

/// Capacity of the task queue: 4 MB of announcements, more than arrive while one task runs.
const TASK_QUEUE_LEN: usize = 4096;

/// Number of tasks that run at the same time.
const CONCURRENT_TASKS: usize = 4;

/// Maximum number of peers that wait to be asked for their catalogue.
const PEER_QUEUE_LEN: usize = 64;

/// Number of catalogues that are read at the same time.
const CONCURRENT_CATALOGUES: usize = 2;

/// Reads the events of the node, and queues work that takes longer than an event may.
pub(super) struct Listener<R: Runtime> {
    inner: Arc<Inner<R>>,
    tasks: Sender<Task>,
    new_peers: Sender<PeerId>,
    /// Closed once the node has stopped, which ends the other tasks of the registry.
    running: Sender<Infallible>,
}

/// Task that results from an announcement.
pub(super) enum Task {
    /// Updates the search index for the announced package.
    UpdateSearch(SignedAnnouncement, ProviderScope),
    /// Looks up the head of a package whose announcement conflicts with the known one.
    Recheck(PackageId),
}

impl<R: Runtime> Listener<R> {
    /// Returns the listener and the worker that executes its tasks.
    pub(super) fn new(
        inner: Arc<Inner<R>>,
        running: Sender<Infallible>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (tasks, queued_tasks) = async_channel::bounded(TASK_QUEUE_LEN);
        let (new_peers, queued_peers) = async_channel::bounded(PEER_QUEUE_LEN);
        let work = work(Arc::clone(&inner), tasks.clone(), queued_tasks, queued_peers);
        (Self { inner, tasks, new_peers, running }, work)
    }

    /// Runs until the node stops.
    pub(super) async fn listen(
        self,
        mut events: impl Stream<Item = Result<NodeEvent<RegistryBehaviour>, LaggedError>> + Send + Unpin,
    ) {
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.on_event(event).await,
                Err(LaggedError { skipped, .. }) => {
                    tracing::warn!(skipped, "events of the node were lost");
                    self.inner.resync_connections().await;
                }
            }
        }
        self.running.close();
        self.inner.subscribers.close();
        self.inner.save().await;
    }

    async fn on_event(&self, event: NodeEvent<RegistryBehaviour>) {
        let inner = &self.inner;
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } => {
                inner.connections.resolve(&peer_id, true);
                if num_established.get() == 1 {
                    inner.subscribers.send(&RegistryEvent::PeerJoined { peer: peer_id });
                    // If the queue is full, other peers have the same announcements.
                    let _full = self.new_peers.try_send(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                inner.subscribers.send(&RegistryEvent::PeerLeft { peer: peer_id });
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), .. } => {
                inner.connections.resolve(&peer, false);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::App(RegistryBehaviourEvent::Gossipsub(
                gossipsub::Event::Message { propagation_source, message_id, message },
            ))) => self.on_announcement(propagation_source, message_id, &message).await,
            _ => {}
        }
    }

    /// Validates a message, and tells gossipsub whether to forward it.
    async fn on_announcement(&self, forwarder: PeerId, id: gossipsub::MessageId, message: &gossipsub::Message) {
        let inner = &self.inner;
        let received = GossipMessage { forwarder, source: message.source, bytes: &message.data };
        let verdict = lock(&inner.validator).validate(&mut lock(&inner.discovered), received, SystemTime::now());
        let acceptance = verdict.acceptance();
        let report = inner.swarm.with(move |swarm| {
            swarm.behaviour_mut().app.gossipsub.report_message_validation_result(&id, &forwarder, acceptance);
        });
        if report.await.is_err() {
            return;
        }
        match verdict {
            ValidationResult::Accept(announcement) => {
                inner.on_newer_head(&announcement);
                // If the queue is full, the package is found when its publisher announces it again.
                let _full = self.tasks.try_send(Task::UpdateSearch(*announcement, ProviderScope::Announcers));
            }
            ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::Conflict { .. })) => {
                if let Ok(announcement) = SignedAnnouncement::verify(&message.data) {
                    let _full = self.tasks.try_send(Task::Recheck(announcement.announcement().package.clone()));
                }
            }
            ValidationResult::Ignore(reason) => tracing::debug!(%forwarder, %reason, "announcement ignored"),
            ValidationResult::Reject(reason) => {
                tracing::debug!(%forwarder, %reason, "announcement rejected");
            }
        }
    }
}

/// Executes queued tasks, reads the catalogue of each peer that connects, and at intervals that of the connected
/// peer with the best reputation.
async fn work<R: Runtime>(
    inner: Arc<Inner<R>>,
    tasks: Sender<Task>,
    queued_tasks: Receiver<Task>,
    queued_peers: Receiver<PeerId>,
) {
    let learning = queued_tasks.for_each_concurrent(CONCURRENT_TASKS, |task| {
        let inner = Arc::clone(&inner);
        async move {
            match task {
                Task::UpdateSearch(announcement, scope) => inner.update_search(&announcement, scope).await,
                Task::Recheck(package) => inner.recheck(&package).await,
            }
        }
    });
    let asking = queued_peers.for_each_concurrent(CONCURRENT_CATALOGUES, |peer| {
        let (inner, tasks) = (Arc::clone(&inner), tasks.clone());
        async move { inner.read_catalogue(peer, &tasks).await }
    });
    // Asks a connected peer at intervals.
    let now_and_then = async {
        loop {
            inner.sleep(inner.config.catalogue_interval).await;
            if let Some(peer) = inner.connected().await.first() {
                inner.read_catalogue(*peer, &tasks).await;
            }
        }
    };
    futures::future::select(futures::future::join(learning, asking).boxed(), now_and_then.boxed()).await;
}

impl<R: Runtime> Inner<R> {
    /// Takes note of a newer announcement of a package.
    pub(super) fn on_newer_head(&self, announcement: &SignedAnnouncement) {
        let announced = announcement.announcement();
        lock(&self.head_cache).remove_older(&announced.package, announced.seq);
        self.subscribers.send(&RegistryEvent::PackageDiscovered {
            package: announced.package.clone(),
            version: announced.version.clone(),
        });
    }

    /// Looks up the head of a package after a conflicting announcement. If there are two heads, both are recorded.
    async fn recheck(&self, package: &PackageId) {
        match self.look_up(package, Purpose::Read).await {
            Err(GetError::Equivocation { seq }) => {
                tracing::warn!(%package, seq, "publisher signed two conflicting heads");
                self.subscribers.send(&RegistryEvent::Equivocation { package: package.clone(), seq });
            }
            Err(error) => tracing::debug!(%package, %error, "conflicting announcements could not be checked"),
            Ok(_) => {}
        }
    }
}
