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
        let mut members: Vec<Member> = Vec::with_capacity(number);
        while members.len() < number {
            for _ in 0..AT_ONCE.min(number - members.len()) {
                // Nobody reads their events, of which each would keep a megabyte.
                let driver = DriverConfig::default().event_capacity(0);
                let config = NodeConfig::default().bootstrap_peers(self.some_of(&members)).driver(driver);
                members.push(Member::start(self.host(link), config).await?);
            }
            self.sleep(Duration::from_secs(1)).await;
        }
        self.sleep(Duration::from_secs(60)).await;
        Ok(members)
    }

    /// Returns the addresses of up to three members, drawn at random.
    pub fn some_of(&self, members: &[Member]) -> Vec<Multiaddr> {
        let draws = if members.is_empty() { 0 } else { KNOWN };
        let mut drawn: Vec<_> =
            (0..draws).map(|_| self.random(|random| random.random_range(0..members.len()))).collect();
        drawn.sort_unstable();
        drawn.dedup();
        drawn.into_iter().filter_map(|at| members.get(at)).flat_map(Member::addresses).collect()
    }
}
