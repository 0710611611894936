#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use kadence_store::{Store, StoreConfig};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    identity::PublicKey,
    kad::{self, Mode},
    multiaddr::Protocol,
};

use super::{Identity, NodeError, half_open::HalfOpenLimits};
use crate::{DriverConfig, PeerTimeoutConfig};

/// The protocol name of a network that has chosen none: not the public IPFS network's.
pub const DEFAULT_PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence/kad/1.0.0");

/// How many peers a query asks at once. With kad's own 3, every eighth lookup begins with three silent peers where half
/// of all are silent, and has to wait for the longest patience, because nobody shows that the network is alive; with 10
/// it is one in a thousand. A lookup asks some twenty peers in any case.
const PARALLELISM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

/// Everything about a [`Node`](super::Node). The defaults are for a private network.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kadence::node::{Identity, NodeConfig};
///
/// let config = NodeConfig {
///     identity: Identity::File("node.key".into()),
///     listen: vec!["/ip4/0.0.0.0/tcp/4001".parse()?],
///     bootstrap_peers: vec!["/dns4/seed.example/tcp/4001/p2p/12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR".parse()?],
///     ..NodeConfig::default()
/// };
/// # drop(config);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The key pair that makes the peer id. Default: a new one at every start.
    pub identity: Identity,
    /// Where to listen. Default: nowhere, which is enough for a client.
    pub listen: Vec<Multiaddr>,
    /// Peers through which the network is joined, each with its id: `/ip4/…/tcp/…/p2p/12D3Koo…`. They are dialled at
    /// the start, and again whenever no peer is connected.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// The name of the kad protocol. Only nodes with the same name form a network. Default: [`DEFAULT_PROTOCOL`].
    /// For the public IPFS network, whose peers have keys of other kinds as well, enable the feature `public-network`.
    pub protocol: StreamProtocol,
    /// Whether the node serves others (`Server`, the default; a node that listens nowhere only asks), only asks (`Client`), or decides by whether it has a
    /// confirmed external address (`None`), which a node on a private network never has.
    pub mode: Option<Mode>,
    /// The largest kad message, in bytes; the same on all nodes of a network, because only the receiver checks it.
    /// Default: 128 KiB.
    pub max_packet_len: usize,
    /// The longest value of a record, in bytes, put or stored for others. Default: 64 KiB.
    pub max_value_len: usize,
    /// The longest key of a call, and of records and providers stored for others, in bytes. Default: 256; the keys that
    /// other implementations accept have at most 80.
    pub max_key_len: usize,
    /// Where records and providers are kept. Default: in memory.
    pub store: NodeStore,
    /// How many records the node stores, for itself and others. Default: 1,024, which is 64 MiB of the longest values;
    /// all are also held in memory. One publisher other than the node has at most half of them. When they are too many,
    /// those farthest from the node give way, and its own never: a put of our own ends with `PutRecordError::Store` only
    /// if all are its own.
    pub max_records: usize,
    /// How many keys the node keeps providers of, its own and those of others. Default: 16,384, a few megabytes. There
    /// are at most 20 providers of a key and four times as many in all as keys, and one peer other than the node
    /// provides an eighth of them at most.
    pub max_provided_keys: usize,
    /// How often kad refreshes its routing table by itself. Default: 5 minutes.
    pub bootstrap_interval: Option<Duration>,
    /// How long a connection without traffic is kept. Default: 60 s; libp2p's own default of 10 s makes most lookups
    /// dial first.
    pub idle_connection_timeout: Duration,
    /// The most connections, in and out, at once; of these at most three quarters are incoming. Default: 512; with what a connection buffers, some 100 MiB at worst.
    pub max_connections: u32,
    /// The most connections with one peer at once. Default: 4, for simultaneous dials over two transports.
    pub max_connections_per_peer: NonZeroU32,
    /// Maximum number of half-open connections, over all transports: incoming ones whose handshakes are not complete, each
    /// for 10 s at most. When there are more, the oldest one of the address that has most of them is closed. They are not
    /// part of `max_connections`, but take file descriptors as well: up to twice as many for a moment. Default: 256; zero
    /// counts as one.
    pub max_half_open: usize,
    /// Maximum number of half-open connections of one remote address: an IPv4 address, or the first 64 bits of an IPv6
    /// address. When there are more, the oldest one of that address is closed. This many peers can dial at the same moment
    /// from behind one address. Default: 128; zero counts as one.
    pub max_half_open_per_address: usize,
    /// What the node calls itself to others.
    pub agent_version: String,
    /// How long a peer is waited for. Default: by what the network has shown to be enough. `None` is kad's own 10 s.
    pub peer_timeouts: Option<PeerTimeoutConfig>,
    /// The driver's channels and the tracker's limits. The tracker's limits of packets, values and keys are set from the
    /// ones above. Its validators are also the store's: what they reject, and what is worse than what is there, is not
    /// stored for others either.
    pub driver: DriverConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            identity: Identity::Ephemeral,
            listen: Vec::new(),
            bootstrap_peers: Vec::new(),
            protocol: DEFAULT_PROTOCOL,
            mode: Some(Mode::Server),
            max_packet_len: 128 * 1024,
            max_value_len: 64 * 1024,
            max_key_len: 256,
            store: NodeStore::Memory,
            max_records: 1024,
            max_provided_keys: 16 * 1024,
            bootstrap_interval: Some(Duration::from_secs(5 * 60)),
            idle_connection_timeout: Duration::from_secs(60),
            max_connections: 512,
            max_connections_per_peer: NonZeroU32::MIN.saturating_add(3),
            max_half_open: 256,
            max_half_open_per_address: 128,
            agent_version: concat!("kadence/", env!("CARGO_PKG_VERSION")).to_owned(),
            peer_timeouts: Some(PeerTimeoutConfig::default()),
            driver: DriverConfig::default(),
        }
    }
}

impl NodeConfig {
    pub(super) fn open_store(&self, local_peer: PeerId) -> Result<Store, NodeError> {
        let config = self.store_limits();
        match &self.store {
            NodeStore::Memory => Ok(Store::memory(local_peer, config)),
            #[cfg(feature = "disk")]
            NodeStore::Disk(path) => Store::open(path, local_peer, config).map_err(NodeError::Store),
        }
    }

    /// With the default limits, the store's own defaults.
    fn store_limits(&self) -> StoreConfig {
        // At least one of the longest.
        let share = self.max_records.div_ceil(2);
        let longest = self.max_value_len.saturating_add(self.max_key_len);
        StoreConfig {
            validators: self.driver.tracker.validators.clone(),
            max_records: self.max_records,
            max_total_bytes: self.max_records.saturating_mul(longest),
            max_value_len: self.max_value_len,
            max_key_bytes: self.max_key_len,
            max_records_per_publisher: share,
            max_bytes_per_publisher: share.saturating_mul(longest),
            max_provided_keys: self.max_provided_keys,
            max_provider_records: self.max_provided_keys.saturating_mul(4),
            max_keys_per_provider: self.max_provided_keys.div_ceil(8),
            ..StoreConfig::default()
        }
    }

    pub(super) fn kad(&self, local_peer: PeerId, store: Store) -> kad::Behaviour<Store> {
        let mut config = kad::Config::new(self.protocol.clone());
        config
            .set_max_packet_size(self.max_packet_len)
            .set_periodic_bootstrap_interval(self.bootstrap_interval)
            .set_parallelism(PARALLELISM)
            // The default of 1 names a single peer that had no copy, too few to bring the others up to date.
            .set_caching(kad::Caching::Enabled { max_peers: 20 });
        let mut kad = kad::Behaviour::with_config(local_peer, store, config);
        // Who cannot be dialled cannot serve, and would only take a place in the tables of others.
        kad.set_mode(if self.listen.is_empty() && self.mode == Some(Mode::Server) {
            Some(Mode::Client)
        } else {
            self.mode
        });
        kad
    }

    pub(super) fn identify(&self, key: PublicKey) -> libp2p::identify::Config {
        libp2p::identify::Config::new("/kadence/1.0.0".to_owned(), key)
            .with_agent_version(self.agent_version.clone())
            .with_push_listen_addr_updates(true)
    }

    pub(super) fn limits(&self) -> libp2p::connection_limits::ConnectionLimits {
        libp2p::connection_limits::ConnectionLimits::default()
            // Half-open ones are limited by the transport, where the oldest gives way: a limit here would turn newcomers away.
            .with_max_established(Some(self.max_connections))
            // A quarter is ours to dial with: strangers who take all the others cannot cut us off.
            .with_max_established_incoming(Some(self.max_connections - self.max_connections / 4))
            .with_max_established_per_peer(Some(self.max_connections_per_peer.get()))
    }

    pub(super) fn half_open(&self) -> HalfOpenLimits {
        HalfOpenLimits { total: self.max_half_open, per_address: self.max_half_open_per_address }
    }

    pub(super) fn driver(&self) -> DriverConfig {
        let mut driver = self.driver.clone();
        driver.tracker.max_packet_len = self.max_packet_len;
        driver.tracker.max_value_len = self.max_value_len;
        driver.tracker.max_key_len = self.max_key_len;
        if let Some(stall) = &mut driver.tracker.stall {
            stall.parallelism = u32::try_from(PARALLELISM.get()).unwrap_or(u32::MAX);
        }
        driver
    }
}

/// Where a node keeps what it stores for the network, and what it has published itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeStore {
    /// In memory. It ends with the node, and comes back only as far as others have copies.
    #[default]
    Memory,
    /// In this file as well, which is made if there is none, with files of the same name and an ending beside it; on a
    /// local disk, and of one node alone. What was acknowledged is there again after the process was killed, and after a
    /// failure of power but for the last second. What the node itself has put and provides is announced again soon after
    /// the first peer, so the node should have the same [`Identity`] each time; under another one, all is that of others.
    #[cfg(feature = "disk")]
    Disk(PathBuf),
}

/// A peer and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownPeer {
    pub(super) id: PeerId,
    /// Without the id at their ends.
    pub(super) addresses: Vec<Multiaddr>,
}

impl KnownPeer {
    pub(super) fn parse(address: &Multiaddr, local_peer: PeerId) -> Result<Self, NodeError> {
        let mut without_id = address.clone();
        match without_id.pop() {
            Some(Protocol::P2p(id)) if id == local_peer => Err(NodeError::OwnAddress { address: address.clone() }),
            Some(Protocol::P2p(id)) if !without_id.is_empty() => Ok(Self { id, addresses: vec![without_id] }),
            _ => Err(NodeError::NoPeerId { address: address.clone() }),
        }
    }

    /// Peers by id, so that all addresses of one are dialled together. Our own is passed over: a list of seeds is often
    /// the same on all nodes, the seeds included.
    pub(super) fn parse_all(addresses: &[Multiaddr], local_peer: PeerId) -> Result<Vec<Self>, NodeError> {
        let mut peers: Vec<Self> = Vec::new();
        for address in addresses {
            let peer = match Self::parse(address, local_peer) {
                Err(NodeError::OwnAddress { .. }) => continue,
                peer => peer?,
            };
            match peers.iter_mut().find(|known| known.id == peer.id) {
                Some(known) => known.addresses.extend(peer.addresses),
                None => peers.push(peer),
            }
        }
        Ok(peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_are_the_stores_own() {
        let (ours, defaults) = (NodeConfig::default().store_limits(), StoreConfig::default());
        let counts = |config: &StoreConfig| {
            let StoreConfig {
                validators: _,
                require_validator: _,
                max_records,
                max_total_bytes: _,
                max_value_len,
                max_key_bytes,
                max_records_per_publisher,
                max_bytes_per_publisher: _,
                max_ttl: _,
                max_provided_keys,
                max_providers_per_key,
                max_provider_records,
                max_keys_per_provider,
                flush_within: _,
            } = *config;
            let records = [max_records, max_value_len, max_key_bytes, max_records_per_publisher];
            let providers = [max_provided_keys, max_providers_per_key, max_provider_records, max_keys_per_provider];
            (records, providers)
        };
        assert_eq!(counts(&ours), counts(&defaults));
        // The bytes take the keys in, too, so that `max_records` of the longest fit.
        assert!((defaults.max_total_bytes..defaults.max_total_bytes + 1024 * 1024).contains(&ours.max_total_bytes));
    }

    #[test]
    fn a_store_of_one_record_takes_the_longest() {
        let config = NodeConfig { max_records: 1, ..NodeConfig::default() };
        let local_peer = PeerId::random();
        let mut store = config.open_store(local_peer).unwrap();
        let record = kad::Record::new(vec![b'k'; config.max_key_len], vec![0; config.max_value_len]);
        store.insert(kad::Record { publisher: Some(PeerId::random()), ..record }).unwrap();
        assert!(config.driver().tracker.max_value_len_for(config.max_key_len) >= config.max_value_len);
    }

    #[test]
    fn an_address_without_a_peer_id_is_refused_by_name() {
        let local = PeerId::random();
        let peer = PeerId::random();
        let parse = |text: &str| KnownPeer::parse(&text.parse().unwrap(), local);
        assert!(matches!(parse("/ip4/127.0.0.1/tcp/1"), Err(NodeError::NoPeerId { .. })));
        assert!(matches!(parse(&format!("/p2p/{peer}")), Err(NodeError::NoPeerId { .. })));
        assert!(matches!(parse(&format!("/ip4/127.0.0.1/tcp/1/p2p/{local}")), Err(NodeError::OwnAddress { .. })));
        let known = parse(&format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}")).unwrap();
        assert_eq!(known, KnownPeer { id: peer, addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()] });
    }

    #[test]
    fn the_addresses_of_a_peer_are_dialled_together_and_our_own_is_passed_over() {
        let (local, peer, other) = (PeerId::random(), PeerId::random(), PeerId::random());
        let list = [("tcp/1", peer), ("tcp/2", local), ("tcp/3", other), ("udp/4/quic-v1", peer)]
            .map(|(place, id)| format!("/ip4/127.0.0.1/{place}/p2p/{id}").parse().unwrap());
        let peers = KnownPeer::parse_all(&list, local).unwrap();
        let places: Vec<_> = peers.iter().map(|known| (known.id, known.addresses.len())).collect();
        assert_eq!(places, [(peer, 2), (other, 1)]);
    }
}
