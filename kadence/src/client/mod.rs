pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod find_peer;
pub(crate) mod key;
pub(crate) mod kind;

use std::{fmt, sync::Arc};

use kadence_core::{Metrics, Operation, Policy, PutOptions, Quorum, Snapshot, Stats};
use libp2p::{PeerId, kad::Record};

use self::{
    call::Call,
    connection::{Connection, DriverChannels, DriverClosedError, Introspection, Message, RemoveRecordError},
    key::Key,
    kind::{Bootstrap, FindPeer, GetClosestPeers, GetProviders, GetRecord, PutRecord, PutRecordTo, StartProviding},
};

/// Handle to a running driver that sends requests to the DHT from any task or thread.
///
/// A client is cheap to clone and has no type parameters: it depends neither on the behaviour of the swarm nor on the
/// runtime. Every operation returns a [`Call`], which does nothing until it is awaited or read as a stream. A call has
/// exactly one end, and dropping it cancels its request.
///
/// When the driver ends, whether by a shutdown, an abort, a panic or a drop, every pending and later call ends with
/// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown).
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
    ) -> (Self, DriverChannels) {
        let (connection, channels) = Connection::new(local_peer_id, command_capacity);
        (Self { connection: Arc::new(connection), stream_capacity }, channels)
    }

    /// Gets the records under a key. By default the first record that arrives is the answer; [`Call::limit`],
    /// [`Call::all`], [`Call::quorum`] and [`Call::best`] change that.
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

    /// Stores a record at up to 20 peers closest to its key and then, with the local peer as its publisher, in the
    /// local store, from where kad republishes it.
    ///
    /// By default a majority of the peers found must acknowledge the record; [`Call::quorum`] changes that. If too few
    /// acknowledge it, further peers are asked. If the put fails, the record is not in the local store, unless
    /// [`Call::local_copy`] says otherwise. An acknowledgement is a claim by a peer; [`Call::verify`] reads the record
    /// back.
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

    /// Stores an unchanged record at the given peers, and not in the local store. By default all of them must
    /// acknowledge it; [`Call::quorum`] changes that.
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

    /// Gets the providers of a key. By default the answer is all providers that the lookup finds; [`Call::limit`] and
    /// [`Call::first`] end it earlier.
    ///
    /// ```
    /// use kadence::{Client, GetProvidersError};
    ///
    /// async fn print_providers(client: &Client) -> Result<(), GetProvidersError> {
    ///     for peer in client.get_providers("file").await?.providers {
    ///         println!("{peer}");
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn get_providers(&self, key: impl Into<Key>) -> Call<GetProviders> {
        self.call(Operation::GetProviders { key: key.into().into_record_key(), policy: Policy::All })
    }

    /// Announces the local peer as a provider of a key. kad repeats the announcement until
    /// [`stop_providing`](Self::stop_providing).
    ///
    /// If the call fails or is dropped, the local peer is removed as a provider from the local store, unless it was one
    /// before. Announcements that kad has already sent cannot be taken back; they expire at the peers that received
    /// them.
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

    /// Finds up to 20 peers closest to a key or to a peer id.
    ///
    /// ```
    /// use kadence::{Client, GetClosestPeersError};
    ///
    /// async fn print_closest(client: &Client) -> Result<(), GetClosestPeersError> {
    ///     for peer in client.get_closest_peers("greeting").await?.peers {
    ///         println!("{} {:?}", peer.peer_id, peer.addrs);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn get_closest_peers(&self, target: impl Into<Key>) -> Call<GetClosestPeers> {
        self.call(Operation::GetClosestPeers { target: target.into().into_record_key(), thorough: false })
    }

    /// Finds addresses of a peer, by a lookup of the peers closest to it and in the local routing table.
    ///
    /// A lookup that fails is an error only if the routing table has no address of the peer either; see
    /// [`FindPeerError`](crate::FindPeerError).
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

    /// Joins the network through the peers in the routing table and refreshes its buckets. The stream has an item for
    /// each lookup.
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

    /// Stops announcing the local peer as a provider of a key. Changes only the local store: peers that received an
    /// announcement keep it until it expires.
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
    /// Fails if the driver is closed.
    pub async fn stop_providing(&self, key: impl Into<Key>) -> Result<(), DriverClosedError> {
        let key = key.into().into_record_key();
        self.connection.ask(|reply| Message::StopProviding { key, reply }).await
    }

    /// Removes a record that the local peer published from the local store, so that it is no longer republished.
    /// Changes only the local store: peers that hold the record keep it until it expires.
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
    /// Fails if there is no such record, if another peer published it, or if the driver is closed. Nothing is removed
    /// then.
    pub async fn remove_record(&self, key: impl Into<Key>) -> Result<(), RemoveRecordError> {
        let key = key.into().into_record_key();
        self.connection.ask(|reply| Message::RemoveRecord { key, reply }).await?
    }

    /// Returns all live requests and queries with their age and phase.
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
    /// Fails if the driver is closed.
    pub async fn snapshot(&self) -> Result<Snapshot, DriverClosedError> {
        Ok(self.introspect().await?.snapshot)
    }

    /// Returns the tracker's counters.
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
    /// Fails if the driver is closed.
    pub async fn stats(&self) -> Result<Stats, DriverClosedError> {
        Ok(self.introspect().await?.stats)
    }

    /// Returns outcome counts and latency histograms per operation.
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
    /// Fails if the driver is closed.
    pub async fn metrics(&self) -> Result<Metrics, DriverClosedError> {
        Ok(self.introspect().await?.metrics)
    }

    /// Shuts the driver down gracefully: accepts no further calls, and waits until all accepted calls have ended, at
    /// their deadlines at the latest.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) {
    /// client.shutdown().await;
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        self.request_shutdown(true).await;
    }

    /// Shuts the driver down at once: accepts no further calls, and ends the pending ones with
    /// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown).
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
