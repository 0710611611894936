#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use kadence_core::REPLICATION_FACTOR;
use kadence_store::{Store, StoreConfig};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    identity::PublicKey,
    kad::{self, Mode},
    multiaddr::Protocol,
};

use super::{error::NodeError, half_open::HalfOpenLimits, identity::Identity};
use crate::{DriverConfig, PeerTimeoutConfig};

/// Default name of the kad protocol. It differs from the name in the public IPFS network, `/ipfs/kad/1.0.0`.
pub const DEFAULT_PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence/kad/1.0.0");

/// Number of peers that a query asks at once. Where half of all peers are silent, kad's own 3 are all silent at the
/// beginning of every eighth lookup; it then has to wait for the maximum timeout, because nobody shows that the network
/// is alive. With 10 that is one lookup in a thousand. A lookup asks some twenty peers in any case.
const PARALLELISM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

/// Time after which kad closes the stream of a request that was not answered. With peer timeouts, silent peers are given up
/// long before, so that it only has to be enough for a value that is sent or received slowly.
const STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// Configuration of a [`Node`](super::Node). The defaults are for a private network.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kadence::node::{Identity, NodeConfig};
///
/// let seed = "/dns4/seed.example/tcp/4001/p2p/12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";
/// let config = NodeConfig::default()
///     .identity(Identity::File("node.key".into()))
///     .listen(["/ip4/0.0.0.0/tcp/4001".parse()?])
///     .bootstrap_peers([seed.parse()?]);
/// # drop(config);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Source of the key pair, which determines the peer id. Default: [`Identity::Ephemeral`], a new key pair at every
    /// start.
    pub identity: Identity,
    /// Addresses to listen on. Default: none, which is enough for a node that only makes calls.
    pub listen: Vec<Multiaddr>,
    /// Addresses at which other nodes can dial this node, for example that of a router that forwards a port. They are
    /// part of announcements, so that others find what this node provides, and are sent to peers, which put them into
    /// their routing tables. Default: none, which means those that the node listens on: not loopback addresses, unless
    /// there are no others, and at most 16, public ones first. With [`mode`](field@Self::mode) `None`, the default means
    /// none.
    pub external_addresses: Vec<Multiaddr>,
    /// Peers through which the node joins the network, each address with the peer id at the end:
    /// `/ip4/…/tcp/…/p2p/12D3Koo…`. They are dialled at the start, up to 64 at a time; a dial that takes more than a
    /// second gives way to the next one. Addresses with the node's own peer id are skipped. Default: none.
    ///
    /// While no peer of the network is connected, they are redialled at growing intervals of 2 s to 60 s, or to 5 minutes if
    /// they accept connections and close them. While one is connected, the bootstrap peers that are not are dialled from
    /// time to time, so that one that was started again becomes part of the network again. The more nodes the network has,
    /// the less often that is.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// Name of the kad protocol. Only nodes with the same name form a network. Default: [`DEFAULT_PROTOCOL`].
    ///
    /// For the public IPFS network, set `/ipfs/kad/1.0.0` and enable the feature `public-network`, because its peers
    /// also have keys of other kinds than Ed25519.
    pub protocol: StreamProtocol,
    /// Mode of kad. Default: [`Mode::Server`].
    ///
    /// A server stores records and providers for other nodes and answers their requests. A client only sends requests.
    /// If `listen` is empty, `Mode::Server` has the effect of [`Mode::Client`]. With `None`, the node is a server only
    /// while it has a confirmed external address. The node does not confirm one by itself: the application has to call
    /// `Swarm::add_external_address`, or add a behaviour that confirms addresses.
    pub mode: Option<Mode>,
    /// Maximum length of a kad message, in bytes. Use the same value on all nodes of a network: kad checks the length
    /// only when it receives a message. A put is rejected if its record might not fit: see
    /// [`TrackerConfig::max_value_len_for`](kadence_core::TrackerConfig::max_value_len_for). Default: 128 KiB.
    pub max_packet_len: usize,
    /// Maximum length of a record's value, in bytes, in a put and in the store. The limit of a put is lower if
    /// [`max_packet_len`](field@Self::max_packet_len) is too small for such a value. Default: 64 KiB.
    pub max_value_len: usize,
    /// Maximum length of a key, in bytes, in a call and in the store. Default: 256. go-libp2p accepts announcements of
    /// providers only for keys of at most 80 bytes.
    pub max_key_len: usize,
    /// Place of the records and providers that the node stores. Default: [`NodeStore::Memory`].
    pub store: NodeStore,
    /// Time within which a record or provider that was written to the store's file survives a power failure, if the
    /// disk honours flushes and is neither slow nor failing. `None`: only after
    /// [`Store::flush`](kadence_store::Store::flush), which the application then has to call from time to time. No
    /// effect with [`NodeStore::Memory`]. Default: 1 s.
    pub flush_within: Option<Duration>,
    /// Maximum number of records that the node stores, including those that it has published itself. Default: 1,024,
    /// which is 64 MiB with the longest values. All are held in memory, even if the store is in a file.
    ///
    /// Each publisher other than the node has at most half of this number, rounded up, and so have all records without
    /// a publisher together. When the share of a publisher is full, a new record of that publisher evicts another one
    /// of the same publisher. When the store is full, a new record of another publisher than the node evicts one of any
    /// publisher but the node. Both evict only a record whose key is farther from the node than the key of the new
    /// record; if there is none, the new record is rejected. The node's own records are never evicted. A new own record
    /// evicts one of another publisher at any distance; there is no room for a new own record only if all stored
    /// records are own ones.
    pub max_records: usize,
    /// Maximum number of keys whose providers the node stores, including those that it provides itself. Default:
    /// 16,384. The providers of that many keys take some 200 MiB of memory at worst, and usually a tenth of that.
    ///
    /// A key has at most 20 providers, and all keys together have at most four times as many provider entries as this
    /// limit. One peer other than the node provides at most an eighth as many keys as this limit, rounded up.
    pub max_provided_keys: usize,
    /// Interval at which kad refreshes its routing table by a bootstrap. `None` disables these bootstraps. In either
    /// case kad also bootstraps at some events, for example when a peer is added to a small table. Default: 5 minutes.
    pub bootstrap_interval: Option<Duration>,
    /// Time after which a connection is closed that has no open stream, apart from those of pings, and that no
    /// behaviour keeps alive. Default: 60 s. With libp2p's default of 10 s, most lookups have to dial first.
    pub idle_connection_timeout: Duration,
    /// Maximum number of established connections, of which at most three quarters, rounded up, are incoming. Default:
    /// 512, whose buffers take some 100 MiB at worst.
    pub max_connections: u32,
    /// Maximum number of established connections with one peer. Default: 4, enough for simultaneous dials over two
    /// transports.
    pub max_connections_per_peer: NonZeroU32,
    /// Maximum number of half-open connections, over all transports. A half-open connection is an incoming one whose
    /// handshakes are not complete. The transports of the runtime crates close it after at most 10 s. Default: 256.
    /// Zero counts as 1.
    ///
    /// A new connection above the limit closes the oldest half-open connection of the address that has most of them.
    /// Half-open connections do not count towards [`max_connections`](field@Self::max_connections). They take file
    /// descriptors, for a moment up to twice as many as this limit.
    pub max_half_open: usize,
    /// Maximum number of half-open connections of one remote address: an IPv4 address, the first 64 bits of an IPv6
    /// address, or an address of another kind as a whole. A new connection above the limit closes the oldest half-open
    /// connection of the same address. At most this many peers can dial at the same moment from behind one address.
    /// Default: 128. Zero counts as 1.
    pub max_half_open_per_address: usize,
    /// Name and version of the software, as identify sends them to other peers. Default: `kadence/` and the version of
    /// this crate.
    pub agent_version: String,
    /// Timeouts after which a query gives up a silent peer. They follow the measured round-trip times. `None`: kad's
    /// own timeout of 10 s applies. Default: [`PeerTimeoutConfig::default`].
    pub peer_timeouts: Option<PeerTimeoutConfig>,
    /// Number of nodes that the network is expected to have. Set it in a network of fewer than four nodes, where an
    /// empty result is never conclusive otherwise: see [`Certainty`](kadence_core::Certainty). `Some` replaces the
    /// tracker's field of this name, and `None`, the default, keeps it. If neither field is set, the size of the
    /// routing table decides.
    pub expected_network_size: Option<usize>,
    /// Configuration of the driver and of its tracker ([`QueryTracker`](kadence_core::QueryTracker)). Default:
    /// [`DriverConfig::default`], but for [`requires_external_address`](field@DriverConfig::requires_external_address),
    /// which is `true`: announcements of a node that does not listen fail.
    ///
    /// The node overwrites the tracker's `max_packet_len`, `max_value_len` and `max_key_len` with its own fields of
    /// these names, and sets [`Stall::parallelism`](kadence_core::Stall::parallelism) to 10, the parallelism of the
    /// node's kad. The store uses the tracker's validators: it rejects an invalid record, and one that is worse than
    /// the stored record.
    pub driver: DriverConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            identity: Identity::Ephemeral,
            listen: Vec::new(),
            external_addresses: Vec::new(),
            bootstrap_peers: Vec::new(),
            protocol: DEFAULT_PROTOCOL,
            mode: Some(Mode::Server),
            max_packet_len: 128 * 1024,
            max_value_len: 64 * 1024,
            max_key_len: 256,
            store: NodeStore::Memory,
            flush_within: Some(Duration::from_secs(1)),
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
            expected_network_size: None,
            driver: DriverConfig::default().requires_external_address(true),
        }
    }
}

macro_rules! setters {
    ($($field:ident: $type:ty = $value:expr),* $(,)?) => {
        impl NodeConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $value;
                    self
                }
            )*
        }
    };
}

setters! {
    identity: Identity = identity,
    listen: impl IntoIterator<Item = Multiaddr> = listen.into_iter().collect(),
    external_addresses: impl IntoIterator<Item = Multiaddr> = external_addresses.into_iter().collect(),
    bootstrap_peers: impl IntoIterator<Item = Multiaddr> = bootstrap_peers.into_iter().collect(),
    protocol: StreamProtocol = protocol,
    mode: impl Into<Option<Mode>> = mode.into(),
    max_packet_len: usize = max_packet_len,
    max_value_len: usize = max_value_len,
    max_key_len: usize = max_key_len,
    store: NodeStore = store,
    flush_within: impl Into<Option<Duration>> = flush_within.into(),
    max_records: usize = max_records,
    max_provided_keys: usize = max_provided_keys,
    bootstrap_interval: impl Into<Option<Duration>> = bootstrap_interval.into(),
    idle_connection_timeout: Duration = idle_connection_timeout,
    max_connections: u32 = max_connections,
    max_connections_per_peer: NonZeroU32 = max_connections_per_peer,
    max_half_open: usize = max_half_open,
    max_half_open_per_address: usize = max_half_open_per_address,
    agent_version: impl Into<String> = agent_version.into(),
    peer_timeouts: impl Into<Option<PeerTimeoutConfig>> = peer_timeouts.into(),
    expected_network_size: impl Into<Option<usize>> = expected_network_size.into(),
    driver: DriverConfig = driver,
}

impl NodeConfig {
    pub(super) fn open_store(&self, local_peer_id: PeerId) -> Result<Store, NodeError> {
        let config = self.store_config();
        match &self.store {
            NodeStore::Memory => Ok(Store::memory(local_peer_id, config)),
            #[cfg(feature = "disk")]
            NodeStore::Disk(path) => Store::open(path, local_peer_id, config).map_err(NodeError::Store),
        }
    }

    /// Returns the limits of the store. By default they are the store's own defaults.
    fn store_config(&self) -> StoreConfig {
        // Fits at least one record of the maximum length.
        let share = self.max_records.div_ceil(2);
        let longest = self.max_value_len.saturating_add(self.max_key_len);
        StoreConfig::default()
            .validators(self.driver.tracker.validators.clone())
            .flush_within(self.flush_within)
            .max_records(self.max_records)
            .max_total_bytes(self.max_records.saturating_mul(longest))
            .max_value_len(self.max_value_len)
            .max_key_len(self.max_key_len)
            .max_records_per_publisher(share)
            .max_bytes_per_publisher(share.saturating_mul(longest))
            .max_provided_keys(self.max_provided_keys)
            .max_provider_records(self.max_provided_keys.saturating_mul(4))
            .max_keys_per_provider(self.max_provided_keys.div_ceil(8))
    }

    pub(super) fn kad(&self, local_peer_id: PeerId, store: Store) -> kad::Behaviour<Store> {
        let mut config = kad::Config::new(self.protocol.clone());
        config
            .set_max_packet_size(self.max_packet_len)
            .set_periodic_bootstrap_interval(self.bootstrap_interval)
            .set_parallelism(PARALLELISM)
            // Peers without a copy, which read repair brings up to date. kad's default of 1 names too few.
            .set_caching(kad::Caching::Enabled { max_peers: REPLICATION_FACTOR as u16 });
        if self.peer_timeouts.is_some() {
            config.set_substreams_timeout(STREAM_TIMEOUT);
        }
        let mut kad = kad::Behaviour::with_config(local_peer_id, store, config);
        // A node that cannot be dialled cannot serve, and would only take up space in the routing tables of others.
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
            // Those that can be dialled are external addresses, too. Peers keep few, and identify sends all in any order.
            .with_hide_listen_addrs(self.mode.is_some())
    }

    pub(super) fn limits(&self) -> libp2p::connection_limits::ConnectionLimits {
        libp2p::connection_limits::ConnectionLimits::default()
            // The transport limits half-open connections, where the oldest gives way; a limit here would deny
            // newcomers.
            .with_max_established(Some(self.max_connections))
            // A quarter is reserved for own dials: peers that take all others cannot cut the node off.
            .with_max_established_incoming(Some(self.max_connections - self.max_connections / 4))
            .with_max_established_per_peer(Some(self.max_connections_per_peer.get()))
    }

    pub(super) fn half_open(&self) -> HalfOpenLimits {
        HalfOpenLimits { total: self.max_half_open, per_address: self.max_half_open_per_address }
    }

    pub(super) fn driver_config(&self) -> DriverConfig {
        let mut driver = self.driver.clone();
        driver.tracker.max_packet_len = self.max_packet_len;
        driver.tracker.max_value_len = self.max_value_len;
        driver.tracker.max_key_len = self.max_key_len;
        if self.expected_network_size.is_some() {
            driver.tracker.expected_network_size = self.expected_network_size;
        }
        if let Some(stall) = &mut driver.tracker.stall {
            stall.parallelism = u32::try_from(PARALLELISM.get()).unwrap_or(u32::MAX);
        }
        driver
    }
}

/// Storage of the records and providers of a node: its own ones, and those that it keeps for other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeStore {
    /// In memory. When the node ends, all records and providers are lost, except for the copies that other nodes have.
    #[default]
    Memory,
    /// In memory and in this file, which is created if there is none. The folder of the file has to exist. SQLite and a
    /// lock add files with the same name and a suffix. The file has to be on a local disk. Only one node at a time can
    /// have it open.
    ///
    /// A stored record survives a killed process at once, and a power failure after
    /// [`flush_within`](field@NodeConfig::flush_within). After a start, the node announces its own records and providers
    /// in the file again, beginning at most two seconds after it is [ready](super::Node::ready). Use the same key pair
    /// each time (see [`Identity`]): under another one, earlier own records and providers count as those of another
    /// peer, and expire.
    #[cfg(feature = "disk")]
    Disk(PathBuf),
}

/// A peer and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownPeer {
    pub(super) id: PeerId,
    /// Without the peer id at the end.
    pub(super) addresses: Vec<Multiaddr>,
}

impl KnownPeer {
    pub(super) fn parse(address: &Multiaddr, local_peer_id: PeerId) -> Result<Self, NodeError> {
        let mut without_id = address.clone();
        match without_id.pop() {
            Some(Protocol::P2p(id)) if id == local_peer_id => Err(NodeError::OwnAddress { address: address.clone() }),
            Some(Protocol::P2p(id)) if !without_id.is_empty() => Ok(Self { id, addresses: vec![without_id] }),
            _ => Err(NodeError::NoPeerId { address: address.clone() }),
        }
    }

    /// Groups addresses by peer, so that all addresses of a peer are dialled together. The node's own are skipped: a
    /// list of seeds is often the same on all nodes, the seeds included.
    pub(super) fn parse_all(addresses: &[Multiaddr], local_peer_id: PeerId) -> Result<Vec<Self>, NodeError> {
        let mut peers: Vec<Self> = Vec::new();
        for address in addresses {
            let peer = match Self::parse(address, local_peer_id) {
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
    fn the_default_limits_are_those_of_the_store() {
        let (node, store) = (NodeConfig::default().store_config(), StoreConfig::default());
        let counts = |config: &StoreConfig| {
            let StoreConfig {
                max_records,
                max_value_len,
                max_key_len,
                max_records_per_publisher,
                max_provided_keys,
                max_providers_per_key,
                max_provider_records,
                max_keys_per_provider,
                ..
            } = *config;
            let records = [max_records, max_value_len, max_key_len, max_records_per_publisher];
            let providers = [max_provided_keys, max_providers_per_key, max_provider_records, max_keys_per_provider];
            (records, providers)
        };
        assert_eq!(counts(&node), counts(&store));
        // Keys are included, so that `max_records` records of the maximum length fit.
        assert!((store.max_total_bytes..store.max_total_bytes + 1024 * 1024).contains(&node.max_total_bytes));
    }

    #[test]
    fn a_store_of_one_record_fits_the_longest() {
        let config = NodeConfig::default().max_records(1);
        let mut store = config.open_store(PeerId::random()).unwrap();
        let record = kad::Record::new(vec![b'k'; config.max_key_len], vec![0; config.max_value_len]);
        store.insert(kad::Record { publisher: Some(PeerId::random()), ..record }).unwrap();
        assert!(config.driver_config().tracker.max_value_len_for(config.max_key_len) >= config.max_value_len);
    }

    #[test]
    fn an_address_without_a_peer_id_is_rejected_by_name() {
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
    fn the_addresses_of_a_peer_are_dialled_together_and_the_own_one_is_skipped() {
        let (local, peer, other) = (PeerId::random(), PeerId::random(), PeerId::random());
        let list = [("tcp/1", peer), ("tcp/2", local), ("tcp/3", other), ("udp/4/quic-v1", peer)]
            .map(|(place, id)| format!("/ip4/127.0.0.1/{place}/p2p/{id}").parse().unwrap());
        let peers = KnownPeer::parse_all(&list, local).unwrap();
        let places: Vec<_> = peers.iter().map(|known| (known.id, known.addresses.len())).collect();
        assert_eq!(places, [(peer, 2), (other, 1)]);
    }
}
