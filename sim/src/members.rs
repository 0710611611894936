//! Nodes that join a network one after the other.

use std::time::Duration;

use futures_timer::Delay;
use kadence::{
    DriverConfig,
    node::{Node, NodeConfig, NodeError},
};
use libp2p::Multiaddr;
use rand::Rng;

use crate::{Host, Link, World};

/// Port that members listen on.
pub const PORT: u16 = 4001;

/// Time after which idle connections are closed, in a node of Kadence by default and in those that are compared with it.
pub(crate) const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of members that start in the same second.
const AT_ONCE: usize = 20;

/// Time that a node takes to start again.
const RESTART: Duration = Duration::from_secs(1);

/// Number of members that a new one knows.
const KNOWN: usize = 3;

/// Host and the node that runs on it.
pub struct Member {
    /// The host.
    pub host: Host,
    /// The node.
    pub node: Node,
}

impl Member {
    /// Starts a node on a host. It listens on [`PORT`], unless `config` says otherwise.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn start(host: Host, config: NodeConfig) -> Result<Self, NodeError> {
        let config = if config.listen.is_empty() { config.listen([host.multiaddr(PORT)]) } else { config };
        let node = host.node(config).await?;
        Ok(Self { host, node })
    }

    /// Starts a node that joins through the peers at these addresses, on [`PORT`]. It keeps no events for a reader, of which
    /// each node would have a megabyte.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn join(host: Host, known: Vec<Multiaddr>) -> Result<Self, NodeError> {
        Self::start(host, Self::config().bootstrap_peers(known)).await
    }

    /// Returns the configuration of a member that knows nobody.
    pub fn config() -> NodeConfig {
        NodeConfig::default().driver(DriverConfig::default().event_capacity(0))
    }

    /// Returns the addresses of the node.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.node.listen_addrs()
    }

    /// Kills the node, and starts another one on the same host a second later.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn restart(self, config: NodeConfig) -> Result<Self, NodeError> {
        self.host.kill();
        Delay::new(RESTART).await;
        Self::start(self.host, config).await
    }
}

impl World {
    /// Starts `number` nodes on hosts of their own, 20 in each second. Each knows up to three of those before it. Returns
    /// them after a further minute, when their routing tables have settled.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn members(&self, number: usize, link: Link) -> Result<Vec<Member>, NodeError> {
        self.members_with(number, AT_ONCE, link, Member::config()).await
    }

    /// Starts nodes as [`members`](Self::members) does, `at_once` of them in each second, with a configuration to which the
    /// addresses of those they know are added.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn members_with(
        &self,
        number: usize,
        at_once: usize,
        link: Link,
        config: NodeConfig,
    ) -> Result<Vec<Member>, NodeError> {
        let mut members: Vec<Member> = Vec::with_capacity(number);
        let mut addresses = Vec::with_capacity(number);
        while members.len() < number {
            for _ in 0..at_once.clamp(1, number - members.len()) {
                let known = self.some_of(&addresses);
                let known = config.bootstrap_peers.iter().cloned().chain(known);
                let member = Member::start(self.host(link), config.clone().bootstrap_peers(known)).await?;
                addresses.extend(member.addresses());
                members.push(member);
            }
            self.sleep(Duration::from_secs(1)).await;
        }
        self.sleep(Duration::from_secs(60)).await;
        Ok(members)
    }

    /// Returns up to three of the addresses, drawn at random.
    pub fn some_of(&self, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
        let draws = if addresses.is_empty() { 0 } else { KNOWN };
        let mut drawn: Vec<_> =
            (0..draws).map(|_| self.random(|random| random.random_range(0..addresses.len()))).collect();
        drawn.sort_unstable();
        drawn.dedup();
        drawn.into_iter().filter_map(|at| addresses.get(at).cloned()).collect()
    }
}
