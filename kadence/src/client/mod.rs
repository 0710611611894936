pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod find_peer;
pub(crate) mod key;
pub(crate) mod kind;
pub(crate) mod polls;

use std::{fmt, sync::Arc, time::Duration};

use kadence_core::{Metrics, Operation, Policy, PutOptions, Quorum, Snapshot, Stats};
use libp2p::{PeerId, kad::Record};

use self::{
    call::Call,
    connection::{Connection, DriverChannels, DriverClosedError, Introspection, Message, RemoveRecordError},
    key::Key,
    kind::{Bootstrap, FindPeer, GetClosestPeers, GetProviders, GetRecord, PutRecord, PutRecordTo, StartProviding},
};
use crate::Clock;

/// Handle to a [`Driver`](crate::Driver), for requests to the DHT from any task or thread.
///
/// A client is cheap to clone and has no type parameters: its type depends neither on the behaviour of the swarm nor on
/// the runtime. An operation of the DHT is a [`Call`], which does nothing until it is awaited or read as a stream. A
/// call that was started ends exactly once, unless the call is dropped before, which cancels its request.
///
/// When the driver has ended, whether by a shutdown, an abort, a panic or a drop, every later call, and every call that
/// is still pending, ends with [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown). After a shutdown, a
/// driver in a loop of your own has to be polled or dropped for that.
///
/// ```
/// use kadence::{Client, libp2p::kad::Record};
///
/// async fn store_and_load(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
///     client.put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await?;
///     let answer = client.get_record(b"greeting").await?;
///     assert_eq!(answer.value(), b"hello");
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
    stream_capacity: usize,
}

impl Client {
    pub(crate) fn new(
        local_peer_id: PeerId,
        command_capacity: usize,
        stream_capacity: usize,
        clock: Clock,
        default_timeout: Duration,
    ) -> (Self, DriverChannels) {
        let (connection, channels) = Connection::new(local_peer_id, command_capacity, clock, default_timeout);
        (Self { connection: Arc::new(connection), stream_capacity }, channels)
    }

    pub(crate) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    /// Gets records under a key, from the local store and from peers.
    ///
    /// By default the first valid record that arrives is the answer. The local store is read first: if it has a valid
    /// record, a call with the default policy does not wait for a peer. [`Call::limit`], [`Call::all`],
    /// [`Call::quorum`], [`Call::best`] and [`Call::best_with_quorum`] select another policy; the last one that is
    /// called applies.
    ///
    /// ```
    /// use kadence::{Certainty, Client, GetRecordError};
    ///
    /// async fn print_greeting(client: &Client) {
    ///     match client.get_record("greeting").await {
    ///         Ok(answer) => println!("{} bytes", answer.value().len()),
    ///         Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, .. }) => println!("no such record"),
    ///         Err(error) => println!("unknown: {error}"),
    ///     }
    /// }
    /// ```
    pub fn get_record(&self, key: impl Into<Key>) -> Call<GetRecord> {
        self.call(Operation::GetRecord { key: key.into().into_record_key(), policy: Policy::First })
    }

    /// Stores a record, with the local peer as its publisher, at the up to 20 peers found closest to its key, and then
    /// in the local store. kad republishes the record from there, by default every 22 hours, until the record expires
    /// or is removed.
    ///
    /// By default a majority of the peers found must acknowledge the record; [`Call::quorum`] changes that. If too few
    /// acknowledge it, the record is also sent to further peers, if any are found, except with [`Quorum::All`]. An
    /// acknowledgement is only a claim by a peer; [`Call::verify`] reads the record back from peers.
    ///
    /// A put that fails does not store the record locally, with two exceptions:
    /// [`LocalCopy::First`](kadence_core::LocalCopy::First), and a deadline that passes while the record is being
    /// stored locally after everything else has succeeded.
    ///
    /// ```
    /// use kadence::{Client, PutRecordError, libp2p::kad::Record};
    ///
    /// async fn store(client: &Client) -> Result<(), PutRecordError> {
    ///     let answer = client.put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await?;
    ///     println!("stored at {} of {} peers", answer.acknowledged.len(), answer.asked());
    ///     Ok(())
    /// }
    /// ```
    pub fn put_record(&self, record: Record) -> Call<PutRecord> {
        self.call(Operation::PutRecord {
            record: Arc::new(record),
            quorum: Quorum::Majority,
            options: PutOptions::default(),
        })
    }

    /// Stores a record at the given peers, and not in the local store. Unlike [`put_record`](Self::put_record), it
    /// leaves the record's publisher unchanged. By default all of the given peers must acknowledge the record;
    /// [`Call::quorum`] changes that. Duplicates and the local peer are removed from `peers`; if no peer is left, the
    /// call fails with [`RequestError::Invalid`](kadence_core::RequestError::Invalid).
    ///
    /// ```
    /// use kadence::{Client, PutRecordError, libp2p::{PeerId, kad::Record}};
    ///
    /// async fn send(client: &Client, peers: Vec<PeerId>) -> Result<(), PutRecordError> {
    ///     let record = Record::new(b"greeting".to_vec(), b"hello".to_vec());
    ///     client.put_record_to(record, peers).await?;
    ///     Ok(())
    /// }
    /// ```
    pub fn put_record_to(&self, record: Record, peers: impl IntoIterator<Item = PeerId>) -> Call<PutRecordTo> {
        let peers = peers.into_iter().collect();
        self.call(Operation::PutRecordTo { record: Arc::new(record), peers, quorum: Quorum::All })
    }

    /// Gets the providers of a key, from the local store and from peers. By default the answer contains all providers
    /// that the lookup finds, at most [`TrackerConfig::max_items`](kadence_core::TrackerConfig::max_items);
    /// [`Call::limit`] and [`Call::first`] end the lookup earlier.
    ///
    /// ```
    /// use kadence::{Client, GetProvidersError};
    ///
    /// async fn print_providers(client: &Client) -> Result<(), GetProvidersError> {
    ///     for peer in client.get_providers("file").await?.providers.iter() {
    ///         println!("{peer}");
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn get_providers(&self, key: impl Into<Key>) -> Call<GetProviders> {
        self.call(Operation::GetProviders { key: key.into().into_record_key(), policy: Policy::All })
    }

    /// Announces the local peer as a provider of a key, to the up to 20 peers found closest to the key. After a success
    /// kad repeats the announcement, by default every 12 hours, until [`stop_providing`](Self::stop_providing).
    ///
    /// If the call fails, or is dropped before it ends, the local peer is removed as a provider of the key from the
    /// local store, unless it was a provider before the call, another call announces the same key successfully, or the
    /// driver was dropped. While another call announces the same key, the removal waits for the end of that call.
    /// Announcements that kad has already sent cannot be taken back; they expire at the peers that received them.
    ///
    /// ```
    /// use kadence::{Client, StartProvidingError};
    ///
    /// async fn provide(client: &Client) -> Result<(), StartProvidingError> {
    ///     client.start_providing("file").await?;
    ///     Ok(())
    /// }
    /// ```
    pub fn start_providing(&self, key: impl Into<Key>) -> Call<StartProviding> {
        self.call(Operation::StartProviding { key: key.into().into_record_key() })
    }

    /// Finds the up to 20 peers closest to a key or to a peer id, among the peers that answer the lookup.
    ///
    /// ```
    /// use kadence::{Client, GetClosestPeersError};
    ///
    /// async fn print_closest(client: &Client) -> Result<(), GetClosestPeersError> {
    ///     for peer in client.get_closest_peers("greeting").await?.peers.iter() {
    ///         println!("{} {:?}", peer.peer_id, peer.addrs);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn get_closest_peers(&self, target: impl Into<Key>) -> Call<GetClosestPeers> {
        self.call(Operation::GetClosestPeers { target: target.into().into_record_key(), thorough: false })
    }

    /// Finds addresses of a peer: by a lookup of the peers closest to it, and in the local routing table once that
    /// lookup has ended.
    ///
    /// If the lookup fails or finds no address, the call still succeeds with the addresses in the routing table, if
    /// there are any. The call fails in any case if the request is invalid, if the driver has shut down or was dropped, or
    /// if nobody polls it.
    /// See [`FindPeerError`](crate::FindPeerError).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use kadence::{Client, FindPeerError, libp2p::PeerId};
    ///
    /// async fn print_addresses(client: &Client, peer: PeerId) -> Result<(), FindPeerError> {
    ///     let found = client.find_peer(peer).timeout(Duration::from_secs(5)).await?;
    ///     for address in found.addresses {
    ///         println!("{address}");
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn find_peer(&self, peer: PeerId) -> Call<FindPeer> {
        let target = Key::from(peer).into_record_key();
        let operation = Operation::GetClosestPeers { target, thorough: false };
        Call::new(Arc::clone(&self.connection), operation, Some(peer), self.stream_capacity)
    }

    /// Joins the network through the peers in the routing table: looks up the local peer id, then refreshes buckets of
    /// the table by further lookups. The stream has an item for each lookup that has ended. If the routing table is
    /// empty, the call fails with [`BootstrapError::NoKnownPeers`](kadence_core::BootstrapError::NoKnownPeers).
    ///
    /// ```
    /// use kadence::{BootstrapError, Client};
    ///
    /// async fn join(client: &Client) -> Result<(), BootstrapError> {
    ///     let answer = client.bootstrap().await?;
    ///     println!("{} lookups, {} timed out", answer.phases, answer.failed);
    ///     Ok(())
    /// }
    /// ```
    pub fn bootstrap(&self) -> Call<Bootstrap> {
        self.call(Operation::Bootstrap)
    }

    /// Removes the local peer as a provider of a key from the local store, so that kad no longer repeats the
    /// announcement. Peers that received an announcement keep it until it expires. A running
    /// [`start_providing`](Self::start_providing) of the same key is not cancelled.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::DriverClosedError> {
    /// client.stop_providing("file").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the driver is dropped before it has replied, or if nobody polls it for the default timeout.
    pub async fn stop_providing(&self, key: impl Into<Key>) -> Result<(), DriverClosedError> {
        let key = key.into().into_record_key();
        self.connection.ask(|reply| Message::StopProviding { key, reply }).await
    }

    /// Removes the record under a key from the local store, if the local peer is the record's publisher. kad then no
    /// longer republishes the record. Peers that hold the record keep it until it expires. A running
    /// [`put_record`](Self::put_record) or republication of the record is not cancelled, and the put may store the
    /// record again.
    ///
    /// ```
    /// use kadence::{Client, RemoveRecordError};
    ///
    /// async fn remove(client: &Client) -> Result<(), RemoveRecordError> {
    ///     match client.remove_record("greeting").await {
    ///         Ok(()) | Err(RemoveRecordError::NotFound) => Ok(()),
    ///         Err(error) => Err(error),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails, and removes nothing, if the local store has no record under the key, if the local peer is not the
    /// record's publisher, or if the driver is dropped before it has replied. Fails as well if nobody polls the driver for
    /// the default timeout; the record is then removed if the driver is polled again.
    pub async fn remove_record(&self, key: impl Into<Key>) -> Result<(), RemoveRecordError> {
        let key = key.into().into_record_key();
        self.connection.ask(|reply| Message::RemoveRecord { key, reply }).await?
    }

    /// Returns all requests that the driver has accepted and that have not ended, read repairs included, and all
    /// queries of the driver that hold a slot
    /// ([`TrackerConfig::max_running`](kadence_core::TrackerConfig::max_running)), each with its age and phase.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::DriverClosedError> {
    /// println!("{:#?}", client.snapshot().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the driver is dropped before it has replied, or if nobody polls it for the default timeout.
    pub async fn snapshot(&self) -> Result<Snapshot, DriverClosedError> {
        Ok(self.introspect().await?.snapshot)
    }

    /// Returns the counters of the driver's [`QueryTracker`](kadence_core::QueryTracker) since the driver was created;
    /// [`kad_own_queries`](kadence_core::Stats::kad_own_queries) is a current number.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::DriverClosedError> {
    /// println!("{:#?}", client.stats().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the driver is dropped before it has replied, or if nobody polls it for the default timeout.
    pub async fn stats(&self) -> Result<Stats, DriverClosedError> {
        Ok(self.introspect().await?.stats)
    }

    /// Returns outcome counts and latency histograms per operation since the driver was created. Calls that the driver
    /// did not accept, and read repairs, are not counted. [`find_peer`](Self::find_peer) counts as
    /// [`get_closest_peers`](Self::get_closest_peers).
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::DriverClosedError> {
    /// println!("{:#?}", client.metrics().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the driver is dropped before it has replied, or if nobody polls it for the default timeout.
    pub async fn metrics(&self) -> Result<Metrics, DriverClosedError> {
        Ok(self.introspect().await?.metrics)
    }

    /// Shuts the driver down gracefully. Once the driver has received this, new calls end with
    /// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown). Accepted calls run to their end, which is at
    /// their deadlines at the latest, unless [`shutdown_now`](Self::shutdown_now) or a drop of the driver ends them.
    ///
    /// Returns when all accepted calls have ended and one second has passed since the last successful provider
    /// announcement, which kad may still have been sending. Returns as well when the driver is dropped, or if it was
    /// dropped before, and when nobody polls the driver for the default timeout. A driver in a loop of your own has to be
    /// polled meanwhile.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) {
    /// client.shutdown().await;
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        self.request_shutdown(true).await;
    }

    /// Shuts the driver down at once: ends the pending calls, and every later one, with
    /// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown). Returns as well if the driver was dropped, or if
    /// nobody polls it for the default timeout. A driver in a loop of your own has to be polled until this returns.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) {
    /// client.shutdown_now().await;
    /// # }
    /// ```
    pub async fn shutdown_now(&self) {
        self.request_shutdown(false).await;
    }

    /// Returns the peer id of the local swarm.
    ///
    /// ```
    /// # fn example(client: kadence::Client) {
    /// println!("{}", client.local_peer_id());
    /// # }
    /// ```
    pub fn local_peer_id(&self) -> PeerId {
        self.connection.local_peer_id()
    }

    fn call<K>(&self, operation: Operation) -> Call<K> {
        Call::new(Arc::clone(&self.connection), operation, None, self.stream_capacity)
    }

    async fn introspect(&self) -> Result<Introspection, DriverClosedError> {
        self.connection.ask(|reply| Message::Introspect { reply }).await
    }

    async fn request_shutdown(&self, drain: bool) {
        // A closed driver has shut down, too.
        let _closed = self.connection.ask(|reply| Message::Shutdown { drain, reply }).await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("local_peer_id", &self.local_peer_id()).finish_non_exhaustive()
    }
}
