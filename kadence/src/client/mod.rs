pub(crate) mod call;
pub(crate) mod find_peer;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_channel::{Receiver, Sender, TrySendError};
use futures::channel::oneshot;
use kadence_core::{
    Item, Metrics, Operation, Outcome, Policy, PutOptions, Quorum, Request, RequestId, Snapshot, Stats,
};
use libp2p::{
    Multiaddr, PeerId,
    core::multihash::Multihash,
    kad::{Record, RecordKey},
};
use thiserror::Error;

use crate::{
    DriverConfig, FindPeerError, FoundPeer,
    client::call::{Bootstrap, Call, GetClosestPeers, GetProviders, GetRecord, PutRecord, PutRecordTo, StartProviding},
    response,
};

/// A handle to a running driver: asks the DHT, from any task or thread.
///
/// It is cheap to clone and knows neither the behaviour nor the runtime. Every operation returns a
/// [`Call`], which does nothing until it is awaited or read as a stream, has exactly one end, and is cancelled by
/// dropping it.
///
/// When the driver goes away, in whatever way, every pending and later call ends with
/// [`RequestError::Shutdown`](crate::RequestError::Shutdown).
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    local_peer: PeerId,
    stream_capacity: usize,
    last_id: AtomicU64,
    commands: Sender<Message>,
    /// Bounded by the live calls, each of which is cancelled once at most; never waits, so a full command channel
    /// cannot hold up a cancel.
    cancels: Sender<RequestId>,
}

/// What a client tells its driver.
pub(crate) enum Message {
    Request { request: Request, reply: Reply },
    StopProviding { key: RecordKey, reply: oneshot::Sender<()> },
    RemoveRecord { key: RecordKey, reply: oneshot::Sender<Result<(), RemoveRecordError>> },
    Addresses { peer: PeerId, reply: oneshot::Sender<Vec<Multiaddr>> },
    Snapshot { reply: oneshot::Sender<Look> },
    Shutdown { drain: bool, reply: oneshot::Sender<()> },
}

/// What there is to look at.
pub(crate) struct Look {
    pub(crate) snapshot: Snapshot,
    pub(crate) stats: Stats,
    pub(crate) metrics: Metrics,
}

/// The way back to a call.
pub(crate) type Reply = response::Sender<Item, Outcome>;

/// The receiving ends of a client's channels.
pub(crate) struct ClientChannels {
    pub(crate) messages: Receiver<Message>,
    pub(crate) cancels: Receiver<RequestId>,
}

impl Client {
    pub(crate) fn new(local_peer: PeerId, config: &DriverConfig) -> (Self, ClientChannels) {
        let (commands, messages) = async_channel::bounded(config.command_capacity.max(1));
        let (cancels, cancelled) = async_channel::unbounded();
        let stream_capacity = config.stream_capacity;
        let shared = Shared { local_peer, stream_capacity, last_id: AtomicU64::new(0), commands, cancels };
        (Self { shared: Arc::new(shared) }, ClientChannels { messages, cancels: cancelled })
    }

    /// Looks up the records under a key. By default the first record that arrives is the answer; see
    /// [`Call::limit`], [`Call::all`], [`Call::quorum`] and [`Call::best`].
    pub fn get_record(&self, key: impl Into<Key>) -> Call<GetRecord> {
        self.call(Operation::GetRecord { key: key.into().0, policy: Policy::First })
    }

    /// Stores a record at the up to 20 peers closest to its key, and then in the local store, as its publisher, from
    /// where kad publishes it again in time. By default a majority of the peers found must acknowledge it; see
    /// [`Call::quorum`]. Where too few acknowledge, others are asked. Unless it succeeds, the record is not in the local
    /// store; see [`Call::local_copy`]. An acknowledgement is a peer's word: see [`Call::verify`].
    pub fn put_record(&self, record: Record) -> Call<PutRecord> {
        self.call(Operation::PutRecord {
            record: Arc::new(record),
            quorum: Quorum::Majority,
            options: PutOptions::default(),
        })
    }

    /// Stores a record, as it is, at these peers, and not in the local store. By default all of them must acknowledge
    /// it; see [`Call::quorum`].
    pub fn put_record_to(&self, record: Record, peers: impl IntoIterator<Item = PeerId>) -> Call<PutRecordTo> {
        let peers = peers.into_iter().collect();
        self.call(Operation::PutRecordTo { record: Arc::new(record), peers, quorum: Quorum::All })
    }

    /// Looks up the peers that provide a key. By default the answer is all that can be found; see [`Call::limit`].
    pub fn get_providers(&self, key: impl Into<Key>) -> Call<GetProviders> {
        self.call(Operation::GetProviders { key: key.into().0, policy: Policy::All })
    }

    /// Announces the local peer as a provider of a key. kad repeats the announcement in time, until
    /// [`stop_providing`](Self::stop_providing). If it fails or is dropped, the local store does not name us
    /// as a provider, unless it did before; but kad cannot be kept from telling the peers that it has found by then,
    /// and they believe it until it expires there.
    pub fn start_providing(&self, key: impl Into<Key>) -> Call<StartProviding> {
        self.call(Operation::StartProviding { key: key.into().0 })
    }

    /// Looks up the up to 20 peers closest to a key or a peer id.
    pub fn get_closest_peers(&self, target: impl Into<Key>) -> Call<GetClosestPeers> {
        self.call(Operation::GetClosestPeers { target: target.into().0, thorough: false })
    }

    /// Looks up where a peer can be reached: by the peers closest to it and by the own routing table, which identify
    /// fills. Takes the default timeout at most; dropping it cancels the lookup.
    ///
    /// # Errors
    ///
    /// If no address of the peer is known, if the lookup fails and the routing table does not know the peer either, or if
    /// the driver is gone.
    pub async fn find_peer(&self, peer: PeerId) -> Result<FoundPeer, FindPeerError> {
        find_peer::find_peer(self, peer).await
    }

    pub(crate) async fn addresses_of(&self, peer: PeerId) -> Result<Vec<Multiaddr>, DriverClosedError> {
        self.ask(|reply| Message::Addresses { peer, reply }).await
    }

    /// Joins the network through the peers in the routing table, and refreshes its buckets. The stream has an item
    /// for each lookup that it takes.
    pub fn bootstrap(&self) -> Call<Bootstrap> {
        self.call(Operation::Bootstrap)
    }

    /// Ends the announcements of a key. A local operation: peers that were told before remember it until it expires
    /// there.
    ///
    /// # Errors
    ///
    /// If the driver is gone.
    pub async fn stop_providing(&self, key: impl Into<Key>) -> Result<(), DriverClosedError> {
        let Key(key) = key.into();
        self.ask(|reply| Message::StopProviding { key, reply }).await
    }

    /// Removes a record that we published from the local store, so that it is no longer published again. A local
    /// operation: the peers that hold it keep it until it expires there.
    ///
    /// # Errors
    ///
    /// If there is no such record, if another peer published it, or if the driver is gone. Nothing is removed then.
    pub async fn remove_record(&self, key: impl Into<Key>) -> Result<(), RemoveRecordError> {
        let Key(key) = key.into();
        self.ask(|reply| Message::RemoveRecord { key, reply }).await?
    }

    /// Every live request and query with its age and phase, for people who want to know what their program waits for.
    ///
    /// # Errors
    ///
    /// If the driver is gone.
    pub async fn snapshot(&self) -> Result<Snapshot, DriverClosedError> {
        Ok(self.ask(|reply| Message::Snapshot { reply }).await?.snapshot)
    }

    /// What the tracker has counted.
    ///
    /// # Errors
    ///
    /// If the driver is gone.
    pub async fn stats(&self) -> Result<Stats, DriverClosedError> {
        Ok(self.ask(|reply| Message::Snapshot { reply }).await?.stats)
    }

    /// How many requests of each operation ended how, and how long they took.
    ///
    /// # Errors
    ///
    /// If the driver is gone.
    pub async fn metrics(&self) -> Result<Metrics, DriverClosedError> {
        Ok(self.ask(|reply| Message::Snapshot { reply }).await?.metrics)
    }

    /// Accepts no further calls, and waits until those that were accepted have ended, at their deadlines at the
    /// latest.
    pub async fn shutdown(&self) {
        // An answer and a driver that is gone mean the same here.
        let _gone = self.ask(|reply| Message::Shutdown { drain: true, reply }).await;
    }

    /// Accepts no further calls, and ends the pending ones with [`RequestError::Shutdown`](crate::RequestError).
    pub async fn shutdown_now(&self) {
        let _gone = self.ask(|reply| Message::Shutdown { drain: false, reply }).await;
    }

    /// The id of the node that this client belongs to.
    pub fn local_peer(&self) -> PeerId {
        self.shared.local_peer
    }

    fn call<K>(&self, operation: Operation) -> Call<K> {
        Call::new(self.clone(), operation, self.shared.stream_capacity)
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, DriverClosedError> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(message(reply)).await.map_err(|_| DriverClosedError)?;
        answer.await.map_err(|_| DriverClosedError)
    }

    pub(crate) fn next_id(&self) -> RequestId {
        RequestId(self.shared.last_id.fetch_add(1, Ordering::Relaxed))
    }

    #[expect(clippy::result_large_err, reason = "the message comes back to be sent by another way")]
    pub(crate) fn try_send(&self, message: Message) -> Result<(), TrySendError<Message>> {
        self.shared.commands.try_send(message)
    }

    pub(crate) async fn send(self, message: Message) -> Result<(), DriverClosedError> {
        self.shared.commands.send(message).await.map_err(|_| DriverClosedError)
    }

    /// Tells the driver that a call was dropped. A driver that is gone has nothing to cancel.
    pub(crate) fn cancel(&self, id: RequestId) {
        let _gone = self.shared.cancels.try_send(id);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("local_peer", &self.shared.local_peer).finish_non_exhaustive()
    }
}

/// A point in the DHT's key space, by the bytes whose hash it is: a record's key, a text, a multihash, or, to look up the
/// peers closest to a peer, its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(RecordKey);

impl From<RecordKey> for Key {
    fn from(key: RecordKey) -> Self {
        Self(key)
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(RecordKey::from(bytes))
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(RecordKey::new(&bytes))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(RecordKey::from(text.into_bytes()))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(RecordKey::new(&text))
    }
}

impl<const S: usize> From<Multihash<S>> for Key {
    fn from(multihash: Multihash<S>) -> Self {
        Self(RecordKey::from(multihash))
    }
}

impl From<PeerId> for Key {
    fn from(peer: PeerId) -> Self {
        Self(RecordKey::from(peer.to_bytes()))
    }
}

/// The driver has shut down, was dropped, or its task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the driver is gone")]
pub struct DriverClosedError;

/// Why a record was not removed from the local store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemoveRecordError {
    /// The local store has no record under this key.
    #[error("there is no record under this key in the local store")]
    NotFound,
    /// Another peer published the record; we only keep it for the network.
    #[error("the record was published by another peer")]
    NotPublisher {
        /// Who published it, if the record says so.
        publisher: Option<PeerId>,
    },
    /// The driver is gone.
    #[error(transparent)]
    DriverClosedError(#[from] DriverClosedError),
}
